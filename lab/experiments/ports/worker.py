# SPDX-License-Identifier: Apache-2.0
"""The workers at the four ports: each runs in a process of its own until a signal ends it.

Each counts a request before it replies, in a cell of memory that it shares with its parent.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
import time
import traceback
from collections.abc import Callable, Sequence

from carom.kernel import libbpf, signals
from carom.lab.experiments.ports.ports import PORTS, reply_to

JOB = struct.Struct("=I4sHH")
"""A request in a queue (demux.c, struct job): number, client's address and port."""

_IP_PKTINFO = 8  # linux/in.h


def fork(work: Callable[[], None], cpu: int) -> int:
    """Run `work` in a copy of this process on a CPU; returns its pid. It ends when we do.

    A copy starts at once; a new Python would take most of a short experiment.
    """
    parent = os.getpid()
    pid = signals.fork_to_work()
    if pid:
        return pid
    try:
        os.sched_setaffinity(0, {cpu})
        if os.getppid() == parent:  # the parent may have ended meanwhile
            work()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def library(path: str) -> ctypes.CDLL:
    """Load the compiled work_server.c, with its `work` and `serve`."""
    library = ctypes.CDLL(path)
    library.work.argtypes, library.work.restype = [ctypes.c_uint32] * 2, ctypes.c_uint32
    library.serve.argtypes = [ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p]
    return library


def serve_in_c(
    code: ctypes.CDLL, bound: socket.socket, loops: int, cells: memoryview, which: int
) -> None:
    """Reply with the number after its work, all in C."""
    counter = ctypes.c_uint64.from_buffer(cells, 8 * which)
    code.serve(bound.fileno(), loops, ctypes.byref(counter))


def serve(
    code: ctypes.CDLL, bound: socket.socket, loops: int, cells: memoryview, which: int
) -> None:
    """The same in Python, with only the work in C."""
    work = code.work
    while True:
        request, client = bound.recvfrom(64)
        if len(request) == 4:
            cells[which] += 1
            result = work(int.from_bytes(request, "big"), loops)
            bound.sendto(result.to_bytes(4, "big"), client)


def sleep(
    bound: socket.socket, seconds: float, cells: memoryview, which: int, source: str | None
) -> None:
    """Reply after `seconds`; from `source`, if that is not the socket's own address."""
    from_there = []
    if source:
        info = struct.pack("=I4s4s", 0, socket.inet_aton(source), bytes(4))
        from_there.append((socket.IPPROTO_IP, _IP_PKTINFO, info))
    while True:
        request, client = bound.recvfrom(64)
        if len(request) == 7 and request.isdigit():
            cells[which] += 1
            time.sleep(seconds)
            bound.sendmsg([b"%07d" % reply_to(int(request), which)], from_there, 0, client)


def poll(
    queues: Sequence[int],
    sockets: Sequence[socket.socket],
    sleeps: Sequence[float],
    cells: memoryview,
) -> None:
    """As published: poll every queue in a loop, and start a thread for each request."""

    def answer(which: int, value: int, client: tuple[str, int]) -> None:
        time.sleep(sleeps[which])
        sockets[which].sendto(b"%07d" % reply_to(value, which), client)

    while True:
        for which in PORTS:
            job = libbpf.pop(queues[which], JOB.size)
            if job:
                value, address, port, _ = JOB.unpack(job)
                cells[which] += 1
                client = socket.inet_ntoa(address), socket.ntohs(port)
                threading.Thread(target=answer, args=(which, value, client), daemon=True).start()
