# SPDX-License-Identifier: Apache-2.0
"""How long replies hold that are learned from a server whose items end by themselves.

Such a server forgets an item when its time is over, and all items when a delayed flush is due. No
packet shows either. So a learned reply waits until the server has said how long its item still
lives, whoever stored or touched it, and whenever: docs/consistency.md. The protocol's `Ending`
knows how to ask.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import itertools
import math
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from carom import log
from carom.daemon import sockets
from carom.daemon.cache import Cache
from carom.daemon.edge import Edge
from carom.daemon.identity import Server
from carom.daemon.sockets import Namespace
from carom.daemon.store import Store
from carom.daemon.thread import Thread
from carom.kernel import links
from carom.kernel.abi import FLIGHT_SECONDS, SERVICES_MAX, SLOTS
from carom.kernel.netlink import Address
from carom.protocols.spec import Asking, Clock, Ending, State, Unclear

WAIT = 0.25
"""Seconds that the thread waits for replies before it checks whether to end."""

_UNSURE = -1.0
"""Instead of jiffies: nobody knows whether the item never ends, or ends within a second."""

_UNSURE_MAX = 4096

_NEVER = math.inf


class Waiting(NamedTuple):
    """A reply that is learned and not given yet: its key, the cell that voids it, its item.

    `service` is the number in the key, which has the view in it.
    """

    service: int
    key: bytes
    cell: int
    item: int


class _Flush(NamedTuple):
    """What a server said of its flushes, at this generation of the service."""

    generation: int
    due: float
    """Jiffies until which it is certainly not due."""
    state: State


class _Asked(NamedTuple):
    """A reply; the versions before the question, and when it was asked; each server's second."""

    reply: Waiting
    versions: tuple[int, int]
    asked: int
    counts: tuple[int, ...]


class Lifetimes:
    """Asks one service's server how long replies hold, and gives them their life.

    An answer holds for a reply while neither of the two versions that void it changes: they are
    read before the question, and again after the answer. A later write voids the entry itself.

    The kernel is told of items that do not end: their replies need not wait as long as no write may
    have given them an end (cgroup/lasting.h). It is told too when no flush is due. Of several
    servers, the one whose item ends first counts.
    """

    def __init__(self, store: Store, edge: Edge, clock: Clock, cache: Cache, ending: Ending):
        self._ending = ending
        self._lock = threading.Lock()
        self._edge = edge
        self._ended, self._settled = edge.ended, edge.settled
        self._versions = store.versions
        self._clock = clock
        self._cache = cache
        self._service = cache.service
        self._generation = SLOTS + cache.service
        self._questions: Sequence[Asking] = ()
        self._flushes: list[_Flush | None] = []
        self._marks: list[bool] = []
        """Whether a server has items marked stale: a second question would take their token."""
        self._unsure: list[_Asked] = []
        self._again = 0
        self._flush_again = 0
        self._warned = False
        self.waited = 0
        """Replies that have waited."""
        self.asked = 0
        """Questions about items that were answered."""
        self.kept = 0
        """Replies that were given a life."""
        self.ended = 0
        """Replies not kept, as their items are gone or end too soon."""
        self.unanswered = 0
        """Replies not kept, as the server did not say how long they hold."""

    def ask_through(self, questions: Sequence[Asking]) -> None:
        """Ask these servers from now on, or none. What was said before is forgotten."""
        with self._lock:
            for question in self._questions:
                question.close()
            self._questions = questions
            self._flushes = [None] * len(questions)
            self._marks = [False] * len(questions)
            self._unsure = []
            self._flush_again = 0
            self._warned = False

    def forget(self) -> None:
        """Items that did not end may end now: ask about all again."""
        self._ended[self._generation] = self._clock.now()

    def check(self) -> None:
        """Raises Unclear for a server that does not say when its items end."""
        with self._lock:
            for n in range(len(self._questions)):
                self._flush(n)

    def look_for_flush(self) -> None:
        """Tell the kernel when no flush is due: before that, it lets no item last."""
        with self._lock:
            now = self._clock.now()
            known, ended = self._settled[self._service], self._ended[self._generation]
            since = ended + self._clock.ticks(FLIGHT_SECONDS / 2) if ended else 0
            asked = now - 1  # it may be a tick ahead
            if not self._questions or now < self._flush_again or known > since or asked <= since:
                return
            self._flush_again = now + self._clock.ticks(1)
            try:
                flush_in = min(self._read(n).flush_in for n in range(len(self._questions)))
            except Unclear as error:
                self._complain(error)
                return
            if flush_in == _NEVER:
                self._settled[self._service] = asked

    def settle(self, waiting: Sequence[Waiting]) -> None:
        """Ask the server about these replies, and give them their lives."""
        with self._lock:
            self.waited += len(waiting)
            if self._questions:
                self._settle_now(waiting)
            else:
                self.unanswered += len(waiting)

    def _settle_now(self, waiting: Sequence[Waiting]) -> None:
        asked = self._clock.now() - 1  # it may be a tick ahead
        replies = {(reply.service, reply.key): reply for reply in waiting}.values()
        asking = [_Asked(reply, self._versions_of(reply.cell), asked, ()) for reply in replies]
        unsure = self._settle(asking, sure=False)
        if unsure:
            with contextlib.suppress(Unclear):
                counts = self._counts()
                self._unsure += [pending._replace(counts=counts) for pending in unsure]
                del self._unsure[:-_UNSURE_MAX]

    def settle_later(self) -> None:
        """Ask once more about unsure items, when the server's next second has begun."""
        with self._lock:
            self._settle_later()

    def _settle_later(self) -> None:
        now = self._clock.now()
        if not self._unsure or now < self._again:
            return
        self._again = now + self._clock.ticks(0.25)
        try:
            counts = self._counts()
        except Unclear as error:
            self._complain(error)
            return
        passed = [all(map(int.__lt__, pending.counts, counts)) for pending in self._unsure]
        ready = list(itertools.compress(self._unsure, passed))
        self._unsure = [
            pending for pending, over in zip(self._unsure, passed, strict=True) if not over
        ]
        self._settle(ready, sure=True)

    def _settle(self, asking: Sequence[_Asked], *, sure: bool) -> list[_Asked]:
        """Returns those that may or may not end; with `sure`, these count as never ending."""
        keys = [pending.reply.key for pending in asking]
        ends = [_NEVER] * len(asking)
        for n in range(len(self._questions)):
            ends = list(map(min, ends, self._ends(n, keys, sure=sure)))
        for pending, end in zip(asking, ends, strict=True):
            if end == _NEVER:
                self._edge.say_lasting(pending.reply.item, pending.asked)
            unchanged = functools.partial(self._is_unchanged, pending)
            if end == _UNSURE or not unchanged():
                continue  # or it was written meanwhile, and so is void
            until = sys.maxsize if end == _NEVER else int(end)
            if self._cache.let_live(pending.reply.service, pending.reply.key, until, unchanged):
                self.kept += 1
            elif until:
                self.ended += 1
        return [pending for pending, end in zip(asking, ends, strict=True) if end == _UNSURE]

    def _is_unchanged(self, pending: _Asked) -> bool:
        return self._versions_of(pending.reply.cell) == pending.versions

    def _counts(self) -> tuple[int, ...]:
        """Each server's clock, in its seconds. Raises Unclear."""
        return tuple(self._read(n).now for n in range(len(self._questions)))

    def _read(self, n: int) -> State:
        answers = self._questions[n].ask(self._ending.about_all)
        told = [answer for answer in answers if answer is not None]
        if len(told) < len(answers):
            raise Unclear("it does not answer")
        return self._ending.state(told)

    def _versions_of(self, cell: int) -> tuple[int, int]:
        return self._versions[cell], self._versions[self._generation]

    def _ends(self, n: int, keys: Sequence[bytes], *, sure: bool) -> list[float]:
        """Jiffies until which the items certainly live; 0 where that is not known."""
        try:
            flush = self._flush(n)
            names = [self._ending.name_of(key) for key in keys]
            ends = self._left(n, flush.state, names, sure)
        except Unclear as error:
            self._complain(error)
            self._flushes[n] = None
            self.unanswered += len(keys)
            return [0.0] * len(keys)
        return [min(end, flush.due) for end in ends]

    def _flush(self, n: int) -> _Flush:
        """What is known of a server's flushes; asks again where that may have changed."""
        flush, generation = self._flushes[n], self._versions[self._generation]
        now = self._clock.now()
        if not flush or flush.generation != generation or now >= flush.due:
            state = self._read(n)
            flush = _Flush(generation, self._end(now, state.flush_in), state)
            self._flushes[n] = flush
        return flush

    def _end(self, asked: int, left: float) -> float:
        """The earliest end, in jiffies, of an item that has `left` of the server's seconds."""
        if left == _NEVER:
            return _NEVER
        seconds = int(left) - self._ending.slack
        return max(0, asked + self._clock.ticks(1) * seconds - 1)

    def _left(self, n: int, state: State, names: Sequence[bytes], sure: bool) -> list[float]:
        """The jiffies at which items may end, as the server says. Raises Unclear."""
        questions, asked = self._questions[n], self._clock.now()
        ends: list[float] = []
        answers = questions.ask([state.question(name) for name in names])
        for name, answer in zip(names, answers, strict=True):
            left = state.left(answer, name) if answer is not None else 0
            if left is None:
                ends.append(_NEVER if sure else _UNSURE)
            else:
                ends.append(0.0 if answer is None else self._end(asked, left))
            self.asked += answer is not None
            self.unanswered += answer is None
        unsure = [i for i, end in enumerate(ends) if end == _UNSURE]
        if not unsure or self._marks[n]:
            return ends
        asked = self._clock.now()
        answers = questions.ask([self._ending.second_question(names[i]) for i in unsure])
        for i, answer in zip(unsure, answers, strict=True):
            if answer is not None:
                left, marked = self._ending.second_left(answer)
                ends[i] = self._end(asked, left)
                self._marks[n] |= marked
        return ends

    def _complain(self, error: Unclear) -> None:
        if not self._warned:
            self._warned = True
            log.warning("nothing is learned while the server does not say how long", why=str(error))

    def status(self) -> dict[str, int]:
        """Its counters."""
        return {
            "asked": self.asked,
            "ended": self.ended,
            "unanswered": self.unanswered,
        }

    def close(self) -> None:
        """Stop asking."""
        self.ask_through(())


class Settler:
    """A thread that has waiting replies settled by the Lifetimes of their service."""

    def __init__(self, edge: Edge, lifetimes: Mapping[int, Lifetimes]):
        self._edge = edge
        self._lifetimes = lifetimes
        self._thread = Thread("settler", self._step)

    def _step(self) -> float:
        by_service: dict[int, list[Waiting]] = {}
        for record in self._edge.waiting(WAIT):
            reply = Waiting(*record)
            by_service.setdefault(reply.service % SERVICES_MAX, []).append(reply)
        for service, waiting in by_service.items():
            if service in self._lifetimes:
                self._lifetimes[service].settle(waiting)
        for lifetimes in self._lifetimes.values():
            lifetimes.settle_later()
            lifetimes.look_for_flush()
        return 0.0

    def close(self) -> None:
        """Stop settling."""
        self._thread.close()


def ask_at(
    namespace: Namespace, server: Server, by: Callable[[socket.socket], Asking]
) -> list[Asking]:
    """Ways to ask a server, `by` sockets connected to each of its own that can be reached.

    Raises OSError. A single process answers for all of its sockets, so that some need not be
    reachable: it may be bound to all of IPv6 in a VRF that has no IPv6 address.
    """
    places = {(bound.address, bound.port, bound.device) for bound in server.sockets}
    if len(server.pids) > 1 and len(places) < len(server.sockets):
        raise OSError("its processes share an address, and nobody chooses which one answers")
    with contextlib.ExitStack() as stack:
        questions: list[Asking] = []
        unreached: OSError | None = None
        for address, port, device in sorted(places, key=str):
            connect = functools.partial(_connected, address, port, device)
            try:
                questions.append(by(sockets.inside(namespace.process, connect)))
            except OSError as error:
                unreached = error
                if len(server.pids) > 1:
                    raise
            else:
                stack.callback(questions[-1].close)
        if unreached and not questions:
            raise unreached
        stack.pop_all()
    return questions


def _reached(address: Address, device: int) -> Address:
    """The address by which its own host reaches a socket that is bound to an address and a device.

    Raises OSError.
    """
    if not address.is_unspecified:
        return address
    if device:
        return links.address_in(device, address.version)
    return ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")


def _connected(address: Address, port: int, device: int) -> socket.socket:
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    udp = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if device:
            name = socket.if_indextoname(device).encode() + b"\0"
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name)
        udp.connect((str(_reached(address, device)), port))
    except OSError:
        udp.close()
        raise
    return udp
