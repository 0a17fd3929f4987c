# SPDX-License-Identifier: Apache-2.0
"""A client that asks all the time, and what it may be told, of hosts that do not stay the same."""

from __future__ import annotations

import math
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from carom.kernel.resource import Resource
from carom.vm.namespace import Namespace
from netns.sums import looks_half_made

KEYS = 4
TTL = 50
"""Of requests: a hit has one less, whatever way a server's reply takes."""

ANSWER = 0.1
"""Seconds after which a request counts as lost. It is asked again from another port."""

PAUSE = 0.002
CHANGED = 64
"""After so many requests the port is another one in any case."""

_IP_TTL, _IP_RECVTTL = 2, 12  # linux/in.h

Value = TypeVar("Value")


class _State(Generic[Value]):
    """What the server had for a key, and when: from the first moment until the last."""

    def __init__(self, value: Value):
        self.value = value
        self.since = time.monotonic()
        self.until = math.inf


class History(Generic[Value]):
    """What a server has had for each key. A reply is right that was true while it was asked for."""

    def __init__(self, first: Value):
        self._lock = threading.Lock()
        self._states = [[_State(first)] for _ in range(KEYS)]

    def begun(self, value: Value) -> None:
        """A server begins, which has this for all keys."""
        with self._lock:
            for states in self._states:
                states.append(_State(value))

    def ended(self) -> None:
        """The server is gone: it has nothing any more."""
        with self._lock:
            for states in self._states:
                _end(states)

    def writing(self, key: int, value: Value) -> Callable[[], None]:
        """A write begins; call what is returned when it is acknowledged."""
        with self._lock:
            before = list(self._states[key])
            self._states[key].append(_State(value))

        def acknowledged() -> None:
            with self._lock:
                _end(before)
                self._states[key] = self._states[key][-CHANGED:]

        return acknowledged

    def was(self, key: int, value: Value, since: float) -> bool:
        """Was this so, at any moment from then until now?"""
        with self._lock:
            return any(one.value == value and one.until >= since for one in self._states[key])

    def shown(self, key: int) -> str:
        """The last states, for whoever reads of a failure."""
        now = time.monotonic()
        return "; ".join(
            f"{one.value!r} from {one.since - now:.3f} until {one.until - now:.3f}"
            for one in self._states[key][-6:]
        )


def _end(states: list[_State[Value]]) -> None:
    for one in states:
        one.until = min(one.until, time.monotonic())


class Language(NamedTuple):
    """How a server is asked for a key, and what its reply says."""

    port: int
    request: Callable[[int, int], bytes]
    """By an id and a key."""
    value: Callable[[int, int, bytes], object]
    """By id, key and reply. Raises ValueError for what is no reply to that."""


class Asker(Resource):
    """Asks for each key in turn, by a thread of its own, and judges each reply."""

    def __init__(
        self, namespace: Namespace, address: str, language: Language, history: History[object]
    ):
        self.address = address
        """Where it asks; to be changed at any time."""
        self._namespace, self._language, self._history = namespace, language, history
        self._stopping = False
        self.wrong: list[str] = []
        self.replies = self.hits = self.lost = 0
        self._first_hit = math.inf
        self._since = math.inf
        self._udp: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def changed(self) -> None:
        """Note when the first hit comes of what is asked from now on."""
        self._first_hit = math.inf
        self._since = time.monotonic()

    @property
    def hit_after(self) -> float:
        """How many seconds after that it came; infinite if it has not come yet."""
        return self._first_hit - self._since

    def __str__(self) -> str:
        return f"{self.replies:,} replies, {self.hits:,} hits, {self.lost:,} lost"

    def _socket(self) -> socket.socket:
        def make() -> socket.socket:
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            udp.setsockopt(socket.IPPROTO_IP, _IP_TTL, TTL)
            udp.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
            udp.settimeout(ANSWER)
            return udp

        udp = self._namespace.call(make)
        try:
            udp.connect((self.address, self._language.port))
        except OSError:  # no way leads there, for the moment
            udp.close()
            raise
        return udp

    def _run(self) -> None:
        number = 0
        while not self._stopping:
            try:
                with self._socket() as udp:
                    address = self.address
                    for _ in range(CHANGED):
                        number += 1
                        if self._stopping or address != self.address:
                            break
                        self._ask(udp, number % 65_535 + 1, number % KEYS)
                        time.sleep(PAUSE)
            except OSError:
                self.lost += 1
                time.sleep(PAUSE)

    def _ask(self, udp: socket.socket, id: int, key: int) -> None:
        """Ask once. Raises OSError for a loss."""
        request = self._language.request(id, key)
        if looks_half_made(udp, request):
            return
        since = time.monotonic()
        udp.send(request)
        reply, ancillary, _, _ = udp.recvmsg(65_536, socket.CMSG_SPACE(4))
        (ttl,) = struct.unpack("=i", ancillary[0][2])
        try:
            value = self._language.value(id, key, reply)
            right = self._history.was(key, value, since)
        except ValueError as error:
            value, right = error, False
        if not right:
            who = "the kernel" if ttl == TTL - 1 else "the server"
            self.wrong.append(
                f"{who} said {value!r} of key {key}, {reply[:80]!r}: {self._history.shown(key)}"
            )
        self.replies += 1
        if ttl == TTL - 1:
            self.hits += 1
            if since >= self._since:
                self._first_hit = min(self._first_hit, time.monotonic())

    def close(self) -> None:
        """Ask no more."""
        self._stopping = True
        self._thread.join()


class Writer(Resource):
    """Writes keys at random, by a thread of its own, whenever `write` can be called."""

    def __init__(self, write: Callable[[int], None], chance: random.Random):
        self._write, self._chance = write, chance
        self._stopping = False
        self.paused = threading.Lock()
        """Held while there is no server to write to."""
        self.failed: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stopping:
                with self.paused:
                    self._write(self._chance.randrange(KEYS))
                time.sleep(self._chance.choice((0.01, 0.05, 0.2)))
        except Exception as error:
            self.failed = error

    def close(self) -> None:
        """Write no more."""
        self._stopping = True
        self._thread.join()
