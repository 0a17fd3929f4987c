# SPDX-License-Identifier: Apache-2.0
"""abi.py agrees with what clang made of abi.h: sizes and offsets, field by field."""

from __future__ import annotations

import ctypes
import re
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from carom.daemon.fastpath import recipe
from carom.kernel.abi import (
    BUDGET_CELLS,
    COOKIE_SIGHT,
    COOKIES,
    DOOR,
    DRAFT,
    ENDPOINT,
    ENDPOINTS_MAX,
    LEFT_OUT,
    MARK,
    NEIGHBOUR,
    NEIGHBOURS_MAX,
    PREFIX,
    SAMPLE,
    SERVICE,
    SERVICES_MAX,
    SLOTS,
    SNAP_MAX,
    STATION,
    STRAY,
    TRACING,
    USAGE,
    VERDICTS,
    WALKED,
    WATCH,
    WAY_PREFIX,
    WAYS_MAX,
    Hook,
)
from carom.kernel.compiler import BCC, made_by_bcc

DRAFT_FIELDS = (
    "ready meta.token meta.expires meta.filled meta.slot meta.length meta.stored meta.sum "
    "meta.loops meta.used meta.key_sum key.service key.length key.bytes bytes"
)


@pytest.fixture(scope="module")
def tables() -> Iterator[Any]:
    """BCC's tables by name; their Key and Leaf are made of clang's own record layouts.

    They are of the very text and flags that a fast path is compiled from.
    """
    made = made_by_bcc(recipe().source(BCC))
    try:
        yield made
    finally:
        made.cleanup()


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
        ("walks", "Leaf", WALKED, "verdict place stop zero"),
        (
            "tracings",
            "Leaf",
            TRACING,
            "verdicts from mask by_source one_in a_moment snap port",
        ),
        (
            "services",
            "Leaf",
            SERVICE,
            "id view fast protocol skb_mode hands_over mac mtu multiple allow_list rated learn "
            "link prefix_rate total_rate max_reply unasked echoes responses slip",
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
        ("watches", "Leaf", WATCH, "protocol ttl uid ends alone away losses changed"),
        ("sockets", "Leaf", MARK, "service view kind"),
        ("doors", "Key", DOOR, "address netns port stream zero"),
        ("doors", "Leaf", MARK, "service view kind"),
    ],
)
def test_layouts_at_the_edge(
    tables: Any, table: str, side: str, packed: struct.Struct, fields: str
) -> None:
    check_layout(tables, table, side, packed, fields)


def check_layout(tables: Any, table: str, side: str, packed: struct.Struct, fields: str) -> None:
    layout = getattr(tables[table.encode()], side)
    layout = getattr(layout, "_type_", layout)  # one for each CPU
    assert ctypes.sizeof(layout) == packed.size
    assert [clangs(layout, path) for path in fields.split()] == pythons(packed)


def test_layout_of_a_sample(tables: Any) -> None:
    """What is behind its head are bytes of packets."""
    sampler = tables[b"samplers"].Leaf._type_
    kind = dict(field[:2] for field in sampler._fields_)["sample"]
    fields = (
        "time ifindex tag came_length sent_length came sent hook verdict place "
        "key.service key.length key.bytes"
    )
    assert [clangs(kind, path) for path in fields.split()] == pythons(SAMPLE)
    assert clangs(kind, "bytes") == (SAMPLE.size, 2 * SNAP_MAX)
    assert [clangs(sampler, name) for name in ("limited", "lost")] == pythons(LEFT_OUT)


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
