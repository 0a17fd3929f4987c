# SPDX-License-Identifier: Apache-2.0
"""What `carom top` makes of two looks, and that it fits a terminal whatever is in them."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from carom.daemon.outcomes import outcomes
from carom.kernel.abi import TIMES, Verdict
from carom.top import compare, hit_ratio, quantile
from carom.top_view import amount, duration, micro, rows_for, view

HOSTILE = [
    b"\x1b[31mred\x1b[0m",
    b"<script>alert('x')</script>",
    b"[/x] [bold]",
    b":smile:",
    b"\"quoted\" 'twice'",
    b"\xff\xfe\x80",
    "ключ".encode(),
    b"0x41",
    b"a\nb\tc\x00",
    b"k" * 256,
]


def status(**changes: Any) -> dict[str, Any]:
    """A status as the daemon gives it, so far as it matters here."""
    verdicts = {verdict.name.lower(): 0 for verdict in Verdict}
    return {
        "started_seconds": 1000.0,
        "uptime_seconds": 50.0,
        "lease_age_seconds": 0.1,
        "cpu_seconds": 0.0,
        "ready": {"pid": 7},
        "packets": outcomes({}),
        "verdicts": verdicts,
        "hooks": {"xdp": verdicts, "tc": verdicts},
        "cache": {"entries": 0, "capacity": 100, "memory_bytes": 2**20, "fills": 0},
        "programs": {"xdp": {"runs": 0, "run_seconds": 0.0}},
        "services": [],
        "interfaces": [],
        **changes,
    }


def service(**changes: Any) -> dict[str, Any]:
    return {
        "port": 53,
        "address": "::",
        "packets": outcomes({}),
        "verdicts": {},
        "cache": {"entries": 5, "fills": 0},
        "reply_times": {"one_in": 32, "counts": [0] * TIMES, "sum_seconds": 0.0},
        "silence": None,
        **changes,
    }


def interface(**changes: Any) -> dict[str, Any]:
    said = {"name": "eth0", "driver": "veth", "hook": "xdp", "mode": "native", "unknown": ""}
    return {**said, "received": 0, "sent": 0, "lost": 0, **changes}


def test_by_the_second() -> None:
    seen = {Verdict.HIT: 30, Verdict.MISS: 10, Verdict.PASS_TO_TC: 5, Verdict.FAULT: 2}
    names = {verdict.name.lower(): seen.get(verdict, 0) for verdict in Verdict}
    now = status(
        packets=outcomes(seen),
        verdicts=names,
        hooks={"xdp": names, "tc": {}},
        cpu_seconds=0.5,
        cache={"entries": 9, "capacity": 100, "memory_bytes": 1, "fills": 8},
        programs={"xdp": {"runs": 40, "run_seconds": 8e-6}},
    )
    look = compare(status(), now, 2.0)
    assert look["packets"] == {"answered": 15, "missed": 5, "passed": 0, "dropped": 1}
    assert look["verdicts"] == {
        "xdp": {"hit": 15, "miss": 5, "pass_to_tc": 2.5, "fault": 1},
        "tc": {},
    }
    assert (look["hit_ratio"], look["cpu"], look["cache"]["fills"]) == (0.75, 0.25, 4)
    assert look["programs"] == {
        "xdp": {"runs": 20, "nanoseconds": pytest.approx(200), "cpu": pytest.approx(4e-6)}
    }


@given(st.dictionaries(st.sampled_from(Verdict), st.integers(0, 2**40)))
def test_all_that_came_is_something(verdicts: dict[Verdict, int]) -> None:
    """Once each: what XDP left to TC is counted there."""
    came = sum(count for verdict, count in verdicts.items() if verdict != Verdict.PASS_TO_TC)
    assert sum(outcomes(verdicts).values()) == came


def test_programs_that_nobody_times_are_not_shown() -> None:
    assert compare(status(), status(), 1.0)["programs"] == {}


def test_another_carom_began_at_nothing() -> None:
    """Its rates are those since its start, not the difference to another one's counters."""
    before = status(cpu_seconds=90.0, packets=outcomes({Verdict.HIT: 10**9}))
    now = status(
        started_seconds=2000.0,
        uptime_seconds=4.0,
        packets=outcomes({Verdict.HIT: 8}),
        cpu_seconds=1.0,
    )
    look = compare(before, now, 1.0)
    assert (look["packets"]["answered"], look["cpu"], look["seconds"]) == (2, 0.25, 4)


def test_services_and_interfaces() -> None:
    counts = [0] * TIMES
    counts[3], counts[10] = 98, 2
    before = status(services=[service()], interfaces=[interface(sent=10, lost=1)])
    now = status(
        services=[
            service(
                packets=outcomes({Verdict.HIT: 3, Verdict.MISS_VOID: 1}),
                verdicts={"hit": 3, "miss_void": 1},
                cache={"entries": 5, "fills": None},
                reply_times={"one_in": 32, "counts": counts, "sum_seconds": 0.5},
            )
        ],
        interfaces=[interface(received=40, sent=30, lost=5)],
    )
    look = compare(before, now, 2.0)
    (one,) = look["services"]
    assert (one["hit_ratio"], one["fills"], one["packets"]["answered"]) == (0.75, None, 1.5)
    assert (one["reply_times"]["p50_seconds"], one["reply_times"]["p99_seconds"]) == (8e-6, 1024e-6)
    (port,) = look["interfaces"]
    assert [port[name] for name in ("received", "sent", "lost")] == [20, 10, 2]
    assert port["lost_so_far"] == 5


def test_what_is_not_known_is_not_zero() -> None:
    unknown = interface(received=None, sent=None, lost=None, unknown="generic")
    (port,) = compare(status(), status(interfaces=[unknown]), 1.0)["interfaces"]
    assert [port[name] for name in ("received", "sent", "lost", "lost_so_far")] == [None] * 4
    assert hit_ratio({"pass_mac": 5.0}) is None
    assert compare(status(), status(packets=None, cache=None), 1.0)["packets"] == {}


@given(st.lists(st.integers(0, 50), min_size=1, max_size=TIMES), st.floats(0.01, 1))
def test_quantile(counts: list[int], share: float) -> None:
    """That share of the times is less, and no smaller power of two has it."""
    found = quantile(counts, share)
    if not sum(counts):
        assert found is None
        return
    assert found
    bits = round(found * 1e6).bit_length() - 1
    assert sum(counts[: bits + 1]) >= share * sum(counts) > sum(counts[:bits])


@given(st.lists(st.integers(0, 50), max_size=6), st.integers(-5, 80))
def test_rows(wanted: list[int], room: int) -> None:
    given_rows = rows_for(wanted, room)
    assert all(got <= rows for got, rows in zip(given_rows, wanted, strict=True))
    assert sum(given_rows) == min(max(room, 0), sum(wanted))


def drawn(look: dict[str, Any], width: int, height: int) -> list[str]:
    console = Console(
        file=io.StringIO(), width=width, height=height, markup=False, emoji=False, color_system=None
    )
    console.print(view(look, height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


LONG_NAMES = {
    "name": "gauge_of_a_filter_whose_author_likes_long_names",
    "kind": "gauge",
    "keys": ["address_of_the_client", "first_letters_of_its_request"],
    "values": [f"a_number_of_the_{at}th_kind" for at in range(5)],
    "left_out": 0,
    "entries": [
        {
            "key": {"address": "2001:db8:1:2:3:4:5:6", "first": "k" * 64},
            "value": {name: 10**at for at, name in enumerate("abcde")},
        }
    ]
    * 40,
}


def large() -> dict[str, Any]:
    """A look with more of everything than a terminal has room for."""
    look = compare(
        status(),
        status(
            packets=outcomes(dict.fromkeys(Verdict, 10**12)),
            verdicts={verdict.name.lower(): 10**12 for verdict in Verdict},
            hooks={hook: {v.name.lower(): 10**12 for v in Verdict} for hook in ("xdp", "tc")},
            programs={f"edge_{at}": {"runs": 10**12, "run_seconds": 1e3} for at in range(8)},
            cache={"entries": 10**9, "capacity": 10**9, "memory_bytes": 10**12, "fills": 10**9},
            services=[service(port=at, silence={}) for at in range(100)],
            interfaces=[
                interface(name=f"interface-{at:05}", unknown="nobody knows why " * 9)
                for at in range(100)
            ],
            filter_maps=[LONG_NAMES],
        ),
        1.0,
    )
    look["keys"] = [
        {"port": 53, "key": key.hex(), "hits_per_second": 10.0**9} for key in HOSTILE * 10
    ]
    return look


@pytest.mark.parametrize("size", [(80, 24), (40, 12), (200, 70), (80, 3), (10, 24)])
def test_it_fits(size: tuple[int, int]) -> None:
    lines = drawn(large(), *size)
    assert len(lines) <= size[1]
    assert all(cell_len(line) <= size[0] for line in lines)


def test_all_kinds_are_there_at_80_by_24() -> None:
    text = "\n".join(drawn(large(), 80, 24))
    for head in ("carom 7", "packets a second", "hits ", "verdict", "service", "interface"):
        assert head in text
    for head in ("program", "of all", "more"):
        assert head in text


def test_a_map_with_long_names() -> None:
    """At 80 columns there is something of each number, of the key, and of each name."""
    look = compare(status(), status(filter_maps=[LONG_NAMES]), 1.0)
    lines = drawn(look, 80, 48)
    at = next(at for at, line in enumerate(lines) if "gauge_of" in line)
    assert lines[at].count("…") == 6 and lines[at].count("a_number_o") == 5
    assert lines[at + 1].split()[:5] == ["1", "10", "100", "1,000", "10,000"]
    assert "2001:db8" in lines[at + 1]
    assert all(cell_len(line) <= 80 for line in lines)
    wide = "\n".join(drawn(look, 400, 48))
    assert "gauge_of_a_filter_whose_author_likes_long_names, by address_of_the_client, " in wide


def test_no_traffic_in_a_filter() -> None:
    """Counters that stand still are left out, gauges are not; one without a key is a number."""
    said = {"keys": [], "values": ["value"], "left_out": 0}
    maps = [
        {**said, "name": f"{kind}_x", "kind": kind, "entries": [{"key": {}, "value": {"value": 7}}]}
        for kind in ("counter", "gauge")
    ]
    text = "\n".join(
        drawn(compare(status(filter_maps=maps), status(filter_maps=maps), 1.0), 80, 24)
    )
    assert "counter_x" not in text
    assert "value  gauge_x\n    7" in text


def test_hostile_keys_are_harmless() -> None:
    """Nothing of them acts on a terminal, and none reads like another."""
    look = compare(status(), status(), 1.0)
    look["keys"] = [{"port": 53, "key": key.hex(), "hits_per_second": 1.0} for key in HOSTILE]
    text = "\n".join(drawn(look, 600, 100))
    assert text.isascii() and all(one == "\n" or one.isprintable() for one in text)
    for key in (b"\x1b[31mred\x1b[0m", b"\xff\xfe\x80", b"0x41", b"a\nb\tc\x00"):
        assert f"0x{key.hex()}" in text
    for key in (b"<script>alert('x')</script>", b"[/x] [bold]", b":smile:", b"k" * 256):
        assert key.decode() in text


def test_none_answers() -> None:
    (line,) = drawn({"up": False, "why": "[/no] carom"}, 80, 24)
    assert line == "looking again: [/no] carom"


def test_numbers_in_words() -> None:
    assert [amount(one) for one in (None, 0, 2, 2.25, 1234.5)] == ["-", "0", "2", "2.2", "1,234"]
    assert [micro(one) for one in (None, 1e-6, 512e-6, 1.024e-3, 8.388608)] == [
        *("-", "1 us", "512 us", "1.02 ms", "8.39 s")
    ]
    assert [duration(one) for one in (5, 65, 3700, 90_000)] == [
        *("5 s", "1 min 5 s", "1 h 1 min", "1 d 1 h")
    ]
