# SPDX-License-Identifier: Apache-2.0
"""Record types have the numbers that dnspython and scapy know."""

from __future__ import annotations

import dns.rdatatype
from scapy.layers.dns import dnstypes

from carom.protocols.dns import keys_named
from carom.protocols.dns.types import TYPES

ASKED_FOR_SEVERAL = {"IXFR", "AXFR", "MAILB", "MAILA", "ANY", "TYPE0"}


def test_dnspython_has_the_same() -> None:
    theirs = {one.name.replace("_", "-"): int(one) for one in dns.rdatatype.RdataType}
    assert {name: TYPES.get(name) for name in theirs if name not in ASKED_FOR_SEVERAL} == {
        name: number for name, number in theirs.items() if name not in ASKED_FOR_SEVERAL
    }


def test_scapy_has_the_same() -> None:
    theirs = {str(word).upper(): number for number, word in dnstypes.items()}
    del theirs["RESERVED"]
    assert {name: TYPES.get(name) for name in theirs} == theirs


def test_a_name_and_its_type() -> None:
    assert {key[-3:-1] for key in keys_named(b"example.org mx")} == {b"\0\x0f"}
    assert keys_named(b"example.org any") == keys_named(b"example.org nonsense") == ()
