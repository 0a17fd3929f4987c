# SPDX-License-Identifier: Apache-2.0
"""The key-value client: runs a behaviour on one UDP socket and counts the results."""

from __future__ import annotations

import contextlib
import errno
import itertools
import operator
import re
import select
import socket
import time
from collections.abc import Callable, Iterable
from typing import NoReturn

import msgspec

from carom.errors import ExperimentError, UsageError
from carom.lab.clients.behaviours import Choice, Step
from carom.lab.clients.resolved import resolved

PATIENCE = 0.01
"""How long a GET's reply is waited for, in seconds, as published."""

LAG = 0.01
"""How many seconds of delay a paced client makes up for; it skips what it missed before."""

_DATAGRAM_MAX = 65_535
_NUMBER = re.compile(rb"-?\d{1,19}")
_REFUSALS = (errno.ECONNREFUSED, errno.EHOSTUNREACH)  # no socket there; rejected by a firewall

Tell = Callable[[Step, bytes | None], None]
"""Called after each step, with the step and its reply if one came."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to send: `rate` in packets a second (0: as fast as possible), and `patience`, how long a
    GET's reply is waited for, in seconds.
    """

    rate: float = 0.0
    patience: float = PATIENCE

    def checked(self) -> Options:
        """The same options. Raises UsageError that names the first wrong one."""
        if self.rate != 0 and not 1e-3 <= self.rate <= 1e9:
            raise UsageError(
                f"rate {self.rate:g} is out of range", hint="0, or 0.001 to 1e9 packets a second"
            )
        if not 0 <= self.patience <= 3600:
            raise UsageError(
                f"a patience of {self.patience:g} s is out of range", hint="an hour at most"
            )
        return self


class Result(msgspec.Struct, kw_only=True):
    """What a client did.

    `sent_valid` counts requests that the server understands, `sent_puts` the PUTs among them,
    `sent_invalid` all others. `refused` is how often the other end refused a packet, which a later
    send or wait reports; such a send sends nothing and is not counted as sent. `values` has the
    reply to each GET, in order; None where none came in time. `late` counts replies that came
    later. `seconds` is the time from the first packet to the last, with waits, and `rate` the
    packets sent per second of it; `asked` is the rate asked for, 0 for any. A run that was
    interrupted is not `complete`.
    """

    behaviour: str
    sent_valid: int = 0
    sent_puts: int = 0
    sent_invalid: int = 0
    refused: int = 0
    late: int = 0
    values: list[int | None] = []
    seconds: float = 0.0
    rate: float = 0.0
    asked: float = 0.0
    complete: bool = False


class Pacer:
    """Says how many packets are due, and sleeps until one is; it never waits in a loop.

    So packets leave in small bursts where a sleep takes longer than the time between packets.
    """

    def __init__(self, rate: float):
        self._rate = rate
        self._due = time.perf_counter()

    def take(self, wanted: int) -> int:
        """How many of `wanted` packets to send now: at least one."""
        if not self._rate:
            return wanted
        ahead = self._due - time.perf_counter()
        if ahead > 0:
            time.sleep(ahead)
        now = time.perf_counter()
        self._due = max(self._due, now - LAG)
        due = min(wanted, 1 + max(0, int((now - self._due) * self._rate)))
        self._due += due / self._rate
        return due

    def rest(self) -> None:
        """Forget packets that became due since the last one: the wait was intended."""
        self._due = max(self._due, time.perf_counter())


class Client:
    """A socket towards one key-value server."""

    def __init__(self, address: str, port: int, options: Options):
        """Raises UsageError for an address that cannot be sent to."""
        self._options = options.checked()
        self._where = f"{address} port {port}"
        self._socket = _connected(address, port)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def run(self, choice: Choice, tell: Tell | None = None) -> Result:
        """Run a behaviour. Ctrl-C ends it early and keeps what was done.

        Raises UsageError for an impossible choice, ExperimentError where sending fails or a reply
        is not a number.
        """
        return self.go(choice.steps(), tell, name=choice.name)

    def go(self, steps: Iterable[Step], tell: Tell | None = None, *, name: str = "") -> Result:
        """The same with steps of one's own."""
        result = Result(behaviour=name, asked=self._options.rate)
        pacer = Pacer(self._options.rate)
        begin = time.perf_counter()
        with contextlib.suppress(KeyboardInterrupt):
            for step in steps:
                reply = self._go(step, pacer, result)
                if tell:
                    tell(step, reply)
            result.complete = True
        result.seconds = time.perf_counter() - begin
        self._forget_late(result)
        result.rate = (result.sent_valid + result.sent_invalid) / result.seconds
        return result

    def _go(self, step: Step, pacer: Pacer, result: Result) -> bytes | None:
        if step.word != "GET":
            self._send(step, pacer, result)
            return None
        # A reply does not name its request: one that is here already is not this GET's.
        self._forget_late(result)
        self._send(step, pacer, result)
        result.values.append(None)  # an entry for this GET, however the wait ends
        reply = self._reply(result)
        pacer.rest()
        if reply is not None:
            result.values[-1] = self._value(reply)
        return reply

    def _send(self, step: Step, pacer: Pacer, result: Result) -> None:
        left = step.times
        while left:
            due = pacer.take(left)
            self._burst(step, due, result)
            left -= due

    def _burst(self, step: Step, count: int, result: Result) -> None:
        send, payload = self._socket.send, step.payload
        turns = itertools.repeat(None, count)
        refused = 0
        try:
            while True:
                try:
                    for _ in turns:  # the fast path; after a refusal it continues here
                        send(payload)
                    break
                except OSError as error:
                    if error.errno not in _REFUSALS:
                        self._fail(error)
                    refused += 1
        finally:  # also after Ctrl-C: the rest was not sent
            sent = count - operator.length_hint(turns) - refused
            result.refused += refused
            if step.valid:
                result.sent_valid += sent
                result.sent_puts += sent if step.word == "PUT" else 0
            else:
                result.sent_invalid += sent

    def _reply(self, result: Result) -> bytes | None:
        """The first reply within the patience, or None."""
        end = time.perf_counter() + self._options.patience
        while True:
            left = max(0.0, end - time.perf_counter())
            if not self._poll.poll(left * 1e3):
                return None
            reply = self._receive(result)
            if reply is not None:
                return reply

    def _forget_late(self, result: Result) -> None:
        """Count as late, and drop, the replies that have come."""
        while self._poll.poll(0):
            if self._receive(result) is not None:
                result.late += 1

    def _receive(self, result: Result) -> bytes | None:
        """A datagram; None for a refusal, or where one was dropped for its checksum."""
        try:
            return self._socket.recv(_DATAGRAM_MAX, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno not in _REFUSALS:
                self._fail(error)
            result.refused += 1
            return None

    def _value(self, reply: bytes) -> int:
        if not _NUMBER.fullmatch(reply):
            raise ExperimentError(
                f"{self._where} replied {reply[:32]!r} to a GET, which is not a number",
                hint="does a key-value server listen there? `carom serve --app kv`",
            )
        return int(reply)

    def _fail(self, error: OSError) -> NoReturn:
        raise ExperimentError(
            f"cannot send to {self._where}: {error.strerror}", hint="is there a route?"
        ) from error

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _connected(address: str, port: int) -> socket.socket:
    """A UDP socket connected to the first address of a name. Raises UsageError."""
    target = resolved(address, port)
    udp = socket.socket(target.family, socket.SOCK_DGRAM)
    try:
        udp.connect(target.address)
    except OSError as error:
        udp.close()
        raise target.refused(error) from error
    return udp


def run(
    address: str,
    port: int,
    choice: Choice,
    options: Options | None = None,
    tell: Tell | None = None,
) -> Result:
    """Run a behaviour against a key-value server, on a socket of its own.

    Raises what Client and its `run` raise.
    """
    choice.checked()
    with contextlib.closing(Client(address, port, options or Options())) as client:
        return client.run(choice, tell)
