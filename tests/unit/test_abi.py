# SPDX-License-Identifier: Apache-2.0
"""abi.py says the numbers that abi.h says, and its arithmetic is what it claims to be."""

from __future__ import annotations

import ipaddress
import re
import sys

from hypothesis import given
from hypothesis import strategies as st
from scapy.utils import checksum

from carom.kernel import abi
from carom.kernel.abi import (
    KEY_MAX,
    REPLY_MAX,
    Entry,
    Event,
    Fast,
    Hook,
    MarkKind,
    Noted,
    Verdict,
)
from carom.kernel.recipe import INCLUDE

TEXT = (INCLUDE / "abi.h").read_text()
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


def enumerators(name: str) -> dict[str, int]:
    """The names and numbers of an enum of abi.h, all of which must be written out."""
    found = re.search(rf"^enum {name} {{(.*?)^}};", TEXT, re.DOTALL | re.MULTILINE)
    assert found
    items = [item.split() for item in COMMENT.sub("", found[1]).split(",") if item.strip()]
    assert all(item[1] == "=" for item in items)
    return {item[0]: int(item[2]) for item in items}


def test_limits() -> None:
    defines = dict(re.findall(r"^#define (\w+) +(0x\w+|\d+)\b", TEXT, re.MULTILINE))
    assert len(defines) >= 7
    assert {name: getattr(abi, name, None) for name in defines} == {
        name: int(number, 0) for name, number in defines.items()
    }


def test_verdicts() -> None:
    theirs = enumerators("verdict")
    assert theirs.pop("UNDECIDED") == theirs.pop("FOR_NEXT") == 0
    assert theirs.pop("VERDICTS") == max(Verdict) + 1
    assert theirs == {verdict.name: verdict.value for verdict in Verdict}


def test_fast() -> None:
    assert enumerators("fast") == {f"FAST_{fast.name}": fast.value for fast in Fast}


def test_hooks_and_protocols() -> None:
    hooks = enumerators("hook")
    assert hooks.pop("HOOKS") == len(Hook)
    assert hooks == {hook.name: hook.value for hook in Hook}


def test_events() -> None:
    theirs = enumerators("event")
    assert theirs.pop("EVENTS") == len(Event)
    assert theirs == {event.name: event.value for event in Event}


def test_noted() -> None:
    assert enumerators("noted") == {f"NOTED_{noted.name}": noted.value for noted in Noted}


def test_mark_kinds() -> None:
    theirs = enumerators("mark_kind")
    assert theirs == {f"MARK_{kind.name}": kind.value for kind in MarkKind}


def plain_sum(data: bytes) -> int:
    """RFC 1071, word by word in memory order."""
    if len(data) % 2:
        data += b"\0"
    total = 0
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2], sys.byteorder)
        total = (total & 0xFFFF) + (total >> 16)
    return total


extremes = st.builds(bytes.__mul__, st.sampled_from([b"\0", b"\xff"]), st.integers(0, REPLY_MAX))


@given(st.binary(max_size=REPLY_MAX) | extremes)
def test_sum_of(data: bytes) -> None:
    ours = abi.sum_of(data)
    assert 0 <= ours < 0xFFFF
    assert ours == plain_sum(data) % 0xFFFF
    in_network_order = int.from_bytes(ours.to_bytes(2, sys.byteorder), "big")
    assert in_network_order == (0xFFFF ^ checksum(data)) % 0xFFFF


def packed(entry: Entry) -> bytes:
    """An entry as it stands in the arena."""
    head = abi.ENTRY.pack(
        *(entry.sequence, 0, entry.view << 8 | entry.service, len(entry.key), 0),
        *(entry.token, entry.expires, entry.filled, entry.slot, entry.length, len(entry.data)),
        *(abi.sum_of(entry.reply), entry.loops, 0, 0),
    )
    parts = (part.ljust(abi.whole(len(part)), b"\0") for part in (entry.key, entry.data))
    return head + b"".join(parts)


u64 = st.integers(0, 2**64 - 1)
entries = st.binary(max_size=REPLY_MAX).flatmap(
    lambda data: st.builds(
        Entry,
        service=st.integers(0, abi.SERVICES_MAX - 1),
        view=st.integers(0, abi.VIEWS_MAX - 1),
        key=st.binary(min_size=1, max_size=KEY_MAX),
        expires=u64,
        filled=u64,
        token=u64,
        slot=st.integers(0, 2**32 - 1),
        length=st.integers(0, len(data)),
        data=st.just(data),
        line=st.just(7),
        sequence=u64,
    )
)


@given(entry=entries)
def test_unpack_entry(entry: Entry) -> None:
    """While its sequence number is odd, somebody writes it."""
    memory = memoryview(packed(entry) + b"\xff" * 64)
    assert abi.unpack_entry(memory, 7) == (None if entry.sequence % 2 else entry)


def test_where_nothing_is_stored() -> None:
    assert abi.unpack_entry(memoryview(bytes(200)), 1) is None


def test_addresses() -> None:
    packed_address = abi.packed_address
    assert packed_address(ipaddress.ip_address("2001:db8::1"))[-1] == 1
    mapped = packed_address(ipaddress.ip_address("198.18.0.1"))
    assert ipaddress.IPv6Address(mapped).ipv4_mapped == ipaddress.ip_address("198.18.0.1")
