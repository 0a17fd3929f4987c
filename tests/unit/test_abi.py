# SPDX-License-Identifier: Apache-2.0
"""abi.py says the numbers that abi.h says, and its arithmetic is what it claims to be."""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Callable
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.utils import checksum

from carom.include import abi
from carom.include.abi import ENTRY, KEY, KEY_MAX, REPLY_MAX, SLOTS, Entry, Fast, Verdict

TEXT = (files("carom.include") / "abi.h").read_text()
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


def enumerators(name: str) -> dict[str, int]:
    """The names and numbers of an enum of abi.h, all of which must be written out."""
    found = re.search(rf"^enum {name} {{(.*?)^}};", TEXT, re.DOTALL | re.MULTILINE)
    assert found
    items = [item.split() for item in COMMENT.sub("", found[1]).split(",") if item.strip()]
    assert all(item[1] == "=" for item in items)
    return {item[0]: int(item[2]) for item in items}


def test_limits() -> None:
    defines = dict(re.findall(r"^#define (\w+) +(\d+)\b", TEXT, re.MULTILINE))
    assert len(defines) >= 7
    assert {name: getattr(abi, name, None) for name in defines} == {
        name: int(number) for name, number in defines.items()
    }


def test_verdicts() -> None:
    theirs = enumerators("verdict")
    assert theirs.pop("UNDECIDED") == 0
    assert theirs.pop("VERDICTS") == max(Verdict) + 1
    assert theirs == {verdict.name: verdict.value for verdict in Verdict}


def test_fast() -> None:
    assert enumerators("fast") == {f"FAST_{fast.name}": fast.value for fast in Fast}


@given(st.binary(max_size=KEY_MAX), st.integers(0, 8))
def test_slot_of(key: bytes, zeros: int) -> None:
    assert 0 <= abi.slot_of(key) < SLOTS
    assert abi.slot_of(key + b"\0" * zeros) == abi.slot_of(key)


@given(st.binary(min_size=1, max_size=KEY_MAX), st.data())
def test_each_byte_of_a_key_counts_for_its_slot(key: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(key) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != key[at]))
    assert abi.slot_of(key[:at] + bytes([other]) + key[at + 1 :]) != abi.slot_of(key)


FORMS: dict[str, Callable[[int], bytes]] = {
    "decimal": lambda n: b"%d" % n,
    "key": lambda n: b"key %d" % n,
    "user": lambda n: b"user:%08d:name" % n,
    "padded": lambda n: (b"%d" % n).ljust(32, b"."),
    "le32": lambda n: struct.pack("<I", n),
    "le32-high": lambda n: struct.pack("<I", n << 16),
    "be32": lambda n: struct.pack(">I", n),
    "be64": lambda n: struct.pack(">Q", n),
    "be64-high": lambda n: struct.pack(">Q", n << 16),
    "at-the-end": lambda n: struct.pack(">Q", n).rjust(32, b"\1"),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_numbered_keys_spread_over_the_slots(form: Callable[[int], bytes]) -> None:
    """As random ones would: 10,000 of them share 65,536 slots so that about 9,270 are taken."""
    assert len({abi.slot_of(form(n)) for n in range(10_000)}) > 9_000


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


def packed(entry: Entry, head: int, tail: int) -> bytes:
    return ENTRY.pack(
        *(head, entry.expires, entry.token, entry.generation, entry.slot),
        *(len(entry.reply), abi.sum_of(entry.reply)),
        *(entry.service, len(entry.key), entry.key, 0, entry.reply, tail),
    )


u64 = st.integers(0, 2**64 - 1)
entries = st.builds(
    Entry,
    service=st.integers(0, 255),
    key=st.binary(min_size=1, max_size=KEY_MAX),
    reply=st.binary(max_size=REPLY_MAX),
    expires=u64,
    token=u64,
    generation=u64,
    slot=st.integers(0, 2**32 - 1),
)


@given(entries, u64, u64)
def test_unpack_entry(entry: Entry, head: int, tail: int) -> None:
    assert abi.unpack_entry(packed(entry, head, head)) == entry
    assert abi.unpack_entry(memoryview(packed(entry, head, head))) == entry
    assert abi.unpack_entry(packed(entry, head, tail)) == (entry if head == tail else None)


def test_an_entry_holds_its_key_as_the_map_does() -> None:
    entry = Entry(3, b"k\0", b"reply", 0, 0, 0, 0)
    value = packed(entry, 1, 1)
    assert value[abi.ENTRY_KEY : abi.ENTRY_KEY + KEY.size] == KEY.pack(3, 2, b"k\0")
