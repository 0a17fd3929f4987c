# SPDX-License-Identifier: Apache-2.0
"""Resources that are written and read through `carom front --protocol coap`, by many at once.

A value is a number that rises with each PUT. No reader gets one that is older than the last PUT
that was acknowledged before it asked, or that was not written yet; and no reply that is not one to
its request.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from carom.vm.netns import SERVER_IPV6
from netns.coap_server import PORT, AIOCoAP, LibCoAP, path
from netns.line import Line
from netns.process import Carom
from netns.torture import ANSWER, ASKS, READERS, Cell, Shared, crowd, enough, torture
from reference.coap import ACK, CON, CONTENT, GET, HOST, NON, PUT, QUERY, Malformed, Message, decode

KEYS = 8
PAUSE = 0.004
"""Seconds between two writes."""

FRONT = ("--protocol", "coap", "--ttl", "1h", "--prefix-rate", "0", "--total-rate", "0")
HOOKS = {
    "native": ("--mode", "native"),
    "generic": ("--mode", "generic"),
    "tc": ("--hook", "tc"),
}
SERVERS = {"libcoap": LibCoAP, "aiocoap": AIOCoAP}


class Asker:
    """Asks one server; after a loss from a new port: what comes late is nobody's."""

    def __init__(self, address: str):
        self._to = address
        self._family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._udp = self._connect()

    def _connect(self) -> socket.socket:
        udp = socket.socket(self._family, socket.SOCK_DGRAM)
        udp.connect((self._to, PORT))
        udp.settimeout(ANSWER)
        return udp

    def ask(self, request: Message) -> Message | None:
        """The reply with its token, or None for a loss; Malformed for what is no message."""
        self._udp.send(request.encode())
        try:
            while True:
                reply = decode(self._udp.recv(65_536))
                if reply.type == CON:  # a separate response
                    self._udp.send(b"\x60\0" + reply.id.to_bytes(2))
                if reply.code and reply.token == request.token:
                    return reply
        except (TimeoutError, ConnectionRefusedError):
            self.move()
            return None

    def move(self) -> None:
        """Ask from a new port: there all Message IDs are new."""
        self._udp.close()
        self._udp = self._connect()


def name_of(key: int) -> str:
    """A resource's."""
    return f"things/{key}"


def write(shared: Shared, address: str) -> None:
    """PUT to one resource after another, and note when each was acknowledged."""
    asker = Asker(address)
    for number in itertools.count(1):
        key = number % KEYS
        shared.started[key] = number
        token = number.to_bytes(4)
        value = b"%d:%d" % (key, number)
        request = Message(CON, PUT, number & 0xFFFF, token, path(name_of(key)), value)
        reply = asker.ask(request)
        while reply is None:  # nobody knows whether it was done: it is done once more
            shared.cells[Cell.LOST] += 1
            reply = asker.ask(request)
        assert reply.code >> 5 == 2
        shared.acknowledged[key] = number
        shared.cells[Cell.WRITES] += 1
        time.sleep(PAUSE)
        if shared.cells[Cell.STOP]:
            return


def is_reply(reply: Message, request: Message, key: int) -> int | None:
    """The number in a reply; None for one that is none to this request."""
    told, _, number = (reply.payload or b"").partition(b":")
    right = reply.code == CONTENT and told == b"%d" % key and number.isdigit()
    if request.type == CON and reply.type == ACK:
        right = right and reply.id == request.id
    return int(number) if right and reply.token == request.token else None


def read(shared: Shared, address: str, reader: int) -> None:
    """GET, confirmable or not, by tokens of several lengths, hosts and queries, and judge."""
    chance, asker, cells = random.Random(reader), Asker(address), shared.cells
    for number in itertools.count(1):
        if cells[Cell.STOP]:
            return
        if not number % (1 << 16):
            asker.move()
        key = chance.randrange(KEYS)
        options = path(name_of(key))
        if chance.random() < 0.2:
            options = [(HOST, b"example.org"), *options]
        if chance.random() < 0.2:
            options = [*options, (QUERY, b"a=b")]
        token = chance.randbytes(chance.choice((0, 2, 2, 8)))
        type = chance.choice((CON, CON, NON))
        request = Message(type, GET, number & 0xFFFF, token, options)
        least = shared.acknowledged[key]
        if not least:
            continue
        try:
            reply = asker.ask(request)
        except Malformed:
            cells[Cell.UNKNOWN] += 1
            continue
        most = shared.started[key]
        if reply is None:
            cells[Cell.LOST] += 1
            continue
        cells[Cell.ASKS + reader] += 1
        found = is_reply(reply, request, key)
        if found is None or found > most:
            cells[Cell.UNKNOWN] += 1
        elif found < least:
            cells[Cell.STALE] += 1


@contextlib.contextmanager
def changing(
    line: Line,
    server: str,
    address: str,
    *arguments: str,
    writer: Callable[[Shared, str], None] = write,
) -> Iterator[tuple[Carom, Shared]]:
    """A front before a server, a writer and readers."""
    shared = Shared(KEYS)
    jobs = [functools.partial(read, shared, address, reader) for reader in range(READERS)]
    with (
        SERVERS[server](line.server),
        Carom(line.server, *FRONT, *arguments, command="front") as carom,
        crowd(line.client, shared, functools.partial(writer, shared, address), *jobs),
    ):
        yield carom, shared


@pytest.mark.parametrize("address", ["198.18.0.2", SERVER_IPV6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("server", SERVERS)
def test_nothing_is_stale(
    own_line: Line, long_form: bool, server: str, hook: str, address: str
) -> None:
    if not long_form and (hook == "generic" or (server == "aiocoap" and hook == "tc")):
        pytest.skip("in the long form")
    with changing(own_line, server, address, *HOOKS[hook]) as (carom, shared):
        torture(carom, shared, enough(shared, long_form, 100))
        counters = carom.counters()
    print(shared, {name: n for name, n in counters.items() if n})
    assert shared.violations() == (0, 0)
    assert counters["hit"] >= 1000
    assert shared.asks() >= ASKS


def test_the_judges_find_what_is_stale(own_line: Line) -> None:
    """Were a write acknowledged a little before it is: violations are found."""

    def early(shared: Shared, address: str) -> None:
        asker = Asker(address)
        for number in itertools.count(1):
            key = number % KEYS
            shared.started[key] = shared.acknowledged[key] = number + 1
            value = b"%d:%d" % (key, number)
            asker.ask(Message(CON, PUT, number & 0xFFFF, b"w", path(name_of(key)), value))
            shared.cells[Cell.WRITES] += 1
            if shared.cells[Cell.STOP]:
                return

    with changing(own_line, "libcoap", "198.18.0.2", writer=early) as (carom, shared):
        torture(carom, shared, lambda: shared.cells[Cell.STALE] > 0)
    assert shared.cells[Cell.UNKNOWN] == 0
