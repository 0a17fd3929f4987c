# SPDX-License-Identifier: Apache-2.0
"""Record types have the numbers that dnspython and scapy know, and no daemon imports either."""

from __future__ import annotations

import subprocess
import sys

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


DAEMON = """
import sys

for name in ("scapy", "dns", "numpy", "scipy", "matplotlib", "jinja2", "hdrh"):
    sys.modules[name] = None  # an import of it fails

import carom.apps
import carom.cli
import carom.cli_serve
import carom.daemon.front
import carom.daemon.run
from carom.protocols import SPECS


assert all(one.keys_named(b"1") for one in SPECS.values())
print("done")
"""


def test_a_daemon_needs_what_it_is_installed_with() -> None:
    """And neither what the lab needs nor what tests do."""
    done = subprocess.run([sys.executable, "-P", "-c", DAEMON], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
