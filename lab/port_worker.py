# SPDX-License-Identifier: Apache-2.0
"""The processes that answer at the four ports: they work on sockets and maps that they are given.

Each counts the requests it takes in memory that it shares with who started it, before it replies.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct
import sys
import threading
import time

import msgspec

from carom.include import libbpf
from carom.lab.ports import PORTS, reply_to

JOB = struct.Struct("=I4sHH")
"""A request in a queue (demux.c, struct job): number, client's address and port."""
_IP_PKTINFO = 8  # linux/in.h


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is to do; descriptors are inherited.

    A `queue` worker has the sockets and maps of all ports, any other one port's socket. `library`
    is work_server.c compiled; `source` the address to reply from, where it is not the socket's own.
    """

    kind: str
    cells: int
    cpu: int
    which: int = 0
    sockets: list[int]
    maps: list[int] = []
    loops: int = 0
    sleeps: list[float] = []
    library: str = ""
    source: str = ""


def main() -> None:
    """Work as the only argument says, until a signal ends it."""
    order = msgspec.json.decode(sys.argv[1], type=Order)
    os.sched_setaffinity(0, {order.cpu})
    cells = memoryview(mmap.mmap(order.cells, 8 * len(PORTS))).cast("Q")
    sockets = [socket.socket(fileno=one) for one in order.sockets]
    for one in sockets:
        one.setblocking(True)
    {"c": _serve_in_c, "python": _serve, "sleep": _sleep, "queue": _poll}[order.kind](
        order, sockets, cells
    )


def library(path: str) -> ctypes.CDLL:
    """work_server.c compiled: its `work` and `serve`."""
    library = ctypes.CDLL(path)
    library.work.argtypes, library.work.restype = (
        [ctypes.c_uint32, ctypes.c_uint32],
        ctypes.c_uint32,
    )
    library.serve.argtypes = [ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p]
    return library


def _serve_in_c(order: Order, sockets: list[socket.socket], cells: memoryview) -> None:
    counter = ctypes.c_uint64.from_buffer(cells, 8 * order.which)
    library(order.library).serve(sockets[0].fileno(), order.loops, ctypes.byref(counter))


def _serve(order: Order, sockets: list[socket.socket], cells: memoryview) -> None:
    """The same with the work alone in C."""
    one, work, which = sockets[0], library(order.library).work, order.which
    while True:
        request, client = one.recvfrom(64)
        if len(request) == 4:
            cells[which] += 1
            result = work(int.from_bytes(request, "big"), order.loops)
            one.sendto(result.to_bytes(4, "big"), client)


def _sleep(order: Order, sockets: list[socket.socket], cells: memoryview) -> None:
    one, which, seconds = sockets[0], order.which, order.sleeps[0]
    from_there = []
    if order.source:
        info = struct.pack("=I4s4s", 0, socket.inet_aton(order.source), bytes(4))
        from_there.append((socket.IPPROTO_IP, _IP_PKTINFO, info))
    while True:
        request, client = one.recvfrom(64)
        if len(request) == 7 and request.isdigit():
            cells[which] += 1
            time.sleep(seconds)
            one.sendmsg([b"%07d" % reply_to(int(request), which)], from_there, 0, client)


def _poll(order: Order, sockets: list[socket.socket], cells: memoryview) -> None:
    """As published: look into every queue, over and over, and start a thread for each request."""

    def answer(which: int, value: int, client: tuple[str, int]) -> None:
        time.sleep(order.sleeps[which])
        sockets[which].sendto(b"%07d" % reply_to(value, which), client)

    while True:
        for which in PORTS:
            found = libbpf.pop(order.maps[which], JOB.size)
            if found:
                value, address, port, _ = JOB.unpack(found)
                cells[which] += 1
                client = socket.inet_ntoa(address), socket.ntohs(port)
                threading.Thread(target=answer, args=(which, value, client), daemon=True).start()


if __name__ == "__main__":
    main()
