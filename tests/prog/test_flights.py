# SPDX-License-Identifier: Apache-2.0
"""cgroup/flights.h call by call beside its model (tests/reference), and on two CPUs at once."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from carom.kernel.abi import FLIGHT_SECONDS, FLIGHTS, SERVICES_MAX, SLOTS
from prog.calls import Calls
from prog.race import CHUNK, PATIENCE, Race, Tallies, Tally, found
from reference.flights import UNKNOWN, Answer, Edge, Flight

CELLS_OF_FLIGHTS = (0, 5)
NAMES = (0, 1, 63, 64, 65, 2**18 - 1)
"""That tell flights of a cell apart; some have one bit."""

ASKS = (0, 1, 31, UNKNOWN)
SERVICES = (0, 1)
CELLS = tuple(range(100, 111))
WRITE, QUIET, ANSWERS = 2, 4, 16
"""Of `enum intent`, protocols/protocol.h."""

STEPS, LONG_STEPS = 20_000, 500_000

ANSWERED = [one for one in Answer if one is not Answer.READ]


class Call(NamedTuple):
    """`struct call` of flights.c."""

    flight: int = 0
    service: int = 0
    cell: int = 0
    word: int = 0
    found: int = 0
    asked: int = 0
    token: int = 0
    since: int = 0


PROGRAMS = (
    *("read_asked", "read_answered", "write_asked", "unread_asked", "query_asked", "answered"),
    *("doubt_asked", "uncounted_asked", "cut", "is_held", "hidden_asked"),
)


class Programs(Calls):
    """flights.c."""

    def __init__(self) -> None:
        many = SLOTS + SERVICES_MAX
        cells = {"clock": 1, "voids": 1, "versions": many, "holds": many}
        super().__init__("flights.c", struct.Struct("=IIIIIIQQ"), PROGRAMS, cells)
        self.clock, self.voids, self.versions, self.holds = self.cells.values()

    def call(self, name: str, call: Call) -> Call:
        """Run one."""
        return Call._make(self.run(name, *call))


@pytest.fixture
def programs() -> Iterator[Programs]:
    with Programs() as loaded:
        yield loaded


class Both:
    """The programs and the model, which are asked the same."""

    def __init__(self, programs: Programs, seed: int):
        """Of programs that nobody has called."""
        self.draw = random.Random(seed)
        self.programs = programs
        self.model = Edge()
        self.now = 10 * FLIGHT_SECONDS
        self.steps = self.known = self.asked = 0

    def _name(self) -> int:
        """Mostly one, so that it has several requests on their way."""
        return self.draw.choice(NAMES) if self.draw.random() < 0.2 else 0

    def _at(self, now: int, call: Call) -> Call:
        self.programs.clock[0] = now
        return call

    def step(self) -> None:
        """Any call, at the moment that it is or one tick before; then all has to be the same."""
        draw, model = self.draw, self.model
        self.now += draw.choice((0, 0, 0, 1, 1, 3, 10, 29, 31)) if draw.random() < 0.6 else 0
        now = self.now - draw.choice((0, 0, 0, 1))
        flight = draw.choice(CELLS_OF_FLIGHTS) + FLIGHTS * self._name()
        service = draw.choice(SERVICES) if flight % FLIGHTS else 0
        cell, several = draw.choice(CELLS), draw.random() < 0.05
        chance = draw.random()
        self.steps += 1
        if self.steps // 100 % 3 == 1:  # many writes, and few replies
            chance = 0.55 + chance / 3 if chance < 0.9 else chance
        if chance < 0.28:
            asked = draw.choice(ASKS)
            self.programs.call("read_asked", self._at(now, Call(flight, word=several, asked=asked)))
            model.leave_read(flight, several, model.voids, now, asked)
            self.asked += 1
        elif chance < 0.3:
            self.programs.call("hidden_asked", self._at(now, Call(flight)))
            model.leave_read(flight, True, model.voids, now, hidden=True)
        elif chance < 0.6:
            call = self.programs.call("read_answered", self._at(now, Call(flight)))
            taken = model.take_read(flight, now)
            found = Flight(call.token, call.since, call.asked) if call.found else None
            assert found == taken
            self.known += found is not None and found.asked != UNKNOWN
        elif chance < 0.8:
            told, quiet = draw.random() < 0.1, draw.random() < 0.1
            word = WRITE | QUIET * quiet | ANSWERS * told
            asked = Call(flight, cell=cell, word=word)
            self.programs.call("write_asked", self._at(now, asked))
            model.void_write(flight, cell, now, told=told, quiet=quiet)
        elif chance < 0.92:
            answer = draw.choice((*ANSWERED, Answer.WRITTEN, Answer.WRITTEN))
            asked = Call(flight, service, word=answer)
            call = self.programs.call("answered", self._at(now, asked))
            assert bool(call.found) == model.acknowledge(flight, service, answer, now)
        elif chance < 0.95:
            self.programs.call("query_asked", self._at(now, Call(flight)))
            model.remember_query(flight, now)
        elif chance < 0.98:
            name = draw.choice(("unread", "doubt", "doubt"))
            self.programs.call(f"{name}_asked", self._at(now, Call(flight)))
            if name == "doubt":
                model.remember_doubt(flight, model.voids, now)
            else:
                model.remember_unread(flight, now)
        elif chance < 0.984:
            self.programs.call("uncounted_asked", self._at(now, Call(flight)))
            model.remember_uncounted(flight, now)
        elif chance < 0.992:
            self.programs.call("cut", self._at(now, Call(cell=cell)))
            model.cut(cell, now)
        else:
            since = now - draw.choice((-1, 0, 1, FLIGHT_SECONDS))
            asked = Call(cell=cell, since=since)
            call = self.programs.call("is_held", self._at(now, asked))
            assert bool(call.found) == model.held(cell, since)
        self.compare()

    def compare(self) -> None:
        """Voids, versions and holds."""
        assert self.programs.voids[0] == self.model.voids
        for cell in (*CELLS, *(SLOTS + service for service in SERVICES)):
            assert self.programs.versions[cell] == self.model.versions[cell]
            assert self.programs.holds[cell] == self.model.holds[cell]


def test_the_programs_do_what_the_model_does(programs: Programs, long_form: bool) -> None:
    both = Both(programs, seed=1)
    for step in range(LONG_STEPS if long_form else STEPS):
        try:
            both.step()
        except AssertionError as error:
            raise AssertionError(f"step {step}: {error}") from error
    assert both.known > both.asked / 10


@pytest.fixture
def race(tmp_path: Path) -> Iterator[Callable[..., Race]]:
    """Race(changes) of flights.c, closed with the test."""
    with ExitStack() as stack:

        def load(changes: Mapping[str, str] | None = None) -> Race:
            race = Race(tmp_path, changes or {}, {}, "flights.c", test_clock=True)
            return stack.enter_context(race)

        yield load


NO_OLDEST = {"if (!cell->count) {": "if (true) {"}
NO_COUNT = {"cell->count -= 1;": "cell->count = 0;"}
NO_SECOND_VOID = {"\t\t\tvoid_acknowledged(write.cells[n]);\n": "\t\t\t;\n"}
NO_LOCK = {"\tlock_value(&cell->lock);\n": "", "\tunlock_value(&cell->lock);\n": ""}


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a race needs two CPUs to run on")
class TestRace:
    """Both CPUs read and write two keys, by ids that they share."""

    def test_nothing_is_stale(self, race: Callable[..., Race], long_form: bool) -> None:
        rounds = 10_000_000 if long_form else 1_000_000
        tallies = self.run(race(), rounds)
        print(", ".join(f"{n:,} {tally.name.lower()}" for tally, n in tallies.items()))
        assert tallies[Tally.STALE] == 0
        assert miscounted(tallies) == 0
        assert tallies[Tally.HITS] >= 0.005 * rounds
        assert tallies[Tally.WRITES] >= 0.05 * rounds

    @pytest.mark.parametrize(
        "changes",
        [
            pytest.param(NO_OLDEST, id="oldest"),
            pytest.param(NO_COUNT, id="count"),
            pytest.param(NO_SECOND_VOID, id="second-void"),
        ],
    )
    def test_without_a_rule_something_is(
        self, race: Callable[..., Race], changes: Mapping[str, str]
    ) -> None:
        tallies = self.run(race(changes), PATIENCE, found(Tally.STALE))
        assert tallies[Tally.STALE]

    def test_without_the_lock_a_request_is_not_counted(self, race: Callable[..., Race]) -> None:
        assert miscounted(self.run(race(NO_LOCK), 1_000_000))

    @staticmethod
    def run(race: Race, rounds: int, until: Callable[[Tallies], bool] | None = None) -> Tallies:
        race.run("play_first", "play_second", rounds=rounds, until=until)
        race.run("drain", "drain", rounds=CHUNK)
        race.once("count_left")
        return race.tallies()


def miscounted(tallies: Tallies) -> int:
    """Replies that found nothing though they were asked for, and requests that are left over."""
    return tallies[Tally.DENIED] + tallies[Tally.LEFT]
