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

from carom.daemon.store import Policy
from prog.arena import check_lines, lost_ways
from prog.race import PATIENCE, Race, Tallies, Tally, found

pytestmark = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="a race needs two CPUs to run on"
)

SHORT, LONG = 500_000, 10_000_000
"""Rounds on each CPU, in the ordinary suite and in `./run race`."""

CACHES: Mapping[str, tuple[Policy, int]] = {
    "fcfs": ("fcfs", 64),
    "lru": ("lru", 1024),
    "evicting": ("lru", 8),
}
"""Policies and capacities; the last has less room than there are keys."""

KEYS = 12
"""As many as race.c's."""

Changes = Mapping[str, str]

# What the programs do, taken out of their text.

NO_VERSION = {"meta->token < version(meta->slot) ||": ""}
NO_GENERATION = {" ||\n\t\t       meta->token < version(SLOTS + service->id)": ""}
NO_COUNT = {"u32 voided = meta->token < take_token();": "u32 voided = 0;"}
NO_LOCK = {
    "lock_value(&gate->lock);\n\tnumber = *count + 1;": "number = *count + 1;\n\tlinger();",
    "*(volatile u64 *)last = number;\n\tunlock_value(&gate->lock);": (
        "*(volatile u64 *)last = number;"
    ),
}
NO_KEY = {"same = has_key(entry, &scratch->key);": "same = true;"}
NOT_WHETHER_IT_IS_WRITTEN = {"if (sequence & 1)\n\t\treturn MISS_TORN;": ""}
NO_SECOND_LOOK = {"if (sequence_of(entry) != sequence)\n\t\treturn MISS_TORN;": ""}
NO_LOCK_OF_THE_ENTRY = {
    "__sync_val_compare_and_swap(&entry->sequence, sequence, sequence + 1) != sequence)": (
        "(__sync_fetch_and_add(&entry->sequence, 1) == ~0ull))"
    ),
    "if (sequence & 1 ||\n": "if (\n",
}
NOT_MARKED = {
    "__sync_val_compare_and_swap(&entry->sequence, sequence, sequence + 1) != sequence)": (
        "sequence_of(entry) != sequence)"
    ),
    "if (__sync_fetch_and_add(&entry->sequence, 1) == ~0ull)": (
        "if (__sync_fetch_and_add(&entry->sequence, 2) == ~0ull)"
    ),
}
"""A writer that does not say that it writes, but only that it has written."""

SLOW_READER = {
    "\tfence();\n\tsame = has_key(entry": "\tfence();\n\tlinger();\n\tsame = has_key(entry"
}
"""A reader that another CPU overtakes before its copy: right, but more often."""

SLOW_REMOVER = {
    "\t*(volatile u16 *)&entry->key_length = 0;": (
        "\tlinger();\n\t*(volatile u16 *)&entry->key_length = 0;"
    ),
    "\tu64 sequence = entry ? sequence_of(entry) : 0;\n": (
        "\tu64 sequence;\n\n\tlinger();\n\tsequence = entry ? sequence_of(entry) : 0;\n"
    ),
}
"""Who removes an entry is overtaken before it has it, and while it has: right, but more often."""

SLOW_LINKER = {
    "\tgone = link_entry(placing, word);": "\tlinger();\n\tgone = link_entry(placing, word);",
}
"""Who has stored an entry is overtaken before it is found in the directory."""


@pytest.fixture
def race(tmp_path: Path) -> Iterator[Callable[..., Race]]:
    """Race(changes, defines), closed with the test."""
    with ExitStack() as stack:

        def load(
            changes: Changes | None = None, *, cache: str = "lru", **defines: str | int
        ) -> Race:
            made = Race(tmp_path, changes or {}, defines, cache=CACHES[cache])
            return stack.enter_context(made)

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
        tallies = race(cache=cache).run("write_and_ask", "fill_and_ask", rounds=rounds)
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
        broken = race(**{define: 1})
        until = found(Tally.STALE)
        tallies = broken.run("write_and_ask", "fill_and_ask", rounds=PATIENCE, until=until)
        show(tallies)
        assert tallies[Tally.STALE]

    @pytest.mark.parametrize(
        "changes",
        [
            pytest.param(NO_VERSION, id="version"),
            pytest.param(NO_GENERATION, id="generation"),
            pytest.param(NO_COUNT, id="count"),
        ],
    )
    def test_a_reader_that_does_not_compare_is_found_out(
        self, race: Callable[..., Race], changes: Changes
    ) -> None:
        broken = race(changes)
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
    """Fills as fast as the store takes them, of few keys, which are read meanwhile."""

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
            pytest.param(0, id="64"),
            pytest.param(1, id="512", marks=pytest.mark.slow),
            pytest.param(2, id="1472"),
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
        tallies = self.run(race(reader, cache=cache, **self.few_keys(reply)), rounds)
        show(tallies)
        assert (tallies[Tally.TORN], tallies[Tally.OTHER]) == (0, 0)
        assert tallies[Tally.FILLS] >= 3.6 * rounds
        assert tallies[Tally.HITS] >= 0.1 * rounds
        assert tallies[Tally.REPLACED]

    @pytest.mark.parametrize("cache", CACHES)
    def test_nothing_by_two_who_fill(
        self, race: Callable[..., Race], long_form: bool, cache: str
    ) -> None:
        """The same keys at the same time, in one place or another, evicted and not."""
        rounds = LONG if long_form else SHORT
        tallies = self.both_fill(race(cache=cache), rounds)
        show(tallies)
        assert (tallies[Tally.TORN], tallies[Tally.OTHER]) == (0, 0)
        assert tallies[Tally.FILLS] >= rounds
        assert tallies[Tally.HITS] >= 0.1 * rounds

    @pytest.mark.parametrize(
        ("changes", "reply"),
        [
            pytest.param(NO_SECOND_LOOK, 0, id="second-look"),
            pytest.param(NO_SECOND_LOOK, 2, id="second-look-1472"),
            pytest.param(NOT_WHETHER_IT_IS_WRITTEN, 2, id="whether-it-is-written"),
            pytest.param(NOT_MARKED, 2, id="marked"),
        ],
    )
    def test_who_does_not_look_is_found_out(
        self, race: Callable[..., Race], changes: Changes, reply: int
    ) -> None:
        broken = race({**SLOW_READER, **changes}, **self.few_keys(reply))
        tallies = self.run(broken, PATIENCE, found(Tally.TORN))
        show(tallies)
        assert tallies[Tally.TORN]

    @pytest.mark.parametrize(
        ("changes", "cache"),
        [
            pytest.param(NO_KEY, "evicting", id="key"),
            pytest.param(NO_LOCK_OF_THE_ENTRY, "lru", id="lock"),
        ],
    )
    def test_so_is_who_does_not_look_among_two_who_fill(
        self, race: Callable[..., Race], changes: Changes, cache: str
    ) -> None:
        broken = race({**SLOW_READER, **changes}, cache=cache)
        tallies = self.both_fill(broken, PATIENCE, found(Tally.TORN))
        show(tallies)
        assert tallies[Tally.TORN]

    @staticmethod
    def few_keys(reply: int) -> dict[str, str | int]:
        return {"KEYS": 4, "REPLY_KIND(k)": reply}

    @staticmethod
    def run(race: Race, rounds: int, until: Callable[[Tallies], bool] | None = None) -> Tallies:
        race.once("prepare")
        race.once("refill")
        return race.run("only_ask", "refill", rounds=rounds, until=until)

    @staticmethod
    def both_fill(
        race: Race, rounds: int, until: Callable[[Tallies], bool] | None = None
    ) -> Tallies:
        return race.run("fill_and_ask", "fill_and_ask", rounds=rounds, until=until)


class TestLines:
    """Two CPUs fill the same keys with replies of any length, where there is little room."""

    @pytest.mark.parametrize(
        "changes",
        [
            pytest.param({}, id="as-it-is", marks=pytest.mark.slow),
            pytest.param(SLOW_REMOVER, id="slow-remover"),
            pytest.param(SLOW_LINKER, id="slow-linker"),
        ],
    )
    @pytest.mark.parametrize("cache", ["fcfs", "evicting"])
    def test_none_is_lost(
        self, race: Callable[..., Race], rounds: int, cache: str, changes: Changes
    ) -> None:
        """Nor counted twice, nor any way of the directory."""
        run = race(changes, cache=cache)
        tallies = run.run("fill_any_length", "fill_any_length", rounds=rounds)
        show(tallies)
        assert tallies[Tally.FILLS] >= 1.8 * rounds
        assert len(run.store) <= 2 * KEYS, "keys with several entries leave others no room"
        check_lines(run.store)
        assert lost_ways(run.store) == 0
