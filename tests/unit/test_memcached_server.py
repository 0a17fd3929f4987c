# SPDX-License-Identifier: Apache-2.0
"""What memcached.py says of requests, against what a real memcached does with them."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from carom.protocols.memcached import SPEC
from carom.protocols.protocol import Intent, Request
from prog.memcached_commands import KEYS, SEED, commands, datagram
from prog.memcached_stream import Model, streams
from reference import memcached
from reference.memcached import understand

REQUESTS = 6_000
STREAMS = 800
FENCE = 0xFFFF
"""The request id of what is sent behind a request, to learn that it is done."""

STORED = b"".join(b"set %b 5 0 2\r\n4%d\r\n" % (key, n % 10) for n, key in enumerate(KEYS))
META = b" t f c s v k\r\n"

pytestmark = pytest.mark.skipif(not shutil.which("memcached"), reason="memcached is not installed")


class Server:
    """A memcached of one thread on the loopback, asked over UDP and looked at over TCP."""

    def __init__(self, stack: ExitStack):
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            port = str(reserved.getsockname()[1])
        user = ["-u", "root"] if os.geteuid() == 0 else []
        argv = [
            "memcached",
            *user,
            "-l",
            "127.0.0.1",
            "-p",
            port,
            "-U",
            port,
            "-t",
            "1",
            "-m",
            "16",
        ]
        process = stack.enter_context(
            subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
        stack.callback(process.terminate)
        self.tcp = self._connected(int(port), process)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        stack.enter_context(self.tcp)
        stack.enter_context(self.udp)
        self.udp.connect(("127.0.0.1", int(port)))
        self.udp.settimeout(5)
        self.tcp.settimeout(5)

    @staticmethod
    def _connected(port: int, process: subprocess.Popen[bytes]) -> socket.socket:
        while True:
            try:
                return socket.create_connection(("127.0.0.1", port))
            except ConnectionRefusedError:
                assert process.poll() is None, "memcached did not start"

    def ask(self, text: bytes) -> bytes:
        """What comes for commands over TCP."""
        self.tcp.sendall(text + b"mn\r\n")
        reply = b""
        while not reply.endswith(b"MN\r\n"):
            received = self.tcp.recv(65536)
            assert received
            reply += received
        return reply

    def pour(self, stream: bytes) -> None:
        """A connection of its own, from its first byte to its last; it has been dealt with."""
        with socket.create_connection(self.tcp.getpeername()) as connection:
            connection.settimeout(5)
            connection.sendall(stream)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass

    def reset(self) -> None:
        """Store the same again under every key, and nothing else."""
        self.ask(b"flush_all\r\nverbosity 0\r\n")
        assert self.ask(STORED).count(b"STORED") == len(KEYS)

    def items(self, *but: bytes) -> bytes:
        """All that is stored under the keys: value, flags, cas number and expiry."""
        return self.ask(b"".join(b"mg " + key + META for key in KEYS if key not in but))

    def stores(self) -> int:
        """How often anything was stored under any key."""
        lines = self.ask(b"stats\r\n").split(b"\r\n")
        return next(int(line.split()[2]) for line in lines if line.startswith(b"STAT total_items"))

    def send(self, request: bytes) -> list[bytes]:
        """The datagrams that come for a request; it has been dealt with on return."""
        self.udp.send(request)
        self.udp.send(datagram(b"mn\r\n", request_id=FENCE))
        received: list[bytes] = []
        while not received or received[-1][:2] != FENCE.to_bytes(2, "big"):
            received.append(self.udp.recv(65536))
        return received[:-1]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with ExitStack() as stack:
        yield Server(stack)


def check_read(request: bytes, found: Request, replies: list[bytes]) -> None:
    """A READ is answered by one datagram that names its key, or says that there is none."""
    (reply,) = replies
    learned = memcached.learn(reply)
    if learned is None:
        assert reply == request[:2] + datagram(b"END\r\n")[2:]
    else:
        key, stored = learned
        assert key == found.key
        assert memcached.answer(stored, request) == reply


def test_requests_do_what_they_are_taken_for(server: Server) -> None:
    rng = random.Random(SEED)
    seen: Counter[str] = Counter()
    server.reset()
    for request in commands(rng, REQUESTS):
        found = understand(request)
        if found.intent is Intent.WRITE_ALL or request[:2] == b"\xff\xff":
            continue
        written = (SPEC.slot_key_of(found.key),) if found.intent is Intent.WRITE else ()
        before, stores = server.items(*written), server.stores()
        replies = server.send(request)
        assert server.items(*written) == before, request
        seen[found.intent.name] += 1
        if found.intent is Intent.READ:
            check_read(request, found, replies)
            seen["hit"] += memcached.learn(replies[0]) is not None
        if found.intent is not Intent.WRITE:
            assert server.stores() == stores, request
            continue
        assert replies or found.quiet, request
        seen["quiet"] += not replies
        server.reset()
    assert all(seen[kind] > 50 for kind in ("OTHER", "READ", "WRITE", "hit", "quiet")), seen


def test_streams_write_no_more_than_they_are_taken_for(server: Server) -> None:
    rng = random.Random(SEED)
    seen: Counter[str] = Counter()
    for segments in streams(rng, STREAMS):
        model = Model()
        writes = [write for segment in segments for write in model.feed(segment)]
        if any(write.intent is Intent.WRITE_ALL for write in writes):
            continue
        server.reset()
        named = {SPEC.slot_key_of(write.key) for write in writes}
        before, others = server.items(), server.items(*named)
        server.pour(b"".join(segments))
        assert server.items(*named) == others, segments
        seen["kept"] += len(named) < len(KEYS)
        seen["changed"] += server.items() != before
    assert seen["kept"] > 100 and seen["changed"] > 100, seen


CHANGES = [
    b"flush_all\r\n",
    b"get k\r\nset k 0 0 1\r\nx\r\n",
    b"get k l\ndelete k\n",
    b" delete k\r\n",
    b"delete  k\r\n",
    b"set k x 0 10\r\ndelete k\r\n\r\n",
    b"set k 0 0 10 a b\r\ndelete k\r\n\r\n",
    b"ms k\r\ndelete k\r\n",
    b"md aw== b\r\n",
    b"gat 100 l k\r\n",
    b"mn\r\ndelete k\r\n",
    b"\x80\x04\0\1\0" + bytes(6) + b"\1" + bytes(12) + b"k",
]


@pytest.mark.parametrize("text", CHANGES, ids=repr)
@pytest.mark.parametrize("fields", [{}, {"sequence": 3, "reserved": 9}], ids=["proper", "odd"])
def test_what_is_taken_for_a_write_of_anything_does_write(
    server: Server, text: bytes, fields: dict[str, int]
) -> None:
    server.reset()
    before = server.items()
    assert understand(datagram(text, **fields)).intent is Intent.WRITE_ALL
    server.send(datagram(text, **fields))
    assert server.items() != before


def test_a_part_of_a_message_is_dropped(server: Server) -> None:
    server.reset()
    before = server.items()
    for total in (0, 2, 257):
        assert server.send(datagram(b"delete k\r\n", total=total)) == []
    assert server.items() == before


def test_a_store_without_its_data_takes_the_next_datagram(server: Server) -> None:
    """Which is why it may write anything, at any time: what follows is not what it seems."""
    server.reset()
    value = datagram(b"get k\r\n")
    request = datagram(b"set k 0 0 %d\r\n" % (len(value) - 2))
    assert understand(request).intent is Intent.WRITE_ALL
    server.udp.send(request)
    server.udp.send(value)
    assert server.udp.recv(65536)[8:] == b"STORED\r\n"
    assert server.ask(b"get k\r\n").startswith(b"VALUE k 0 %d\r\n" % (len(value) - 2))
