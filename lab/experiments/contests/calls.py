# SPDX-License-Identifier: Apache-2.0
"""What a host does for contests: servers to measure, dnsperf, and both ends of a TCP stream."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from carom.kernel.resource import Resource
from carom.lab.clients.requests import Plan
from carom.lab.experiments.contests import memcached_client, name_server
from carom.lab.hosts.calls import Calls as Host

MEMCACHED, NSD, DNSPERF, SINK, STREAM = (
    f"contests:{name}" for name in ("memcached", "nsd", "dnsperf", "sink", "stream")
)

_BULK = bytes(1 << 20)
_PATIENCE = 10.0  # seconds for a connection


class Calls(Resource):
    """Its public methods are the calls `contests:NAME`."""

    def __init__(self, host: Host):
        self._host = host
        self._stack = contextlib.ExitStack()

    def memcached(self, address: str, port: int, plan: dict[str, Any]) -> int:
        """Start memcached, filled with the values of a plan's keys; returns its pid."""
        argv = ["memcached", "-u", "nobody", "-t", "1", "-l", address]
        server = self._host.start([*argv, "-p", str(port), "-U", str(port)])
        memcached_client.fill(address, port, msgspec.convert(plan, Plan))
        return server.pid

    def nsd(self, address: str, port: int, names: int, cpu: int) -> list[int]:
        """Start NSD on a CPU, with so many names; returns its processes, the first one first."""
        folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="carom-")))
        argv = name_server.configure(folder, [address], port, name_server.zone(names))
        server = self._host.start(["taskset", "-c", str(cpu), *argv])
        name_server.wait(address, port)
        return name_server.family(server.pid)

    def dnsperf(
        self, address: str, port: int, names: int, seconds: float, cpu: int
    ) -> dict[str, float]:
        """Ask a name server for its names; returns the queries `completed`, and their `rate`."""
        with TemporaryDirectory(prefix="carom-") as folder:
            said = name_server.ask(Path(folder), address, port, names, seconds, cpu)
        return {
            "completed": name_server.number(said, "Queries completed"),
            "rate": name_server.number(said, "Queries per second"),
        }

    def sink(self, address: str, port: int) -> None:
        """Accept TCP connections to a port and discard what comes, until the agent ends."""
        listener = socket.create_server((address, port))
        self._stack.callback(listener.close)
        threading.Thread(target=_sink, args=(listener,), daemon=True).start()

    def stream(self, address: str, port: int, seconds: float) -> float:
        """Send on one TCP connection as fast as possible; returns bytes a second."""
        with socket.create_connection((address, port), _PATIENCE) as tcp:
            sent, start = 0, time.perf_counter()
            while time.perf_counter() - start < seconds:
                sent += tcp.send(_BULK)
            return sent / (time.perf_counter() - start)

    def close(self) -> None:
        """Stop listening."""
        self._stack.close()


def _sink(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it was closed
        while True:
            connection, _ = listener.accept()
            buffer = bytearray(len(_BULK))
            with connection:
                while connection.recv_into(buffer):
                    pass
