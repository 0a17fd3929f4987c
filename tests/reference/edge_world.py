# SPDX-License-Identifier: Apache-2.0
"""Clients, a server and the programs at its socket's edge, in random interleavings.

Clients' datagrams are lost, repeated, and share ids. Programs run on any number of CPUs, and may be
overtaken between any two of their steps. The server's threads do what they took at one moment and
answer at another, in any order or never. It is killed and begun anew, by strangers too.

A value is a number that each write makes larger. A hit is stale where its value is smaller than
what the last acknowledged write left; or one that promises no acknowledgement, once it is done.

What docs/consistency.md takes for granted is true here, unless a world says otherwise.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping
from enum import Enum, auto
from typing import Any, NamedTuple

from carom.kernel.abi import FLIGHTS, SLOTS
from reference.flights import UNKNOWN, Answer, Edge, Rule

KEYS = 4
SERVICE = 0
LONG, SHORT, CUT_LONG = 40, 3, 400
"""Ticks for FLIGHT_SECONDS, HOLD_MS and CUT_SECONDS: all happen in a run of a few hundred steps."""


class Kind(Enum):
    """What a client asks."""

    GET = auto()
    MULTI = auto()
    """Several keys: as many replies, of which none can be learned."""
    SET = auto()
    REFUSED = auto()
    """A store that the server refuses."""
    QUIET = auto()
    """A store without acknowledgement."""
    TOLD = auto()
    """A write whose acknowledgement looks like another's reply: gat, ma with its value."""
    FLUSH = auto()
    CUT = auto()
    """A store whose data does not come: the next datagram is taken for it."""
    UNKNOWN = auto()
    """A command that only the server knows: it writes."""
    LISTING = auto()
    """Another, whose reply has several parts and writes nothing."""
    GARBAGE = auto()
    """What the server does not understand."""
    QUERY = auto()
    """stats: several replies that say nothing of any key."""


class World(NamedTuple):
    """How a run is; what is a tuple is drawn from for each run."""

    mix: Mapping[Kind, tuple[float, ...]]
    """Weights."""
    ids: tuple[int, ...] = (1, 2, 30)
    flights: tuple[int, ...] = (1, 4, 64)
    """Cells of `reads` and `writes`."""
    ways: tuple[int, ...] = (1, 2, 8)
    loss: tuple[float, ...] = (0, 0.05, 0.2)
    """Of datagrams, after the kernel has seen them."""
    slow: tuple[float, ...] = (0.05, 0.2, 0.5)
    """Of what the server does and answers: it is done at some later time, the rest soon."""
    restarts: tuple[float, ...] = (0, 0.004)
    late_reads: bool = False
    """Replies to reads come at any time."""
    late_acknowledgements: bool = False
    """Acknowledgements, even to ids that are used again."""
    quiet_errors: float = 0.1
    """Of stores without acknowledgement, those that are refused in words."""
    hidden: float = 0
    """Of stores, those that no program sees."""
    asks: tuple[int, ...] = (1,)
    """Kinds of gets: what they ask besides, which their replies do not tell."""


DEFAULT = World(
    {
        Kind.GET: (60,),
        Kind.SET: (5, 15, 30),
        Kind.REFUSED: (0, 5),
        Kind.MULTI: (0, 0, 8),
        Kind.QUIET: (0, 0, 4),
        Kind.TOLD: (0, 0, 4),
        Kind.CUT: (0, 0, 2),
        Kind.FLUSH: (0, 1),
        Kind.UNKNOWN: (0, 2),
        Kind.GARBAGE: (0, 5),
        Kind.QUERY: (0, 5),
    }
)


class Request(NamedTuple):
    """One datagram; `came` when the kernel saw it."""

    kind: Kind
    key: int
    flight: int
    came: int
    asked: int


Floor = tuple[tuple[int, int], ...]
"""Keys, and which value of theirs or a later one is promised."""


class Reply(NamedTuple):
    """What the server sends; `floor` is what it acknowledges."""

    request: Request
    answer: Answer
    value: int | None = None
    floor: Floor = ()


Program = Iterator[None]
"""One that runs in the kernel: between two steps, others may."""

_UNKEYED = (Kind.FLUSH, Kind.UNKNOWN)


class Run:
    """One interleaving."""

    def __init__(self, seed: int, world: World, without: Collection[Rule] = ()):
        self._draw = draw = random.Random(seed)
        self._world = world
        self._mix = [draw.choice(weights) for weights in world.mix.values()]
        self._kinds = list(world.mix)
        self._ids, self._flights = draw.choice(world.ids), draw.choice(world.flights)
        self._loss, self._slow = draw.choice(world.loss), draw.choice(world.slow)
        self._restarts = draw.choice(world.restarts)
        self._asks = draw.choice(world.asks)
        self._errors = world.quiet_errors
        self.edge = Edge(ways=draw.choice(world.ways), without=without)
        self.edge.long, self.edge.short, self.edge.cut_long = LONG, SHORT, CUT_LONG
        self.edge.voids = draw.choice((0, 10))
        self._without = frozenset(without)
        self._now = LONG * 10
        self._programs: list[tuple[int, Program]] = []
        self._queue: list[Request] = []
        self._working: list[tuple[int, Request]] = []
        self._replies: list[tuple[int, Reply]] = []
        self._unfinished: Request | None = None
        self._stranger = False
        self._looked_at = True
        self._values = [0] * KEYS
        self._floors = [0] * KEYS
        self._cache: dict[int, tuple[int, int]] = {}
        self.hits = self.stale = self.fills = 0
        self.known = self.wrong = 0
        """Replies of which it was known what was asked besides; and those that were others'."""

    def go(self, steps: int) -> int:
        """Some steps; returns how many hits were stale."""
        draw = self._draw.random
        for _ in range(steps):
            if draw() < 0.5 and all(since == self._now for since, _ in self._programs):
                self._now += 1  # no program takes longer than the time between two ticks
            if draw() < 0.15:
                self._arrive()
            if draw() < 0.8:
                self._proceed()
            if draw() < 0.6:
                self._work()
            if draw() < 0.6:
                self._reply()
            if draw() < self._restarts:
                self._restart()
            elif not self._looked_at and draw() < 0.05:
                self._look()
            self._ask()
        return self.stale

    # Clients

    def _arrive(self) -> None:
        draw = self._draw
        (kind,) = draw.choices(self._kinds, self._mix)
        who = draw.randrange(2) * self._ids + draw.randrange(self._ids)
        flight = who * 7 % self._flights + FLIGHTS * who
        asked = draw.randrange(self._asks) if kind is Kind.GET else UNKNOWN
        request = Request(kind, draw.randrange(KEYS), flight, self._now, asked)
        for _ in range(1 + (draw.random() < 0.06)):
            if kind is Kind.SET and draw.random() < self._world.hidden:
                self._queue.append(request)
            else:
                self._start(self._ingress(request))

    def _ask(self) -> None:
        for key, (value, token) in self._cache.items():
            if self.edge.good(token, key, SERVICE):
                self.hits += 1
                self.stale += value < self._floors[key]

    # The kernel

    def _start(self, program: Program) -> None:
        next(program, None)
        self._programs.append((self._now, program))

    def _proceed(self) -> None:
        if self._programs:
            at = self._draw.randrange(len(self._programs))
            if next(self._programs[at][1], self) is self:
                del self._programs[at]

    def _ingress(self, request: Request) -> Program:
        edge, kind, now, token = self.edge, request.kind, self._now, self.edge.voids
        yield
        if kind in (Kind.GET, Kind.MULTI, Kind.TOLD, Kind.QUERY):
            edge.leave_read(request.flight, kind is not Kind.GET, token, now, request.asked)
            yield
        if kind is Kind.QUERY:
            edge.remember_query(request.flight, now)
        elif kind in (Kind.SET, Kind.REFUSED, Kind.CUT):
            edge.void_cell(request.key, False, now)
            yield
            edge.remember_write(request.flight, request.key, now)
        elif kind in (Kind.UNKNOWN, Kind.LISTING, Kind.GARBAGE):
            edge.remember_doubt(request.flight, token, now)
        elif kind is Kind.TOLD:
            edge.void_held(request.key, self._now)
            yield
            edge.remember_uncounted(request.flight, now)
        elif kind is Kind.QUIET:
            edge.void_cell(request.key, True, self._now)
            yield
            edge.remember_uncounted(request.flight, now)
        elif kind is Kind.FLUSH:
            edge.void_cell(SLOTS + SERVICE, True, now)
            yield
            edge.remember_write(request.flight, SLOTS + SERVICE, now)
        if kind is Kind.CUT:
            edge.cut(request.key, now)
            edge.note_cut(now)
        if self._draw.random() >= self._loss:
            self._queue.append(request)

    def _egress(self, reply: Reply) -> Program:
        edge, flight, now = self.edge, reply.request.flight, self._now
        learned = self._looked_at or Rule.PROBATION in self._without
        if reply.answer is not Answer.READ:
            write = edge.take_writes(flight, reply.answer, now)
            yield
            edge.void_acknowledged(write, SERVICE, reply.answer)
        else:
            taken = edge.take_read(flight, now)
            if taken and learned and taken.asked != UNKNOWN:
                self.known += 1
                self.wrong += taken.asked != reply.request.asked
            yield
            key, value = reply.request.key, reply.value
            if taken and learned and value is not None:
                held = edge.held(key, taken.since) or edge.held(SLOTS + SERVICE, taken.since)
                yield
                token = taken.token if Rule.TOKEN_BEFORE not in self._without else edge.voids
                if not held:
                    self._cache[key] = value, token
                    self.fills += 1
        yield
        for key, floor in reply.floor:
            self._floors[key] = max(self._floors[key], floor)

    # The server

    def _when(self) -> int:
        """What the server begins now is done then."""
        slow = self._draw.random() < self._slow
        return self._now + (self._draw.randrange(LONG * 3 // 2) if slow else 0)

    def _due(self, waiting: list[tuple[int, Any]]) -> Any:
        """Take one of those whose time has come."""
        due = [at for at, (when, _) in enumerate(waiting) if when <= self._now]
        return waiting.pop(self._draw.choice(due))[1] if due else None

    def _work(self) -> None:
        if self._queue and self._draw.random() < 0.5:
            self._working.append((self._when(), self._queue.pop(0)))
        elif request := self._due(self._working):
            self._do(request)

    def _send(
        self, request: Request, answer: Answer, value: int | None = None, floor: Floor = ()
    ) -> None:
        self._replies.append((self._when(), Reply(request, answer, value, floor)))

    def _wrote(self, key: int) -> Floor:
        self._values[key] += 1
        return ((key, self._values[key]),)

    def _promised(self, floor: Floor) -> None:
        """What is not acknowledged is promised from when it is done."""
        for key, value in floor:
            self._floors[key] = max(self._floors[key], value)

    def _do(self, request: Request) -> None:
        kind, key, late = request.kind, request.key, self._now - request.came
        if self._stranger:
            self._send(request, Answer.READ, -1)
        elif self._unfinished and kind is not Kind.CUT:
            floor = self._wrote(self._unfinished.key)
            self._send(request, Answer.WRITTEN, floor=floor)
            self._unfinished = None
        elif kind is Kind.CUT:
            self._unfinished = self._unfinished or request
        elif kind is Kind.GET:
            value = None if self._draw.random() < 0.15 else self._values[key]
            self._send(request, Answer.READ, value)
        elif kind is Kind.MULTI:
            for answer in (Answer.READ, *self._draw.choices((Answer.READ, Answer.PART), k=2)):
                self._send(request, answer)
        elif kind is Kind.QUERY:
            for answer in (Answer.EITHER, Answer.OTHER, Answer.READ, Answer.PART):
                self._send(request, answer)
        elif kind is Kind.SET:
            answer = self._draw.choice((Answer.WRITTEN, Answer.EITHER))
            self._send(request, answer, floor=self._wrote(key))
        elif kind is Kind.REFUSED:
            self._send(request, Answer.REFUSED)
        elif kind is Kind.LISTING:
            for _ in range(3):
                self._send(request, Answer.PART)
        elif kind is Kind.GARBAGE:
            self._send(request, Answer.ERROR)
        elif kind is Kind.QUIET and self._draw.random() < self._errors:
            self._send(request, self._draw.choice((Answer.ERROR, Answer.REFUSED)))
        elif kind is Kind.QUIET and late < SHORT:
            self._promised(self._wrote(key))
        elif kind is Kind.TOLD and late < LONG:
            floor = self._wrote(key)
            answer = self._draw.choice((Answer.READ, Answer.OTHER, Answer.EITHER))
            self._send(request, answer, floor=floor)
        elif kind in _UNKEYED:
            floor = tuple(one for key in range(KEYS) for one in self._wrote(key))
            answer = self._draw.choice((Answer.WRITTEN, Answer.EITHER))
            self._send(request, answer, floor=floor)

    def _reply(self) -> None:
        reply = self._due(self._replies)
        if reply and self._comes(reply):
            self._start(self._egress(reply))

    def _comes(self, reply: Reply) -> bool:
        """In time for what docs/consistency.md takes for granted."""
        late = self._now - reply.request.came
        writes = self.edge.writes[reply.request.flight % FLIGHTS]
        waiting = writes.waiting or writes.queries
        if reply.answer is Answer.READ:
            return self._world.late_reads or late < LONG // 2 - 1
        return not waiting or late < LONG or self._world.late_acknowledgements

    def _forget(self) -> None:
        self._queue.clear()
        self._working.clear()
        self._replies.clear()
        self._unfinished = None

    def _restart(self) -> None:
        """The server is killed; it has nothing when it begins anew, if it is the server."""
        self._forget()
        self._programs = [one for one in self._programs if self._draw.random() < 0.5]
        if Rule.RELEASE not in self._without:
            self.edge.void(SLOTS + SERVICE)
        for key in range(KEYS):
            self._promised(self._wrote(key))
        self._stranger = self._draw.random() < 0.5
        self._looked_at = False

    def _look(self) -> None:
        """The daemon has seen who has the server's place now, and lets no stranger keep it."""
        if self._stranger:
            self._forget()
            self._programs.clear()
        self.edge.void(SLOTS + SERVICE)
        self._looked_at, self._stranger = True, False
