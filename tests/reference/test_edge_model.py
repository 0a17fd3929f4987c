# SPDX-License-Identifier: Apache-2.0
"""docs/consistency.md by a model: with all its rules nothing is stale, without one something is.

The model does what cgroup/flights.h does (tests/prog/test_flights.py holds the two together). Where
what the page takes for granted is taken away, something is stale too: so it has to be named there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import pytest

from carom.kernel.abi import FLIGHTS
from reference.edge_world import DEFAULT, Kind, Run, World
from reference.flights import Answer, Edge, Rule

STEPS = 400
SHORT, LONG = 150, 10_000
"""Runs of each world, in the ordinary suite and in `./run race`."""

PATIENCE = 20_000
"""Runs after which a world with a rule taken away counts as not found out."""

KNOWN = (299, 2169, 5724, 7517)
"""Of these runs, those that found the slowest out when last looked for: they are tried first."""

LOOKED_AT = (*KNOWN, *range(PATIENCE))
"""The runs that look for what a world gets wrong, as long as it takes."""


def world(*, ids: Iterable[int] = (1, 2, 30), **changes: object) -> World:
    """Gets and stores; what else `changes` of the default's fields say."""
    mix = {Kind.GET: (60,), Kind.SET: (10, 25)}
    return DEFAULT._replace(mix=mix, ids=tuple(ids), restarts=(0,))._replace(**changes)  # type: ignore[arg-type]


def of(*kinds: Kind, weight: float = 20, sets: float = 10) -> Mapping[Kind, tuple[float, ...]]:
    """Weights, with some kinds in plenty."""
    return {Kind.GET: (60,), Kind.SET: (sets,)} | dict.fromkeys(kinds, (weight,))


ONE_ID = world(mix=of(sets=25), ids=(1,), flights=(1,), loss=(0,), slow=(0.1, 0.3))
CROWDED = world(mix=of(sets=40), ids=(30,), flights=(1,), ways=(1, 2))
SEVERAL = world(mix=of(Kind.MULTI, Kind.QUERY), ids=(1, 2), flights=(1, 2, 64))
CUT = world(mix=of(Kind.CUT, weight=4), loss=(0,), ways=(8,), flights=(64,))
UNKNOWN = world(
    mix=of(Kind.UNKNOWN, Kind.GARBAGE, Kind.REFUSED, sets=15), ids=(1, 2), flights=(1, 2)
)
QUERIES = world(mix=of(Kind.UNKNOWN, Kind.QUERY), ids=(1,), flights=(1,), loss=(0.2,))
ERRORS = world(mix=of(Kind.UNKNOWN, Kind.QUIET), ids=(1,), flights=(1,), quiet_errors=0.5)
STRAYS = world(mix=of(Kind.GARBAGE, Kind.QUERY, sets=40), ids=(1,), flights=(1,))
REFUSALS = world(
    mix=of(Kind.QUIET, weight=8, sets=40),
    ids=(1,),
    flights=(1,),
    loss=(0,),
    slow=(0.2, 0.5),
    quiet_errors=1,
)
PARTS = world(
    mix={Kind.GET: (10,)} | dict.fromkeys((Kind.SET, Kind.UNKNOWN, Kind.LISTING), (5,)),
    ids=(2,),
    flights=(4,),
    loss=(0,),
    slow=(0.3,),
)
UNTOLD = world(mix=of(Kind.QUIET, Kind.TOLD, Kind.FLUSH, weight=8))
RESTARTS = world(restarts=(0.02,))
LATE = world(mix=of(sets=25), flights=(64,), ids=(30,))
ASKS = world(
    mix=of(Kind.MULTI, weight=3, sets=1), ids=(1, 3, 30), flights=(1, 2), asks=(2,), slow=(0.2, 0.5)
)

UNSEEN = world(mix=of(sets=25), ids=(1_000_000,), flights=(1, 4), hidden=0.3)
"""Clients that use no id twice."""

WORLDS = {
    "default": DEFAULT,
    "one-id": ONE_ID,
    "crowded": CROWDED,
    "several": SEVERAL,
    "cut": CUT,
    "unknown": UNKNOWN,
    "queries": QUERIES,
    "errors": ERRORS,
    "strays": STRAYS,
    "refusals": REFUSALS,
    "parts": PARTS,
    "untold": UNTOLD,
    "restarts": RESTARTS,
    "late": LATE,
    "asks": ASKS,
    "unseen": UNSEEN,
}


def first_stale(world: World, runs: Iterable[int], without: Collection[Rule] = ()) -> int | None:
    """The first of some runs in which a hit is stale."""
    return next((seed for seed in runs if Run(seed, world, without).go(STEPS)), None)


@pytest.mark.parametrize("name", WORLDS)
def test_nothing_is_stale(name: str, long_form: bool) -> None:
    runs = LONG if long_form else SHORT
    hits = fills = 0
    for seed in range(runs):
        run = Run(seed, WORLDS[name])
        assert run.go(STEPS) == 0, f"run {seed}"
        assert run.wrong == 0, f"run {seed}"
        hits += run.hits
        fills += run.fills
    print(f"{runs:,} runs, {hits:,} hits, {fills:,} fills")
    assert hits >= 20 * runs
    assert fills >= runs


def first_wrong(world: World, runs: Iterable[int], without: Collection[Rule] = ()) -> int | None:
    """The first of some runs in which a reply is taken for one to who asked otherwise."""
    for seed in runs:
        run = Run(seed, world, without)
        run.go(STEPS)
        if run.wrong:
            return seed
    return None


@pytest.mark.parametrize("rule", [Rule.HOLDER, Rule.DIFFERENT, Rule.OTHERS, Rule.LATER_OTHERS])
def test_without_a_rule_a_reply_is_taken_for_anothers(rule: Rule) -> None:
    assert first_wrong(ASKS, LOOKED_AT, [rule]) is not None


def test_who_asked_what_is_known_mostly() -> None:
    """Where few share a cell: or the rules would be of no use."""
    runs = [Run(seed, ASKS._replace(flights=(64,), ids=(30,), loss=(0.05,))) for seed in range(50)]
    for run in runs:
        run.go(STEPS)
    assert sum(run.known for run in runs) > 0.7 * sum(run.fills for run in runs) > 0


@pytest.mark.parametrize(
    ("world", "rules"),
    [
        pytest.param(ONE_ID, [Rule.OLDEST], id="oldest"),
        pytest.param(ONE_ID, [Rule.WINDOWS], id="windows"),
        pytest.param(ONE_ID, [Rule.SECOND_COUNT], id="second-count"),
        pytest.param(ONE_ID, [Rule.SIGNED], id="signed"),
        pytest.param(SEVERAL, [Rule.SEVERAL], id="several"),
        pytest.param(DEFAULT, [Rule.TOKEN_BEFORE], id="token-before"),
        pytest.param(DEFAULT, [Rule.SECOND_VOID], id="second-void"),
        pytest.param(CROWDED, [Rule.FALLEN], id="fallen"),
        pytest.param(LATE, [Rule.UNEXPLAINED], id="unexplained"),
        pytest.param(UNSEEN, [Rule.OWN], id="own"),
        pytest.param(UNKNOWN, [Rule.UNREAD], id="unread"),
        pytest.param(ERRORS, [Rule.NO_OTHER], id="no-other"),
        pytest.param(REFUSALS, [Rule.COUNTED], id="counted"),
        pytest.param(PARTS, [Rule.PARTS], id="parts"),
        pytest.param(CUT, [Rule.CUTS], id="cuts"),
        pytest.param(CUT, [Rule.CUTS, Rule.UNEXPLAINED], id="cuts-unexplained"),
        pytest.param(UNTOLD, [Rule.HOLDS], id="holds"),
        pytest.param(RESTARTS, [Rule.RELEASE], id="release"),
        pytest.param(RESTARTS, [Rule.PROBATION], id="probation"),
    ],
)
def test_without_a_rule_something_is(world: World, rules: list[Rule]) -> None:
    assert first_stale(world, LOOKED_AT, rules) is not None


def test_a_cut_stores_acknowledgement_counts_nothing_down() -> None:
    """One run in ten thousand: who completes it has a slow write of his own, and then another."""
    assert first_stale(CUT, [9999], [Rule.CUT_COUNT]) == 9999
    assert first_stale(CUT, [9999]) is None


@pytest.mark.parametrize(
    "world",
    [
        pytest.param(ONE_ID._replace(late_reads=True), id="reads-answered-late"),
        pytest.param(world(hidden=0.3), id="hidden"),
    ],
)
def test_what_is_taken_for_granted_is_needed(world: World) -> None:
    assert first_stale(world, LOOKED_AT) is not None


class TestOrders:
    """Interleavings that chance seldom finds, step by step."""

    FLIGHT, SERVICE, FIRST, SECOND = 7, 0, 100, 200

    def write(self, edge: Edge, cell: int, now: int) -> None:
        edge.void_cell(cell, False, now)
        edge.remember_write(self.FLIGHT, cell, now)

    def answer(self, edge: Edge, answer: Answer, now: int) -> None:
        edge.acknowledge(self.FLIGHT, self.SERVICE, answer, now)

    @pytest.mark.parametrize("stray", [Answer.OTHER, Answer.PART, Answer.ERROR])
    def test_strays(self, stray: Answer) -> None:
        """The reply to no write counts none down: or the next write explains a former one's."""

        def first_is_void(*without: Rule) -> bool:
            edge = Edge(without=without)
            self.write(edge, self.FIRST, 1000)
            edge.leave_read(self.FLIGHT, False, edge.voids, 1000)
            self.answer(edge, stray, 1001)
            self.write(edge, self.SECOND, 1002)
            token = edge.voids
            self.answer(edge, Answer.WRITTEN, 1003)  # of the first
            return not edge.good(token, self.FIRST, self.SERVICE)

        assert first_is_void()
        assert not first_is_void(Rule.SURE_COUNT)

    def test_a_late_acknowledgement(self) -> None:
        """Its write is forgotten, so nothing explains it, unless another waits there."""

        def first_is_void(
            *without: Rule, another: bool = False, alone: bool = False, quiet: bool = False
        ) -> bool:
            edge = Edge(without=without)
            self.write(edge, self.FIRST, 1000)
            if quiet:  # a write that nobody acknowledges
                edge.remember_uncounted(self.FLIGHT, 1050)
            if not alone:
                self.write(edge, self.SECOND, 1100)
                if not another:
                    self.answer(edge, Answer.WRITTEN, 1101)
            token = edge.voids
            self.answer(edge, Answer.WRITTEN, 1102)  # of the first
            return not edge.good(token, self.FIRST, self.SERVICE)

        assert first_is_void()
        assert not first_is_void(Rule.UNEXPLAINED)
        assert first_is_void(alone=True)
        assert not first_is_void(Rule.LATE, alone=True)
        assert first_is_void(alone=True, quiet=True)
        assert not first_is_void(Rule.LATE, alone=True, quiet=True)
        assert not first_is_void(another=True), "docs/consistency.md need not exclude it any more"

    @pytest.mark.parametrize("answer", [Answer.WRITTEN, Answer.EITHER])
    @pytest.mark.parametrize("query", [False, True])
    def test_an_acknowledgement_of_what_nobody_saw(self, answer: Answer, query: bool) -> None:
        """What waits in its cell is another's: so nothing explains it, and that goes on waiting."""

        def is_void(*without: Rule) -> bool:
            edge = Edge(without=without)
            for _ in range(2):
                if query:
                    edge.remember_query(self.FLIGHT, 1000)
                else:
                    self.write(edge, self.FIRST, 1000)
            token = edge.voids
            edge.acknowledge(self.FLIGHT + FLIGHTS, self.SERVICE, answer, 1001)
            void = not edge.good(token, self.SECOND, self.SERVICE)
            for _ in range(2):
                token = edge.voids
                self.answer(edge, Answer.EITHER, 1002)
                assert edge.good(token, self.SECOND, self.SERVICE)
            return void

        assert is_void()
        if answer is Answer.EITHER or not query:
            assert not is_void(Rule.OWN)
