# SPDX-License-Identifier: Apache-2.0
"""abi.py agrees with what clang made of abi.h: sizes and offsets, field by field."""

from __future__ import annotations

import contextlib
import ctypes
import re
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from carom.daemon.fastpath import FastPath
from carom.kernel import kept
from carom.kernel.abi import (
    BUDGET_CELLS,
    COOKIE_SIGHT,
    COOKIES,
    DOOR,
    DRAFT,
    ENDPOINT,
    ENDPOINTS_MAX,
    MARK,
    NEIGHBOUR,
    NEIGHBOURS_MAX,
    PREFIX,
    SERVICE,
    SERVICES_MAX,
    SLOTS,
    STATION,
    STRAY,
    USAGE,
    VERDICTS,
    WATCH,
    WAY_PREFIX,
    WAYS_MAX,
    Hook,
)
from carom.kernel.compiler import Source
from carom.protocols import SPECS

DRAFT_FIELDS = (
    "ready meta.token meta.expires meta.filled meta.slot meta.length meta.stored meta.sum "
    "meta.loops meta.used meta.key_sum key.service key.length key.bytes bytes"
)


@pytest.fixture(scope="module")
def tables() -> Iterator[Any]:
    """BCC's tables by name; their Key and Leaf are made of clang's own record layouts."""
    with bccs(languages=(SPECS["dns"],)) as tables:
        yield tables


@pytest.fixture(scope="module")
def edge_tables() -> Iterator[Any]:
    """The same with those of the socket's edge."""
    with bccs(languages=(SPECS["dns"],), edge=True) as tables:
        yield tables


@contextlib.contextmanager
def bccs(**options: Any) -> Iterator[Any]:
    """What BCC makes of a fast path, which is compiled here even if it was before."""
    made: list[Any] = []
    take = Source._taken

    def taken(self: Source, tables: Any) -> Any:
        tables.cleanup, made[:] = lambda: None, [tables]
        return take(self, tables)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept, "take", lambda _: None)
        patch.setattr(Source, "_taken", taken)
        FastPath(policy="lru", test_clock=True, **options).close()
    (tables,) = made
    try:
        yield tables
    finally:
        type(tables).cleanup(tables)


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
    codes = [one for code in codes for one in _single(code)]
    ends = [struct.calcsize("=" + "".join(codes[: n + 1])) for n in range(len(codes))]
    sizes = [struct.calcsize("=" + code) for code in codes]
    fields = zip(codes, ends, sizes, strict=True)
    return [(end - size, size) for code, end, size in fields if not code.endswith("x")]


def _single(code: str) -> list[str]:
    """One code a field: `6x` is padding, and `4s` one field, but `2Q` two."""
    return [code] if code[-1] in "sx" else [code[-1]] * int(code[:-1] or 1)


@pytest.mark.parametrize(
    ("table", "side", "packed", "fields"),
    [
        ("drafts", "Leaf", DRAFT, DRAFT_FIELDS),
        ("store_usage", "Leaf", USAGE, "entries pages newest oldest"),
        ("services", "Key", ENDPOINT, "address ifindex outer inner port zero"),
        ("strays", "Leaf", STRAY, "to zero seen"),
        (
            "services",
            "Leaf",
            SERVICE,
            "id view fast protocol skb_mode hands_over mac mtu multiple allow_list learn link "
            "prefix_rate total_rate max_reply unasked echoes responses slip",
        ),
        ("allowed", "Key", PREFIX, "length address"),
        ("ways", "Key", WAY_PREFIX, "length link address"),
        ("neighbours", "Key", NEIGHBOUR, "address link"),
        ("neighbours", "Leaf", STATION, "mac"),
        (
            "cookies",
            "Leaf",
            COOKIES,
            "epoch none count version secrets",
        ),
        ("cookie_sights", "Leaf", COOKIE_SIGHT, "epoch given right wrong"),
    ],
)
def test_layouts(tables: Any, table: str, side: str, packed: struct.Struct, fields: str) -> None:
    check_layout(tables, table, side, packed, fields)


@pytest.mark.parametrize(
    ("table", "side", "packed", "fields"),
    [
        ("watches", "Leaf", WATCH, "protocol ttl uid ends alone away"),
        ("sockets", "Leaf", MARK, "service view kind"),
        ("doors", "Key", DOOR, "address netns port stream zero"),
        ("doors", "Leaf", MARK, "service view kind"),
    ],
)
def test_layouts_at_the_edge(
    edge_tables: Any, table: str, side: str, packed: struct.Struct, fields: str
) -> None:
    check_layout(edge_tables, table, side, packed, fields)


def check_layout(tables: Any, table: str, side: str, packed: struct.Struct, fields: str) -> None:
    layout = getattr(tables[table.encode()], side)
    layout = getattr(layout, "_type_", layout)  # one for each CPU
    assert ctypes.sizeof(layout) == packed.size
    assert [clangs(layout, path) for path in fields.split()] == pythons(packed)


@pytest.mark.parametrize(
    ("table", "size"),
    [
        ("versions", SLOTS + SERVICES_MAX),
        ("holds", SLOTS + SERVICES_MAX),
        ("voids", 1),
        ("gates", 1),
        ("services", ENDPOINTS_MAX),
        ("verdicts", 2 * len(Hook) * VERDICTS),  # no service's, and one's
        ("ways", 2 * WAYS_MAX),
        ("neighbours", 2 * NEIGHBOURS_MAX),
        ("budgets", BUDGET_CELLS),
    ],
)
def test_sizes_of_maps(tables: Any, table: str, size: int) -> None:
    assert tables[table.encode()].max_entries == size
