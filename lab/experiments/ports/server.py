# SPDX-License-Identifier: Apache-2.0
"""The server's end of the experiments with four ports: sockets, programs, and processes."""

from __future__ import annotations

import functools
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from carom.errors import ExperimentError, InterfaceError
from carom.kernel import libbpf, links
from carom.kernel.bpf import Module
from carom.kernel.compiled import Hook
from carom.kernel.recipe import Recipe
from carom.kernel.resource import Resource
from carom.lab.experiments.ports import worker as port_worker
from carom.lab.experiments.ports.ports import FIRST_PORT, PORTS, Work
from carom.xdp.link import Link

_HERE = Path(__file__).resolve().parent
_LOOPBACK = "127.0.0.1"
_SO_ATTACH_REUSEPORT_EBPF = 52  # asm-generic/socket.h
_CPUMAP_QUEUE = 512  # packets on their way to a CPU

Counts = dict[str, list[int]]
"""Counts of each port by name: `requests` by processes, or a program's under other names."""


class Serving(Resource):
    """One series' server: answers at the four ports until it is closed."""

    def __init__(self, series: str, interface: str, address: str, cpu: int, work: Work):
        self._series, self._cpu, self._work = series, cpu, work
        self._interface, self._address = interface, address
        self._counted: dict[str, tuple[int, int]] = {}
        """A program's counters by name: a map's fd, and the first port's index in it."""
        self._requests = memoryview(mmap.mmap(-1, 8 * len(PORTS))).cast("Q")
        self.pids: list[int] = []
        """Its processes."""
        self.mode: str | None = None
        with ExitStack() as stack:
            self._stack = stack
            stack.callback(self._end_workers)
            getattr(self, f"_{series}")()
            self._stack = stack.pop_all()

    # The series

    def _processes(self) -> None:
        self._sleep([self._socket(which) for which in PORTS])

    _alone = _processes

    def _userspace(self) -> None:
        self._loop(port_worker.serve_in_c)

    def _python(self) -> None:
        self._loop(port_worker.serve)

    def _xdp(self) -> None:
        loops = {f"LOOPS_{which}": self._work.loops[which] for which in PORTS}
        module = self._module("concurrency.c", **loops)
        self._attach(module, "concurrency")
        self._counted["answered"] = module.map("answered"), 0

    def _queue(self) -> None:
        module = self._module("demux.c", QUEUE=self._work.queue)
        sockets = [self._socket(which) for which in PORTS]
        # A forked process does not keep a module's fds open; it does keep these copies.
        queues = [os.dup(module.map(f"jobs_{which}")) for which in PORTS]
        for queue in queues:
            self._stack.callback(os.close, queue)
        sleeps = self._work.sleeps
        self._start(lambda: port_worker.poll(queues, sockets, sleeps, self._requests))
        self._attach(module, "demux")
        for index, name in enumerate(("queued", "full")):
            self._counted[name] = module.map("counts"), index * len(PORTS)

    def _reuseport(self) -> None:
        """All four sockets share the first port: their indexes are the order in which they bind."""
        program = self._module("steer.c", CPU=self._cpu).program("by_digit")
        sockets = [self._socket(0, shared=True) for _ in PORTS]
        sockets[0].setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_EBPF, program)
        self._sleep(sockets)

    def _sk_lookup(self) -> None:
        """Sockets on loopback, to which the stack alone would give no packet of an interface."""
        module = self._module("steer.c", CPU=self._cpu)
        program = module.program("by_port")
        sockets = [self._socket(which, address=_LOOPBACK) for which in PORTS]
        for which, worker_socket in enumerate(sockets):
            key, value = struct.pack("=I", which), struct.pack("=I", worker_socket.fileno())
            libbpf.update(module.map("workers"), key, value)
        self._sleep(sockets, source=self._address)
        with open("/proc/thread-self/ns/net") as here:
            self._stack.callback(os.close, libbpf.link_sk_lookup(program, here.fileno()))

    def _cpumap(self) -> None:
        module = self._module("steer.c", CPU=self._cpu)
        key, value = struct.pack("=I", self._cpu), struct.pack("=I", _CPUMAP_QUEUE)
        libbpf.update(module.map("cpus"), key, value)
        self._processes()
        self._attach(module, "on_cpu")

    # Their parts

    def _module(self, source: str, **defines: int) -> Module:
        defines["FIRST_PORT"] = FIRST_PORT
        hooks: dict[str, Hook] = {"by_digit": "socket", "by_port": "lookup"}
        recipe = Recipe(_HERE / source, include=(_HERE,), defines=defines, hooks=hooks)
        return self._stack.enter_context(Module(recipe))

    def _attach(self, module: Module, name: str) -> None:
        interface = links.interface(self._interface)
        mode = self._work.mode
        # On veth, `auto` is generic, and Link would warn each time. After a native redirect to a
        # CPU, nobody knows that a checksum is half-made, and the stack drops the packet as wrong.
        if interface.driver == "veth" and (mode == "auto" or name == "on_cpu"):
            mode = "generic"
        link = Link(module.program(name), interface, mode)
        self._stack.enter_context(link)
        if name == "on_cpu":
            return
        self.mode = link.mode
        if self.mode == "generic":
            libbpf.update(module.map("generic"), bytes(4), struct.pack("=I", 1))

    def _socket(
        self, which: int, *, address: str | None = None, shared: bool = False
    ) -> socket.socket:
        bound = self._stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            bound.bind((address or self._address, FIRST_PORT + which))
        except OSError as error:
            raise InterfaceError(
                f"cannot take port {FIRST_PORT + which} of {address or self._address}: "
                f"{error.strerror}"
            ) from error
        return bound

    def _loop(self, serve: Callable[..., None]) -> None:
        folder = self._stack.enter_context(tempfile.TemporaryDirectory())
        code = port_worker.library(str(compiled(Path(folder))))
        for which, loops in enumerate(self._work.loops):
            worker_socket = self._socket(which)
            self._start(functools.partial(serve, code, worker_socket, loops, self._requests, which))

    def _sleep(self, sockets: Sequence[socket.socket], source: str | None = None) -> None:
        for which, worker_socket in enumerate(sockets):
            seconds = self._work.sleeps[which]
            self._start(
                functools.partial(
                    port_worker.sleep, worker_socket, seconds, self._requests, which, source
                )
            )

    def _start(self, work: Callable[[], None]) -> None:
        self.pids.append(port_worker.fork(work, self._cpu))

    # Its public calls

    def counts(self) -> Counts:
        """The requests so far, by port. Raises ExperimentError if a process has ended."""
        for pid in self.pids:
            if os.waitpid(pid, os.WNOHANG)[0]:
                self.pids.remove(pid)
                raise ExperimentError(
                    f"a process of {self._series} ended", hint="see what it printed above"
                )
        counted = {"requests": self._requests.tolist()} if self.pids else {}
        for name, (map_fd, first) in self._counted.items():
            counted[name] = [self._count(map_fd, first + which) for which in PORTS]
        return counted

    @staticmethod
    def _count(map_fd: int, index: int) -> int:
        value = libbpf.lookup(map_fd, struct.pack("=I", index), 8)
        return int.from_bytes(value or b"", sys.byteorder)

    def close(self) -> None:
        """End processes and programs."""
        self._stack.close()

    def _end_workers(self) -> None:
        for pid in self.pids:
            os.kill(pid, signal.SIGTERM)
        for pid in self.pids:
            os.waitpid(pid, 0)


def compiled(folder: Path) -> Path:
    """Compile work_server.c to a library in a folder. Raises ExperimentError."""
    library = folder / "work_server.so"
    source = _HERE / "work_server.c"
    argv = ["cc", "-O2", "-shared", "-fPIC", "-I", str(_HERE), "-o", str(library), str(source)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ExperimentError(
            "concurrency needs a C compiler for its processes, and there is none",
            hint="apt install gcc libc6-dev",
        ) from error
    if done.returncode:
        raise ExperimentError(f"cc refused work_server.c: {done.stderr.strip()}")
    return library
