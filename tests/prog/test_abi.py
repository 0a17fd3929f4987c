# SPDX-License-Identifier: Apache-2.0
"""abi.py agrees with what clang made of abi.h: sizes and offsets, field by field."""

from __future__ import annotations

import ctypes
import re
import struct
from collections.abc import Callable
from typing import Any

import pytest

from carom.include.abi import (
    ENDPOINT,
    ENTRY,
    ENTRY_KEY,
    INTERFACE,
    KEY,
    SERVICE,
    SERVICES_MAX,
    SLOTS,
    Verdict,
)
from carom.xdp.fastpath import FastPath

KEY_FIELDS = "service length bytes"
ENTRY_FIELDS = (
    "head expires token generation slot length sum key.service key.length key.bytes zero reply tail"
)


@pytest.fixture
def tables(load_fastpath: Callable[..., FastPath]) -> Any:
    """BCC's tables by name; their Key and Leaf are made of clang's own record layouts."""
    return load_fastpath(policy="lru", test_clock=True)._module._module


def clangs(layout: type[ctypes.Structure], path: str) -> tuple[int, int]:
    """Offset and size of a field, `.` between a structure and what is in it."""
    offset = 0
    kind: Any = layout
    for name in path.split("."):
        offset += getattr(kind, name).offset
        kind = dict(field[:2] for field in kind._fields_)[name]
    return offset, ctypes.sizeof(kind)


def pythons(packed: struct.Struct) -> list[tuple[int, int]]:
    """Offset and size of each field."""
    codes = re.findall(r"\d*[a-zA-Z]", packed.format)
    ends = [struct.calcsize("=" + "".join(codes[: n + 1])) for n in range(len(codes))]
    sizes = [struct.calcsize("=" + code) for code in codes]
    return [(end - size, size) for end, size in zip(ends, sizes, strict=True)]


@pytest.mark.parametrize(
    ("table", "side", "packed", "fields"),
    [
        ("cache", "Key", KEY, KEY_FIELDS),
        ("cache", "Leaf", ENTRY, ENTRY_FIELDS),
        ("services", "Key", ENDPOINT, "address port zero"),
        ("services", "Leaf", SERVICE, "id fast"),
        ("interfaces", "Leaf", INTERFACE, "mac mtu skb_mode"),
    ],
)
def test_layouts(tables: Any, table: str, side: str, packed: struct.Struct, fields: str) -> None:
    layout = getattr(tables[table.encode()], side)
    assert ctypes.sizeof(layout) == packed.size
    assert [clangs(layout, path) for path in fields.split()] == pythons(packed)


def test_the_key_of_an_entry(tables: Any) -> None:
    assert clangs(tables[b"cache"].Leaf, "key") == (ENTRY_KEY, KEY.size)


@pytest.mark.parametrize(
    ("table", "size"),
    [
        ("versions", SLOTS + SERVICES_MAX),
        ("services", SERVICES_MAX),
        ("verdicts", max(Verdict) + 1),
    ],
)
def test_sizes_of_maps(tables: Any, table: str, size: int) -> None:
    assert tables[table.encode()].max_entries == size
