# SPDX-License-Identifier: Apache-2.0
"""The key-value client: goes through a behaviour on one UDP socket and tells what came of it."""

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
"""Seconds that a GET's reply is waited for, as published."""

LAG = 0.01
"""Seconds that a paced client may catch up: what it was held up for longer is not made up."""

_DATAGRAM_MAX = 65_535
_NUMBER = re.compile(rb"-?\d{1,19}")
_REFUSALS = (errno.ECONNREFUSED, errno.EHOSTUNREACH)  # no socket there; a firewall's answer

Tell = Callable[[Step, bytes | None], None]
"""Told of each step once it is done, and of the reply where one came."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to send. `rate` in packets a second (0: as fast as it goes); `patience` in seconds is
    how long a GET's reply is waited for.
    """

    rate: float = 0.0
    patience: float = PATIENCE

    def checked(self) -> Options:
        """The same options. Raises UsageError that names what cannot be."""
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
    `sent_invalid` all others. `refused` is how often the other end said that nobody listens, which
    a send or a wait for a reply is told of; such a send sent nothing and is not among the sent.
    `values` has what each GET was replied, in order: None where nothing came in time. `late` counts
    replies that came after that. `seconds` last from the first packet to the last, waits included,
    and `rate` is packets sent in each of them; `asked` is what rate was to be, 0 for any. A run
    that was interrupted is not `complete`.
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
    """Says how many packets are due, and sleeps until one is: never a loop that waits.

    So packets leave in small bursts where a sleep takes longer than the time between two.
    """

    def __init__(self, rate: float):
        self._rate = rate
        self._due = time.perf_counter()

    def take(self, wanted: int) -> int:
        """How many of these packets to send now, at least one."""
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
        """The time since the last packet was meant to be spent: nothing is overdue."""
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
        """Go through a behaviour. Ctrl-C ends it early and keeps what was done.

        Raises UsageError for a choice that cannot be, ExperimentError where sending fails or a
        reply is no number.
        """
        return self.go(choice.steps(), tell, name=choice.name)

    def go(self, steps: Iterable[Step], tell: Tell | None = None, *, name: str = "") -> Result:
        """The same with steps that are no behaviour's."""
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
        # A reply says nothing of its request: one that is here already is not this GET's.
        self._forget_late(result)
        self._send(step, pacer, result)
        result.values.append(None)  # its place, whatever ends the wait
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
                    for _ in turns:  # the fast path; after a refusal it goes on where it was
                        send(payload)
                    break
                except OSError as error:
                    if error.errno not in _REFUSALS:
                        self._fail(error)
                    refused += 1
        finally:  # also where Ctrl-C ends it: what is left was not sent
            sent = count - operator.length_hint(turns) - refused
            result.refused += refused
            if step.valid:
                result.sent_valid += sent
                result.sent_puts += sent if step.word == "PUT" else 0
            else:
                result.sent_invalid += sent

    def _reply(self, result: Result) -> bytes | None:
        """What comes within the patience."""
        end = time.perf_counter() + self._options.patience
        while True:
            left = max(0.0, end - time.perf_counter())
            if not self._poll.poll(left * 1e3):
                return None
            reply = self._receive(result)
            if reply is not None:
                return reply

    def _forget_late(self, result: Result) -> None:
        """Count what has come that nobody waited for."""
        while self._poll.poll(0):
            if self._receive(result) is not None:
                result.late += 1

    def _receive(self, result: Result) -> bytes | None:
        """A datagram; None for a refusal, or where a datagram was dropped for its checksum."""
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
                f"{self._where} replied {reply[:32]!r} to a GET, which is no number",
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
    """Go through a behaviour towards a key-value server, by a socket of its own.

    Raises what Client and its `run` raise.
    """
    choice.checked()
    with contextlib.closing(Client(address, port, options or Options())) as client:
        return client.run(choice, tell)
