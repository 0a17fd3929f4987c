# SPDX-License-Identifier: Apache-2.0
"""Tokens, holds and flights as include/token.h and cgroup/flights.h have them, in Python.

Each rule of theirs can be taken away, so that its absence is found out. Time is in ticks. A program
reads the clock, and the count of voids, before it comes to a flight's lock; so callers say what it
read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum, IntEnum, auto
from typing import NamedTuple

from carom.kernel.abi import (
    CUT_SECONDS,
    FLIGHT_SECONDS,
    FLIGHT_WAITERS,
    FLIGHT_WRITES,
    FLIGHTS,
    HOLD_MS,
    SLOTS,
)

_U64 = 2**64

UNKNOWN = 0x100
"""ASKED_UNKNOWN of protocols/protocol.h: beside all that a request may ask besides."""

BITS = 64
"""That flights of one cell are told apart by, where they are others than its holder."""


class Answer(IntEnum):
    """What a reply says of its request: `enum answer` of protocols/protocol.h."""

    READ = 0
    WRITTEN = 1
    REFUSED = 2
    OTHER = 3
    ERROR = 4
    EITHER = 5
    PART = 7


class Rule(Enum):
    """What can be taken away."""

    OLDEST = auto()
    """Reads of one cell share the oldest token."""
    WINDOWS = auto()
    """What came in the second half of a cell's time outlives the first."""
    SECOND_COUNT = auto()
    """Then no more replies are waited for than requests came in that half, or are not yet there."""
    SEVERAL = auto()
    """Where a request may have several replies, none is counted."""
    SIGNED = auto()
    """A moment may be read before another's and come to the lock after it."""
    TOKEN_BEFORE = auto()
    """A token is from before the server saw the request, and not from the fill."""
    SECOND_VOID = auto()
    """An acknowledgement voids again."""
    SURE_COUNT = auto()
    """What may not be a write's reply counts no write down."""
    COUNTED = auto()
    """Nothing does, where replies may come that nobody counts."""
    PARTS = auto()
    """A part of a longer reply ends no doubt."""
    FALLEN = auto()
    """A cell that has no place any more is void and held."""
    UNREAD = auto()
    """What may be the reply to what nobody could read voids the service."""
    UNEXPLAINED = auto()
    """An acknowledgement that no write waits for voids the service."""
    OWN = auto()
    """But one of its own flight's, of those that share its cell."""
    LATE = auto()
    """What has waited for long explains no acknowledgement."""
    NO_OTHER = auto()
    """A refusal ends a doubt only where it can be of nothing else."""
    CUTS = auto()
    """A cut store's cell is not filled for as long as it may be completed."""
    CUT_COUNT = auto()
    """Nor is a reply counted as a write's meanwhile: it may be the cut store's."""
    HOLDS = auto()
    """What is not acknowledged, or not to be told, is not filled for a while."""
    RELEASE = auto()
    """A server's end voids the service."""
    HOLDER = auto()
    """What was asked besides is known of one flight of a cell only."""
    DIFFERENT = auto()
    """And not of one that asks for different things at once."""
    OTHERS = auto()
    """Who may wait beside the holder does not become it."""
    LATER_OTHERS = auto()
    """Of those, who came in the second half of a cell's time outlive the first."""
    PROBATION = auto()
    """A new socket's replies are not learned before it was looked at."""


@dataclass
class Reads:
    """`struct reads`."""

    count: int = 0
    count2: int = 0
    doubts: int = 0
    hidden: int = 0
    token: int = 0
    since: int = 0
    token2: int = 0
    since2: int = 0
    several: int = 0
    holder: int = 0
    asked: int = 0
    awaited: int = 0
    others: int = 0
    others2: int = 0


@dataclass
class Waiter:
    """`struct waiter`."""

    name: tuple[int, bool]
    """Its flight, and whether these are queries."""
    last: int = 0
    count: int = 0


@dataclass
class Writes:
    """`struct writes`."""

    waiting: int = 0
    queries: int = 0
    doubts: int = 0
    last: int = 0
    unread: int = 0
    uncounted: int = 0
    next: int = 0
    cells: dict[int, int] = field(default_factory=dict)
    """By place."""
    times: dict[int, int] = field(default_factory=dict)
    """When it was written."""
    next_waiter: int = 0
    waiters: dict[int, Waiter] = field(default_factory=dict)
    """By place."""


class Acknowledged(NamedTuple):
    """`struct acknowledged`, and the cells."""

    cells: list[int]
    explained: bool
    unread: bool


class Flight(NamedTuple):
    """`struct flight`."""

    token: int
    since: int
    asked: int


def bit_of(flight: int) -> int:
    """bit_of()"""
    return 1 << flight // FLIGHTS % BITS


class Edge:
    """The maps, and what the programs do to them between taking a lock and leaving it.

    A flight is its cell's number, and FLIGHTS times what tells it from others there.
    """

    def __init__(
        self, ticks: int = 1, *, ways: int = FLIGHT_WRITES, without: Collection[Rule] = ()
    ):
        """A second has so many `ticks`, and a flight's writes so many `ways`."""
        self.without = frozenset(without)
        self.ways = ways
        self.long = FLIGHT_SECONDS * ticks
        self.short = HOLD_MS * ticks // 1000 + 1
        self.cut_long = CUT_SECONDS * ticks
        self.cut_until = 0
        self.voids = 0
        self.versions: dict[int, int] = defaultdict(int)
        self.holds: dict[int, int] = defaultdict(int)
        self.reads: dict[int, Reads] = defaultdict(Reads)
        self.writes: dict[int, Writes] = defaultdict(Writes)

    def _has(self, rule: Rule) -> bool:
        return rule not in self.without

    def passed(self, now: int, since: int, ticks: int) -> bool:
        """passed()"""
        elapsed = now - since
        return (elapsed if self._has(Rule.SIGNED) else elapsed % _U64) >= ticks

    # include/token.h

    def void(self, cell: int) -> None:
        """void_now()"""
        self.voids += 1
        self.versions[cell] = self.voids

    def hold(self, cell: int, until: int) -> None:
        """hold_cell()"""
        if self._has(Rule.HOLDS):
            self.holds[cell] = max(self.holds[cell], until)

    def void_cell(self, cell: int, quiet: bool, now: int) -> None:
        """void_cell()"""
        if quiet:
            self.hold(cell, now + self.short)
        self.void(cell)

    def held(self, cell: int, since: int) -> bool:
        """held()"""
        return since < self.holds[cell]

    def good(self, token: int, cell: int, service: int) -> bool:
        """What a hit asks."""
        return token >= self.versions[cell] and token >= self.versions[SLOTS + service]

    # cgroup/flights.h

    def leave_read(
        self,
        flight: int,
        several: bool,
        token: int,
        now: int,
        asked: int = UNKNOWN,
        *,
        doubt: bool = False,
        hidden: bool = False,
    ) -> None:
        """leave_read(), leave_hidden(), and leave_token()"""
        cell = self.reads[flight % FLIGHTS]
        if cell.count and self.passed(now, cell.since, self.long):
            gone = self.passed(now, cell.since2, self.long) or not self._has(Rule.WINDOWS)
            left = cell.count2 if self._has(Rule.SECOND_COUNT) else min(cell.count2, 1)
            cell.count = 0 if gone else left
            cell.token, cell.since, cell.count2 = cell.token2, cell.since2, 0
            cell.doubts = cell.hidden = 0
            cell.others = cell.others2 if self._has(Rule.LATER_OTHERS) else 0
            cell.others2 = 0
        if not cell.count or not self._has(Rule.OLDEST):
            cell.token, cell.since, cell.count2, cell.several = token, now, 0, 0
            cell.doubts = cell.hidden = 0
            if not cell.count:
                cell.awaited = cell.others = cell.others2 = 0
        elif not cell.count2 and self.passed(now, cell.since, self.long // 2):
            cell.token2, cell.since2, cell.count2 = token, now, 1
        elif cell.count2:
            cell.count2 += 1
        cell.count += 1
        cell.doubts += doubt
        cell.hidden += hidden
        if several and self._has(Rule.SEVERAL):
            cell.several = now + self.long
        self.note_asked(cell, flight, asked)

    def note_asked(self, cell: Reads, flight: int, asked: int) -> None:
        """note_asked()"""
        other = bit_of(flight)
        if cell.holder == flight:
            differs = cell.awaited and cell.asked != asked and self._has(Rule.DIFFERENT)
            cell.asked = UNKNOWN if differs else asked
            cell.awaited += 1
            return
        if not cell.others & other:
            other = bit_of(cell.holder) if cell.awaited else 0
            cell.holder, cell.asked, cell.awaited = flight, asked, 1
        if self._has(Rule.OTHERS):
            cell.others |= other
            cell.others2 |= other if cell.count2 else 0

    def asked_by(self, cell: Reads, flight: int) -> int:
        """asked_by()"""
        holds = cell.holder == flight and cell.awaited
        return cell.asked if holds or not self._has(Rule.HOLDER) else UNKNOWN

    def forget_doubt(self, flight: int) -> None:
        """forget_doubt()"""
        cell = self.reads[flight % FLIGHTS]
        if cell.doubts and cell.count:
            cell.doubts -= 1
            cell.count -= 1

    def take_read(self, flight: int, now: int) -> Flight | None:
        """take_read()"""
        cell = self.reads[flight % FLIGHTS]
        taken = Flight(cell.token, cell.since, self.asked_by(cell, flight))
        found = taken if cell.count > cell.hidden else None
        if found and now >= cell.several:
            cell.count -= 1
            cell.awaited -= bool(cell.holder == flight and cell.awaited)
        return found

    def void_held(self, cell: int, now: int) -> None:
        """void_held()"""
        self.hold(cell, now + self.long)
        self.void(cell)

    def let_go(self, waiting: Writes, now: int) -> None:
        """let_go()"""
        if self.passed(now, waiting.last, self.long):
            waiting.waiting = waiting.queries = waiting.doubts = 0

    def note_last(self, waiting: Writes, now: int) -> None:
        """note_last()"""
        self.let_go(waiting, now)
        waiting.last = now

    def find_waiter(self, waiting: Writes, name: tuple[int, bool], now: int) -> Waiter | None:
        """find_waiter()"""
        for waiter in waiting.waiters.values():
            if waiter.name == name and not self.is_free(waiter, now):
                return waiter
        return None

    def is_free(self, waiter: Waiter | None, now: int) -> bool:
        """is_free()"""
        if not waiter or not waiter.count:
            return True
        return now - waiter.last >= self.long and self._has(Rule.LATE)

    def add_waiter(self, waiting: Writes, name: tuple[int, bool], now: int) -> None:
        """add_waiter() and free_waiter()"""
        waiter = self.find_waiter(waiting, name, now)
        if not waiter:
            place = waiting.next_waiter % FLIGHT_WAITERS
            waiting.next_waiter = place + 1
            for at in range(FLIGHT_WAITERS):
                if self.is_free(waiting.waiters.get(at), now):
                    place = at
            waiter = waiting.waiters[place] = Waiter(name)
        waiter.last = now
        waiter.count += 1

    def remember_query(self, flight: int, now: int) -> None:
        """remember_query()"""
        waiting = self.writes[flight % FLIGHTS]
        self.note_last(waiting, now)
        waiting.queries += 1
        self.add_waiter(waiting, (flight, True), now)

    def remember_write(self, flight: int, cell: int, now: int) -> None:
        """remember_write()"""
        waiting = self.writes[flight % FLIGHTS]
        self.note_last(waiting, now)
        if not waiting.waiting:
            waiting.cells.clear()
        waiting.waiting += 1
        self.add_waiter(waiting, (flight, False), now)
        place = next((at for at, one in waiting.cells.items() if one == cell), None)
        if place is None:
            place = waiting.next % self.ways
            waiting.next = place + 1
            if place in waiting.cells and self.may_come(waiting, place, now):
                self.fall(waiting.cells[place], now)
        waiting.cells[place], waiting.times[place] = cell, now

    def may_come(self, waiting: Writes, place: int, now: int) -> bool:
        """may_come()"""
        return now - waiting.times[place] < self.long

    def fall(self, cell: int, now: int) -> None:
        """void_fallen()"""
        if self._has(Rule.FALLEN):
            self.void_held(cell, now)

    def remember_unread(self, flight: int, now: int) -> None:
        """remember_unread()"""
        waiting = self.writes[flight % FLIGHTS]
        self.note_last(waiting, now)
        waiting.unread = waiting.uncounted = now + self.long

    def remember_doubt(self, flight: int, token: int, now: int) -> None:
        """remember_doubt(): two locks, one after the other, which the model takes as one step."""
        waiting = self.writes[flight % FLIGHTS]
        self.note_last(waiting, now)
        waiting.unread = now + self.long
        waiting.doubts += 1
        self.leave_read(flight, True, token, now, doubt=True)

    def remember_uncounted(self, flight: int, now: int) -> None:
        """remember_uncounted()"""
        waiting = self.writes[flight % FLIGHTS]
        self.note_last(waiting, now)
        waiting.uncounted = now + self.long

    def void_write(self, flight: int, cell: int, now: int, *, told: bool, quiet: bool) -> None:
        """void_write(): `told` for INTENT_ANSWERS."""
        if told:
            self.void_held(cell, now)
        else:
            self.void_cell(cell, quiet, now)
        if told or quiet:
            self.remember_uncounted(flight, now)
        else:
            self.remember_write(flight, cell, now)

    def take_writes(self, flight: int, answer: Answer, now: int) -> Acknowledged:
        """take_writes(), of a reply that is no read's."""
        waiting = self.writes[flight % FLIGHTS]
        if self._has(Rule.LATE):
            self.let_go(waiting, now)
        cells: list[int] = []
        if waiting.waiting:
            cells = [
                cell
                for place, cell in sorted(waiting.cells.items())
                if self.may_come(waiting, place, now)
            ]
        writer = self.find_waiter(waiting, (flight, False), now)
        asker = self.find_waiter(waiting, (flight, True), now)
        asked = answer is Answer.EITHER and asker is not None
        explained = asked or writer is not None
        if not self._has(Rule.OWN):
            explained |= bool(cells) or (answer is Answer.EITHER and waiting.queries > 0)
        unread = now < waiting.unread
        beside = self.reads[flight % FLIGHTS]
        others = beside.count - beside.doubts
        cut = now < self.cut_until and self._has(Rule.CUT_COUNT)
        refused = answer in (Answer.REFUSED, Answer.ERROR)
        refused |= answer is Answer.PART and not self._has(Rule.PARTS)
        if refused and self.ends_doubt(waiting, others, now):
            self.forget_doubt(flight)
        elif cut:
            pass
        elif asked and asker:
            waiting.queries -= 1
            asker.count -= 1
        elif writer and self._counts(waiting, answer, others, now):
            waiting.waiting -= 1
            writer.count -= 1
        return Acknowledged(cells, explained, unread)

    def _counts(self, waiting: Writes, answer: Answer, reads: int, now: int) -> bool:
        """count_down(): may it be a write's, and nothing else's?"""
        others = now < waiting.unread or now < waiting.uncounted
        if others and self._has(Rule.COUNTED):
            return False
        if answer in (Answer.ERROR, Answer.REFUSED) and self._has(Rule.SURE_COUNT):
            return not waiting.queries and (answer is Answer.REFUSED or not reads)
        return answer not in (Answer.OTHER, Answer.PART) or not self._has(Rule.SURE_COUNT)

    def ends_doubt(self, waiting: Writes, reads: int, now: int) -> bool:
        """ends_doubt()"""
        others = reads or waiting.waiting or waiting.queries or now < waiting.uncounted
        if (others and self._has(Rule.NO_OTHER)) or not waiting.doubts:
            return False
        waiting.doubts -= 1
        if not waiting.doubts:
            waiting.unread = 0
        return True

    def void_acknowledged(self, write: Acknowledged, service: int, answer: Answer) -> bool:
        """What acknowledge() does when it has left the lock."""
        nothing = answer in (Answer.REFUSED, Answer.ERROR, Answer.PART)
        done = answer in (Answer.WRITTEN, Answer.EITHER)
        for cell in write.cells:
            if not (nothing and cell >= SLOTS) and self._has(Rule.SECOND_VOID):
                self.void(cell)
        unread = write.unread and self._has(Rule.UNREAD)
        unexplained = not write.explained and self._has(Rule.UNEXPLAINED)
        if done and (unread or unexplained):
            self.void(SLOTS + service)
        return unread and not done and not nothing

    def acknowledge(self, flight: int, service: int, answer: Answer, now: int) -> bool:
        """acknowledge()"""
        return self.void_acknowledged(self.take_writes(flight, answer, now), service, answer)

    def note_cut(self, now: int) -> None:
        """note_cut(): some store may be completed from now on."""
        self.cut_until = now + self.cut_long

    def cut(self, cell: int, now: int) -> None:
        """hold_cut(): a store without its data."""
        if self._has(Rule.CUTS):
            self.hold(cell, now + (self.cut_long if cell < SLOTS else self.long))
            self.void(cell)
