# SPDX-License-Identifier: Apache-2.0
"""A real memcached in a namespace, and clients of it over UDP and TCP."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from carom.kernel.resource import Resource
from carom.vm.namespace import Namespace
from netns.process import DEADLINE, until
from netns.sums import looks_half_made

PORT = 11211
_HEADER = struct.Struct("!HHHH")
_HOP_OPTIONS = bytes((0, 0, 1, 4, 0, 0, 0, 0))  # next header and length (set on sending); PadN


def set_of(key: bytes, value: bytes) -> bytes:
    """The command that stores a value."""
    return b"set %b 0 0 %d\r\n%b\r\n" % (key, len(value), value)


class Memcached(Resource):
    """memcached with one thread; skips the test where it is not installed."""

    def __init__(
        self,
        namespace: Namespace,
        port: int = PORT,
        *,
        threads: int = 1,
        addresses: str = "::,0.0.0.0",
        options: tuple[str, ...] = (),
        prefix: tuple[str, ...] = (),
        vrf: str = "",
        local: str = "127.0.0.1",
    ):
        """`prefix` is what starts it; or it is in a `vrf`, where `local` is its host's address."""
        binary = shutil.which("memcached")
        if not binary:
            pytest.skip("memcached is not installed")
        where = ("-l", addresses, "-p", str(port), "-U", str(port))
        if vrf:
            prefix = ("ip", "vrf", "exec", vrf)
        # Not through Namespace.popen: its process is the one to stop and to continue.
        self.process = subprocess.Popen(
            namespace.argv([*prefix, binary, "-u", "nobody", *where, "-t", str(threads), *options]),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def listens() -> bool:
            """Answering, that is: it takes connections before it has all its sockets."""
            with namespace.call(lambda: socket.socket()) as probe:
                probe.settimeout(DEADLINE)
                if vrf:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, vrf.encode())
                if probe.connect_ex((local, port)):
                    return False
                probe.send(b"version\r\n")
                return probe.recv(64).startswith(b"VERSION")

        until(listens, "memcached to listen")

    def stop(self) -> None:
        """Let it do nothing until `go_on`; returns when every thread of it has stopped."""
        self.process.send_signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self.process.pid}/task")

        def stopped() -> bool:
            states = [(task / "stat").read_text().rpartition(")")[2] for task in tasks.iterdir()]
            return all(state.split()[0] == "T" for state in states)

        until(stopped, "memcached to stop")

    @contextlib.contextmanager
    def on_one_cpu(self) -> Iterator[None]:
        """Both it and this process run on one CPU, and so does TCP on a pair of namespaces.

        On several, segments of one connection may pass each other.
        """
        before = os.sched_getaffinity(0)
        tasks = [int(task.name) for task in Path(f"/proc/{self.process.pid}/task").iterdir()]
        for task in (0, *tasks):
            os.sched_setaffinity(task, {min(before)})
        try:
            yield
        finally:
            for task in (0, *tasks):
                os.sched_setaffinity(task, before)

    def go_on(self) -> None:
        """Go on after `stop`."""
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(DEADLINE)


def _datagram(number: int, text: bytes) -> bytes:
    return _HEADER.pack(number, 0, 1, 0) + text


def values_of(reply: bytes) -> dict[bytes, bytes]:
    """By key. Raises ValueError for what is no reply to a get."""
    found = {}
    while reply != b"END\r\n":
        line, _, rest = reply.partition(b"\r\n")
        word, name, _, length, *_ = line.split()
        data, reply = rest[: int(length)], rest[int(length) :].removeprefix(b"\r\n")
        if word != b"VALUE" or name in found:
            raise ValueError(line)
        found[name] = data
    return found


class UDPClient(Resource):
    """Asks over UDP, with ids of its own, and sums that do not look half-made (netns/sums.py)."""

    def __init__(self, namespace: Namespace, address: str, port: int = PORT):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.socket = namespace.call(lambda: socket.socket(family, socket.SOCK_DGRAM))
        self.socket.settimeout(DEADLINE)
        self.socket.connect((address, port))
        self._ids = itertools.cycle(range(1, 65_536))

    def send(self, text: bytes) -> int:
        """Send a request, and return its id."""
        number = next(
            id for id in self._ids if not looks_half_made(self.socket, _datagram(id, text))
        )
        self.socket.send(_datagram(number, text))
        return number

    def receive(self, number: int) -> bytes:
        """The reply to the request of this id: the next one there is."""
        reply = self.socket.recv(65_536)
        assert _HEADER.unpack_from(reply) == (number, 0, 1, 0)
        return reply[_HEADER.size :]

    def ask(self, text: bytes) -> bytes:
        """Send a request and return its reply."""
        return self.receive(self.send(text))

    def get(self, key: bytes) -> bytes | None:
        """A key's value, or None."""
        return value_of(self.ask(b"get %b\r\n" % key))

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


class TCPClient(Resource):
    """Asks over TCP; from a port of its own choice, unless `source` is one.

    With `options` every IPv6 packet has hop-by-hop options.
    """

    def __init__(
        self,
        namespace: Namespace,
        address: str,
        port: int = PORT,
        *,
        source: int = 0,
        options: bool = False,
    ):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.socket = namespace.call(lambda: socket.socket(family, socket.SOCK_STREAM))
        self.socket.settimeout(DEADLINE)
        if options:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_HOPOPTS, _HOP_OPTIONS)
        if source:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            until(lambda: self._is_bound(source), f"port {source} to be free again")
        self.socket.connect((address, port))

    def _is_bound(self, port: int) -> bool:
        """The kernel may take a moment to let go of what had it before."""
        with contextlib.suppress(OSError):
            self.socket.bind(("", port))
        return bool(self.socket.getsockname()[1])

    def ask(self, text: bytes) -> bytes:
        """Send a command and return what comes back, which has to be one line or come at once."""
        self.socket.sendall(text)
        return self.socket.recv(65_536)

    def sent_again(self) -> int:
        """How many of its segments TCP has sent more than once."""
        information = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        return int.from_bytes(information[100:104], sys.byteorder)  # tcpi_total_retrans

    def set(self, key: bytes, value: bytes) -> None:
        """Store a value; returns when the server has said so."""
        assert self.ask(set_of(key, value)) == b"STORED\r\n"

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()


def value_of(reply: bytes) -> bytes | None:
    """The value in a reply to a get of one key; None where it says that there is none."""
    if reply == b"END\r\n":
        return None
    line, _, rest = reply.partition(b"\r\n")
    word, _, _, length, *_ = line.split()
    assert word == b"VALUE"
    assert rest[int(length) :] == b"\r\nEND\r\n"
    return rest[: int(length)]
