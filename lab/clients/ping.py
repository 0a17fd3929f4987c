# SPDX-License-Identifier: Apache-2.0
"""The closed-loop client: one request at a time from a UDP socket, every reply checked."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Literal

import msgspec

from carom.errors import ExperimentError, UsageError
from carom.lab.clients.requests import Plan
from carom.lab.clients.resolved import resolved
from carom.lab.record import RoundTrips
from carom.lab.stats.distribution import round_trips
from carom.settings import Option, check, seconds

DATAGRAM_MAX = 65_535
_SLEEP_MARGIN = 200_000  # ns: the last part of the wait for a request's time, done by spinning
_ABANDONED_MAX = 64
_TIMEOUT_MAX = 3600.0
_GRACE = 0.2  # seconds at the end for replies to requests that were given up

Expect = Callable[[bytes], bytes | None]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to ask. The run ends after `count` requests, or with the block in which `seconds` end.
    With a hot share, `count` is rounded up to whole blocks, so that the share is exact.

    Times are in seconds.
    """

    count: Annotated[
        int | None, Option("Requests; default 1000.", 1, example="100", short="-c", standing="")
    ] = 1000
    seconds: Annotated[
        float | None, Option("Ask for this long instead.", 1e-6, 1e9, example="10")
    ] = None
    rate: Annotated[
        float, Option("Requests a second; 0: as fast as replies come.", 0, 1e9, example="100")
    ] = 0.0
    timeout: Annotated[
        float,
        Option(
            "When a request is given up.",
            1e-6,
            _TIMEOUT_MAX,
            "500ms",
            read=seconds,
            unit=" s",
            metavar="TIME",
            standing="1s",
        ),
    ] = 1.0
    wait: Annotated[
        Literal["block", "spin"], Option("How a reply is waited for; spin burns a CPU.")
    ] = "block"
    cpu: Annotated[int | None, Option("Run on this CPU only.", 0, example="1")] = None

    def checked(self) -> Options:
        """The same options. Raises UsageError that names the first wrong one."""
        check(self)
        return self


class Ping(msgspec.Struct, kw_only=True):
    """The result: requests sent, how many of them to hot keys, and their round trips.

    `wall` is the seconds from the first request to the last reply; `round_trips.seconds` leaves out
    the time between two blocks of requests.
    """

    sent: int
    hot: int
    complete: bool
    round_trips: RoundTrips
    wall: float = 0.0


class Broken(ExperimentError):
    """The server was lost after some replies; `result` has what was measured until then."""

    def __init__(self, error: ExperimentError, result: Ping):
        super().__init__(str(error), hint=error.hint)
        self.result = result


class _Counts:
    """Tallies of one run; times in nanoseconds."""

    def __init__(self) -> None:
        self.samples: list[int] = []
        self.corrected: list[int] = []
        self.given_up = 0
        self.duplicated = 0
        self.reordered = 0
        self.wrong = 0
        self.sent = 0
        self.hot = 0
        self.nanoseconds = 0
        self.began = 0
        self.ended = 0


class Client:
    """A socket for one service, replaced when a request is given up.

    So a late reply comes to the old socket and is never taken for the next request's.
    """

    def __init__(self, address: str, port: int, options: Options):
        self._target = resolved(address, port)
        self._options = options
        self._abandoned: list[socket.socket] = []
        self._counts = _Counts()
        self._due = 0  # with a rate, when the next request is due; 0 before the first
        self._open()

    def _open(self) -> None:
        options = self._options
        self._socket = socket.socket(self._target.family, socket.SOCK_DGRAM)
        try:
            self._connect()
        except OSError as error:
            self._socket.close()
            raise self._target.refused(error) from error
        if options.wait == "spin":
            self._socket.setblocking(False)
        else:  # a timeout of Python's own would cost every reply a poll()
            whole, part = divmod(options.timeout, 1)
            timeout = struct.pack("@ll", int(whole), int(part * 1e6))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def _connect(self) -> None:
        """Connect from another port than the service's, which the kernel might choose by chance.

        carom never answers a request from the service's port: replies could go back and forth.
        """
        while True:
            self._socket.connect(self._target.address)
            if self._socket.getsockname()[1] != self._target.address[1]:
                return
            same = self._socket
            self._socket = socket.socket(same.family, socket.SOCK_DGRAM)
            self._abandoned.append(same)  # keeps that port taken

    def _receive(self) -> Callable[[], bytes]:
        """A function that waits for a reply; it raises BlockingIOError after the timeout."""
        recv = self._socket.recv
        if self._options.wait == "block":
            return lambda: recv(DATAGRAM_MAX)
        timeout, clock = self._options.timeout, time.perf_counter

        def spin() -> bytes:
            end = clock() + timeout
            while True:
                try:
                    return recv(DATAGRAM_MAX)
                except BlockingIOError:
                    if clock() > end:
                        raise

        return spin

    def run(self, plan: Plan, expect: Expect | None) -> Ping:
        """Ask as planned; Ctrl-C ends it early and keeps what was done.

        Raises UsageError, or ExperimentError when nothing listens on the port: Broken if something
        did at first.
        """
        complete = False
        try:
            with contextlib.suppress(KeyboardInterrupt), pinned(self._options.cpu), _without_gc():
                self._ask_all(plan.checked(), expect)
                complete = True
        except ExperimentError as error:
            if not self._counts.samples:
                raise
            raise Broken(error, self._result(complete)) from error
        return self._result(complete)

    def _ask_all(self, plan: Plan, expect: Expect | None) -> None:
        options, counts = self._options, self._counts
        end = time.monotonic() + options.seconds if options.seconds else None
        for block in plan.blocks():
            payloads = block.payloads
            if options.count is not None and plan.hot_share is None:
                payloads = payloads[: options.count - counts.sent]
            self._ask(payloads, expect)
            counts.hot += block.hot
            self._collect_late()
            done = options.count is not None and counts.sent >= options.count
            if done or (end and time.monotonic() >= end):
                break

    def _ask(self, payloads: list[bytes], expect: Expect | None) -> None:
        expected = [expect(payload) for payload in payloads] if expect else payloads
        counts, clock, period = self._counts, time.perf_counter_ns, self._period()
        samples, corrected = counts.samples, counts.corrected
        send, receive, stray = self._socket.send, self._receive(), self._poll.poll
        begin = clock()
        due = self._due or begin
        try:
            for payload, right in zip(payloads, expected, strict=True):
                if period:
                    _wait_until(due)
                if stray(0):
                    counts.duplicated += self._drain(self._socket)
                start = clock()
                counts.sent += 1
                try:
                    send(payload)
                    reply = receive()
                    end = clock()
                except BlockingIOError:
                    self._give_up()
                    send, receive, stray = self._socket.send, self._receive(), self._poll.poll
                else:
                    if expect and reply != right:
                        counts.wrong += 1
                    else:
                        samples.append(end - start)
                        if period:
                            corrected.append(end - due)
                due += period
        except ConnectionRefusedError as error:
            raise ExperimentError(
                f"nothing listens on {self._target.given} port {self._target.address[1]}"
                + (" any more" if samples else ""),
                hint="see why it ended" if samples else "start it first: `carom serve`",
            ) from error
        except OSError as error:
            raise ExperimentError(f"cannot send: {error.strerror}") from error
        finally:
            self._due = due
            counts.began = counts.began or begin
            counts.ended = clock()
            counts.nanoseconds += counts.ended - begin

    def _period(self) -> int:
        return round(1e9 / self._options.rate) if self._options.rate else 0

    def _give_up(self) -> None:
        self._counts.given_up += 1
        self._abandoned.append(self._socket)
        if len(self._abandoned) > _ABANDONED_MAX:
            self._abandoned.pop(0).close()
        self._open()

    @staticmethod
    def _drain(drained: socket.socket) -> int:
        count = 0
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            while drained.recv(DATAGRAM_MAX, socket.MSG_DONTWAIT) is not None:
                count += 1
        return count

    def _collect_late(self) -> None:
        for abandoned in self._abandoned:
            self._counts.reordered += self._drain(abandoned)

    def _result(self, complete: bool) -> Ping:
        counts = self._counts
        if self._abandoned:
            time.sleep(_GRACE)
            self._collect_late()
        counts.duplicated += self._drain(self._socket)
        record = functools.partial(
            round_trips,
            lost=max(0, counts.given_up - counts.reordered),
            duplicated=counts.duplicated,
            reordered=counts.reordered,
            wrong=counts.wrong,
            seconds=counts.nanoseconds / 1e9,
        )
        corrected = record(counts.corrected) if self._options.rate else None
        return Ping(
            sent=counts.sent,
            hot=counts.hot,
            complete=complete,
            round_trips=record(counts.samples, corrected=corrected),
            wall=(counts.ended - counts.began) / 1e9,
        )

    def close(self) -> None:
        """Close all sockets."""
        for opened in (*self._abandoned, self._socket):
            opened.close()


def ping(
    address: str, port: int, plan: Plan, options: Options, expect: Expect | None = None
) -> Ping:
    """Ask a service as planned and measure every round trip.

    `expect` says what the right reply to a request is; without it none is compared. Raises
    UsageError for an impossible plan or address, ExperimentError when nothing listens, and Broken,
    with what was measured, when nothing listens any more.
    """
    with contextlib.closing(Client(address, port, options.checked())) as client:
        return client.run(plan, expect)


def _wait_until(due: int) -> None:
    left = due - time.perf_counter_ns()
    if left > _SLEEP_MARGIN:
        time.sleep((left - _SLEEP_MARGIN) / 1e9)
    while time.perf_counter_ns() < due:
        pass


@contextlib.contextmanager
def pinned(cpu: int | None) -> Iterator[None]:
    """Inside, this thread runs on one CPU. Raises UsageError."""
    before = os.sched_getaffinity(0)
    if cpu is not None:
        try:
            os.sched_setaffinity(0, {cpu})
        except OSError as error:
            raise UsageError(f"cannot run on CPU {cpu}", hint=f"allowed are {before}") from error
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def _without_gc() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
