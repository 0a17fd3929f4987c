# SPDX-License-Identifier: Apache-2.0
"""The UDP server: the fastest loop in plain Python, so that no comparison with it flatters."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Literal, NoReturn

from carom import log
from carom.daemon.cache import Cache, Token
from carom.daemon.loops import Loops
from carom.daemon.reply_times import ReplyTimes
from carom.daemon.service import Handler, Reply
from carom.daemon.transport import transport
from carom.errors import ServerError
from carom.kernel import capabilities
from carom.kernel.abi import SAMPLED
from carom.kernel.signals import Stop

DATAGRAM_MAX = 65_535

SIGNAL_PATIENCE = struct.pack("@ll", 0, 200_000)
"""How long a signal may wait at most, as a struct timeval."""

_TURNS = (True, *(False,) * (SAMPLED - 1))
"""Which requests are timed, over and over."""

Respond = Callable[[bytes], bytes | None]
Fill = Callable[..., None]


def with_work(handler: Handler, seconds: float) -> Handler:
    """The handler with that many seconds of CPU time added: a busy loop, not a sleep."""

    def worked(request: bytes) -> bytes | Reply | None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
        return handler(request)

    return worked


def as_reply(reply: object) -> Reply | None:
    """What a handler returned, as a Reply. Raises TypeError for what is no reply."""
    if reply is None:
        return None
    if not isinstance(reply, Reply):
        reply = Reply(reply)  # type: ignore[arg-type]  # its data is looked at next
    data, ttl, cache = reply
    if type(data) is bytes and (ttl is None or ttl > 0):
        return reply
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"a reply's data is bytes, not {type(data).__name__}")
    return Reply(bytes(data), ttl, cache and (ttl is None or ttl > 0))


def _marking(fill: Fill, known: Callable[[bytes, bytes], bool]) -> Fill:
    """A cache's `fill` that also marks replies which are themselves known requests."""

    def filled(request: bytes, reply: bytes, token: Token | None, ttl: float | None = None) -> None:
        fill(request, reply, token, ttl, loops=known(request, reply))

    return filled


class UserspaceCache:
    """A first-come-first-served cache in the server: the baseline that experiments compare with.

    One thread reads it; any may drop. A reply that was being made during a drop is not kept.
    """

    def __init__(self, capacity: int, ttl: float):
        self._capacity = capacity
        self.ttl = ttl
        self._entries: dict[bytes, tuple[bytes, float]] = {}
        self._version = 0
        self._lock = threading.Lock()
        self.hits = 0
        self.misses = 0

    def around(self, handler: Handler) -> Handler:
        """The handler, called only for requests whose replies are not here."""

        def cached(request: bytes) -> bytes | Reply | None:
            entry = self._entries.get(request)
            if entry and time.monotonic() < entry[1]:
                self.hits += 1
                return entry[0]
            self.misses += 1
            version = self._version
            reply = as_reply(handler(request))
            if reply and reply.cache:
                with self._lock:
                    if version == self._version and self._has_room(request):
                        ttl = self.ttl if reply.ttl is None else reply.ttl
                        self._entries[request] = reply.data, time.monotonic() + ttl
            return reply

        return cached

    def _has_room(self, request: bytes) -> bool:
        if len(self._entries) < self._capacity or request in self._entries:
            return True
        now = time.monotonic()
        for dead in [key for key, (_, expires) in self._entries.items() if expires <= now]:
            del self._entries[dead]
        return len(self._entries) < self._capacity

    def drop(self, request: bytes) -> bool:
        """Forget a request's reply."""
        with self._lock:
            self._version += 1
            return self._entries.pop(request, None) is not None

    def flush(self) -> int:
        """Forget everything."""
        with self._lock:
            self._version += 1
            count = len(self._entries)
            self._entries.clear()
            return count


class UDPServer:
    """Answers what its socket receives, and fills the cache before the reply leaves."""

    def __init__(
        self,
        udp: socket.socket,
        handler: Handler,
        cache: Cache | None,
        loops: Loops | None = None,
    ):
        """With `loops`, replies that may go in a loop are found, and some of them left out."""
        self._udp = udp
        self._handler = handler
        self._cache = cache
        self.loops = loops
        self.replies = 0
        self.handler_errors = 0
        self.send_errors = 0
        self.times = ReplyTimes()
        """From a request's being taken from the socket to its reply's being sent."""
        self._complained = 0.0
        self._stopping = False

    def stop(self) -> None:
        """End `run_until_stopped`, within SIGNAL_PATIENCE."""
        self._stopping = True

    def run_until_stopped(self, wait: Literal["block", "spin"]) -> None:
        """Serve in a thread of its own, where no signal comes."""
        capabilities.shed()
        with contextlib.suppress(Stop):
            self.run(wait)

    def run(self, wait: Literal["block", "spin"]) -> NoReturn:
        """Serve until Stop is raised in this thread."""
        respond = self._filling(self._cache) if self._cache else self._plain
        receive, send = transport(self._udp)
        ends = self.loops.ends if self.loops else None
        # One buffer for all: malloc of 64 KiB is slow where a compiler has used the heap.
        buffer = memoryview(bytearray(DATAGRAM_MAX))
        self._udp.setblocking(wait == "block")
        # Without it, a signal just before the call would wait for the next request.
        self._udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, SIGNAL_PATIENCE)
        clock, since = time.perf_counter_ns, 0
        for timed in itertools.cycle(_TURNS):  # cheaper than to count
            if self._stopping:
                break
            try:
                length, origin = receive(buffer)
            except BlockingIOError:
                continue
            except OSError as error:
                raise ServerError(f"cannot receive requests: {error.strerror}") from error
            if timed:
                since = clock()
            request = buffer[:length].tobytes()
            try:
                reply = respond(request)
            except Exception as error:
                self.handler_errors += 1
                self._complain(
                    "the handler failed; its request goes unanswered", request, failure=error
                )
                continue
            if reply is None or (ends and ends(origin, request, reply)):
                continue
            self.replies += 1  # counted first: whoever has the reply finds it in the status
            try:
                send(reply, origin)
            except OSError as error:
                self.replies -= 1
                self.send_errors += 1
                self._complain("a reply could not be sent", request, error=error.strerror)
                continue
            if timed:
                self.times.note(clock() - since)
        raise Stop

    def _plain(self, request: bytes) -> bytes | None:
        reply = self._handler(request)
        if type(reply) is bytes:
            return reply
        checked = as_reply(reply)
        return checked.data if checked else None

    def _filling(self, cache: Cache) -> Respond:
        handler, take = self._handler, cache.take
        fill = _marking(cache.fill, self.loops.known) if self.loops else cache.fill

        def respond(request: bytes) -> bytes | None:
            token = take(request)
            reply = handler(request)
            if type(reply) is bytes:
                fill(request, reply, token)
                return reply
            if type(reply) is Reply and not reply.cache and type(reply.data) is bytes:
                return reply.data
            checked = as_reply(reply)
            if checked is None:
                return None
            if checked.cache:
                fill(request, checked.data, token, checked.ttl)
            return checked.data

        return respond

    def _complain(
        self,
        message: str,
        request: bytes,
        *,
        failure: BaseException | None = None,
        **facts: object,
    ) -> None:
        """Log at most one complaint a second: whoever sends requests must not fill the disk."""
        now = time.monotonic()
        if now - self._complained >= 1:
            self._complained = now
            log.error(message, failure=failure, request=request[:32].hex(), **facts)
