# SPDX-License-Identifier: Apache-2.0
"""Two CPUs at full speed: nothing stale and nothing torn, and the same race finds what is broken.

PROG_TEST_RUN cannot stop inside a program. So a writer and a learner, each with readers of its
own, run on a CPU each (race.c), and what is claimed is counted; then one part of the argument in
docs/consistency.md is taken out, and the count has to rise.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from prog.race import PATIENCE, Race, Tallies, Tally, found

pytestmark = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="a race needs two CPUs to run on"
)

SHORT, LONG = 1_000_000, 10_000_000
"""Rounds on each CPU, in the ordinary suite and in `./run race`."""

CACHES: Mapping[str, Mapping[str, str | int]] = {
    "fcfs": {"CACHE_TYPE": '"hash"', "CAPACITY": 64},
    "lru": {"CACHE_TYPE": '"lru_hash"', "CAPACITY": 1024},
    "evicting": {"CACHE_TYPE": '"lru_hash"', "CAPACITY": 8},
}
"""Kinds of maps; the last has less room than there are keys."""

Changes = Mapping[str, str]

# What the programs do, taken out of their text.

NO_VERSION = {"meta->token < version(meta->slot) ||": ""}
NO_GENERATION = {" ||\n\t    meta->token < version(SLOTS + service->id)": ""}
NO_LOCK = {
    "lock_value(&gate->lock);\n\tnumber = *count + 1;": "number = *count + 1;\n\tlinger();",
    "*(volatile u64 *)last = number;\n\tunlock_value(&gate->lock);": (
        "*(volatile u64 *)last = number;"
    ),
}
NO_KEY = {"!same_key(": "false && !same_key("}
NO_STAMP_OF_THE_REPLY = {
    "head == tail && again == tail && scratch->reply_head == tail &&\n"
    "\t       tail == scratch->meta.head": "head == tail && again == tail &&\n"
    "\t       scratch->reply_head == tail"
}
NO_STAMPS = {
    "*(volatile u64 *)&entry->meta.head != tail || copy->meta.head != tail ||": "",
    "copy->tail != tail ||": "",
}
NO_TAIL = {
    "tail = *(volatile u64 *)&entry->tail;": "tail = *(volatile u64 *)&entry->meta.head;",
    "copy->tail != tail ||": "",
}
NO_SECOND_LOOK = {
    "short_entries.lookup((struct short_key *)&scratch->key) != entry ||": "",
    "long_entries.lookup(&scratch->key) != entry ||": "",
    " ||\n\t\t    medium_replies.lookup(&scratch->meta.body) != medium": "",
    " ||\n\t\t    long_replies.lookup(&scratch->meta.body) != longer": "",
}
NO_LOOK_AT_THE_REPLY_BUT_ITS_FIRST_STAMP = {
    **NO_SECOND_LOOK,
    "head == tail && again == tail && scratch->reply_head == tail &&\n"
    "\t       tail == scratch->meta.head": "scratch->reply_head == scratch->meta.head",
}

SLOW_READER = {
    f"{name}.lookup({key});\n\tu64 tail;\n\n\tif (!entry)\n\t\treturn MISS;": (
        f"{name}.lookup({key});\n\tu64 tail;\n\n\tif (!entry)\n\t\treturn MISS;\n\tlinger();"
    )
    for name, key in (
        ("short_entries", "(struct short_key *)&scratch->key"),
        ("long_entries", "&scratch->key"),
    )
} | {
    f"if (!{name})\n\t\t\treturn false;": f"if (!{name})\n\t\t\treturn false;\n\t\tlinger();"
    for name in ("medium", "longer")
}
"""A reader that another CPU overtakes between its look-up and its copy: right, but more often."""


@pytest.fixture
def race(tmp_path: Path) -> Iterator[Callable[..., Race]]:
    """Race(changes, defines), closed with the test."""
    with ExitStack() as stack:

        def load(changes: Changes | None = None, **defines: str | int) -> Race:
            return stack.enter_context(Race(tmp_path, changes or {}, defines))

        yield load


@pytest.fixture
def rounds(long_form: bool) -> int:
    """How many on each CPU."""
    return LONG if long_form else SHORT


def show(tallies: Tallies) -> None:
    """For whoever runs the long form with -rP, or reads of a failure."""
    print(", ".join(f"{n:,} {tally.name.lower()}" for tally, n in tallies.items()))


class TestStale:
    """A write is a change of the state, then its version, then the acknowledgement."""

    @pytest.mark.parametrize("cache", CACHES)
    def test_nothing(self, race: Callable[..., Race], rounds: int, cache: str) -> None:
        tallies = race(**CACHES[cache]).run("write_and_ask", "fill_and_ask", rounds=rounds)
        show(tallies)
        assert (tallies[Tally.STALE], tallies[Tally.TORN], tallies[Tally.OTHER]) == (0, 0, 0)
        assert tallies[Tally.FILLS] >= 0.9 * rounds
        assert tallies[Tally.HITS] >= 0.1 * rounds
        assert tallies[Tally.VOID] >= 0.01 * rounds
        assert tallies[Tally.WRITES] >= 0.05 * rounds
        assert tallies[Tally.FLUSHES] >= 0.0005 * rounds

    @pytest.mark.parametrize(
        "define",
        [
            "DECIDE_AT_FILL",
            "TOKEN_AFTER_STATE",
            "VOID_BEFORE_CHANGE",
            "ACKNOWLEDGE_BEFORE_VOID",
            "NEVER_VOID",
        ],
    )
    def test_another_order_is_found_out(self, race: Callable[..., Race], define: str) -> None:
        broken = race(**CACHES["lru"], **{define: 1})
        until = found(Tally.STALE)
        tallies = broken.run("write_and_ask", "fill_and_ask", rounds=PATIENCE, until=until)
        show(tallies)
        assert tallies[Tally.STALE]

    @pytest.mark.parametrize(
        "changes",
        [pytest.param(NO_VERSION, id="version"), pytest.param(NO_GENERATION, id="generation")],
    )
    def test_a_reader_that_does_not_compare_is_found_out(
        self, race: Callable[..., Race], changes: Changes
    ) -> None:
        broken = race(changes, **CACHES["lru"])
        until = found(Tally.STALE)
        tallies = broken.run("write_and_ask", "fill_and_ask", rounds=PATIENCE, until=until)
        show(tallies)
        assert tallies[Tally.STALE]


class TestVoids:
    """Two CPUs void the same cells: a token from before a void is no good behind it."""

    def test_nothing(self, race: Callable[..., Race], rounds: int) -> None:
        tallies = self.run(race(), rounds)
        show(tallies)
        assert tallies[Tally.WRITES] >= 2 * rounds
        assert (tallies[Tally.STALE], tallies[Tally.OTHER]) == (0, 0)

    def test_two_at_once_are_found_out(self, race: Callable[..., Race]) -> None:
        tallies = self.run(race(NO_LOCK), PATIENCE, found(Tally.STALE))
        show(tallies)
        assert tallies[Tally.STALE]

    @staticmethod
    def run(race: Race, rounds: int, until: Callable[[Tallies], bool] | None = None) -> Tallies:
        return race.run("void_and_compare", "void_and_compare", rounds=rounds, until=until)


class TestTorn:
    """Fills as fast as a map takes them, of few keys, so that elements are reused while read."""

    @pytest.mark.parametrize(
        "reader",
        [
            pytest.param({}, id="as-it-is", marks=pytest.mark.slow),
            pytest.param(SLOW_READER, id="slowed"),
        ],
    )
    @pytest.mark.parametrize(
        "reply",
        [
            pytest.param(0, id="in-its-entry"),
            pytest.param(1, id="medium", marks=pytest.mark.slow),
            pytest.param(2, id="long"),
        ],
    )
    @pytest.mark.parametrize("cache", ["fcfs", "lru"])
    def test_nothing(
        self,
        race: Callable[..., Race],
        long_form: bool,
        cache: str,
        reply: int,
        reader: Changes,
    ) -> None:
        rounds = 1_000_000 if long_form else 250_000  # each of them four fills
        tallies = self.run(race(reader, **self.few_keys(cache, reply)), rounds)
        show(tallies)
        assert (tallies[Tally.TORN], tallies[Tally.OTHER]) == (0, 0)
        assert tallies[Tally.FILLS] >= 3.6 * rounds
        assert tallies[Tally.HITS] >= 0.1 * rounds
        assert tallies[Tally.REPLACED]

    @pytest.mark.parametrize(
        ("changes", "reply"),
        [
            pytest.param({**NO_SECOND_LOOK, **NO_KEY}, 0, id="key"),
            pytest.param(NO_STAMP_OF_THE_REPLY, 2, id="stamp-of-the-reply"),
            pytest.param({**NO_SECOND_LOOK, **NO_STAMPS}, 0, id="entry"),
            pytest.param({**NO_SECOND_LOOK, **NO_TAIL}, 0, id="head-alone"),
            pytest.param(NO_LOOK_AT_THE_REPLY_BUT_ITS_FIRST_STAMP, 2, id="reply"),
        ],
    )
    def test_a_reader_that_does_not_look_is_found_out(
        self, race: Callable[..., Race], changes: Changes, reply: int
    ) -> None:
        broken = race({**SLOW_READER, **changes}, **self.few_keys("lru", reply))
        tallies = self.run(broken, PATIENCE, found(Tally.TORN))
        show(tallies)
        assert tallies[Tally.TORN]

    @staticmethod
    def few_keys(cache: str, reply: int) -> dict[str, str | int]:
        return {**CACHES[cache], "KEYS": 4, "REPLY_CLASS(k)": reply}

    @staticmethod
    def run(race: Race, rounds: int, until: Callable[[Tallies], bool] | None = None) -> Tallies:
        race.once("prepare")
        race.once("refill")
        return race.run("only_ask", "refill", rounds=rounds, until=until)
