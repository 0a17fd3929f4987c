# SPDX-License-Identifier: Apache-2.0
"""What a program does that is led, or tries: it prints a line of JSON.

    python route_actor.py WHAT [ARGUMENT...]

An answer of the outside is the source that it saw; what fails is an errno's name, or `timeout`.
"""

from __future__ import annotations

import array
import ctypes
import errno
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

TARGETS = {socket.AF_INET: "198.18.100.1", socket.AF_INET6: "2001:db8:100::1"}
PORT = 7000
PATIENCE = 5.0
"""Seconds for an answer that is to come; where none can, BRIEF."""
BRIEF = 0.5
V4, V6 = socket.AF_INET, socket.AF_INET6
_IP_UNICAST_IF, _IP_PKTINFO, _MPTCP, _SO_MARK = 50, 8, 262, 36
_SCM_RIGHTS, _BYPASS = socket.SCM_RIGHTS, 20
_NEWNET, _NEWUSER = 0x40000000, 0x10000000
Prepare = Callable[[socket.socket], object]


def tried(what: Callable[[], Any]) -> Any:
    """What it gives, or why it gives nothing."""
    try:
        return what()
    except TimeoutError as error:
        return errno.errorcode.get(error.errno or 0, "timeout")
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))


def nothing(one: socket.socket) -> None:
    """Prepare nothing."""


def tcp(
    family: int = V4, prepare: Prepare = nothing, protocol: int = 0, patience: float = PATIENCE
) -> Any:
    """One connection."""

    def go() -> str:
        with socket.socket(family, socket.SOCK_STREAM, protocol) as stream:
            stream.settimeout(patience)
            prepare(stream)
            stream.connect((TARGETS[family], PORT))
            return stream.recv(100).decode().strip()

    return tried(go)


def udp(
    family: int = V4,
    prepare: Prepare = nothing,
    *,
    connected: bool = False,
    to: str = "",
    patience: float = PATIENCE,
) -> Any:
    """One datagram, and another if that or its answer was lost (a neighbour that is looked for)."""

    def go() -> str:
        with socket.socket(family, socket.SOCK_DGRAM) as bound:
            bound.settimeout(patience)
            prepare(bound)
            target = (to or TARGETS[family], PORT)
            if connected:
                bound.connect(target)
                bound.send(b"x")
            else:
                bound.sendto(b"x", target)
            return bound.recv(100).decode()

    return tried(go)


def many() -> dict[str, Any]:
    """All kinds of sockets that anybody may have."""
    return {
        "tcp4": tcp(),
        "tcp6": tcp(V6),
        "udp4": udp(),
        "udp6": udp(V6),
        "connected4": udp(connected=True),
        "connected6": udp(V6, connected=True),
    }


def ping(family: int, kind: int = socket.SOCK_DGRAM) -> Any:
    """An echo request."""

    def go() -> str:
        v4 = family == V4
        with socket.socket(family, kind, 1 if v4 else 58) as made:
            made.settimeout(PATIENCE)
            packet = struct.pack("!BBHHH", 8 if v4 else 128, 0, 0, 7, 1) + b"abcdefgh"
            if kind == socket.SOCK_RAW and v4:
                packet = packet[:2] + struct.pack("!H", checksum(packet)) + packet[4:]
            made.sendto(packet, (TARGETS[family], 0))
            made.recv(200)
            return "reply"

    return tried(go)


def checksum(data: bytes) -> int:
    """The internet's."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - ((total & 0xFFFF) + (total >> 16))


QUESTION = b"\x12\x34\1\0\0\1\0\0\0\0\0\0\4name\4test\0\0\1\0\1"


def dns(server: str, *, connected: bool) -> Any:
    """A question: the answer, who answered, and who the peer is."""

    def go() -> list[Any]:
        with socket.socket(V6 if ":" in server else V4, socket.SOCK_DGRAM) as bound:
            bound.settimeout(PATIENCE)
            peer = None
            if connected:
                bound.connect((server, 53))
                bound.send(QUESTION)
                peer = bound.getpeername()[0]
            else:
                bound.sendto(QUESTION, (server, 53))
            data, who = bound.recvfrom(512)
            return [socket.inet_ntoa(data[-4:]), who[0], peer]

    return tried(go)


def dns_tcp(server: str) -> Any:
    """The same over TCP."""

    def go() -> list[Any]:
        with socket.create_connection((server, 53), PATIENCE) as stream:
            stream.sendall(struct.pack("!H", len(QUESTION)) + QUESTION)
            data = stream.recv(512)
            return [socket.inet_ntoa(data[-4:]), stream.getpeername()[0]]

    return tried(go)


def questions(*servers: str) -> dict[str, Any]:
    """Every way to ask each of these servers, and glibc's."""
    told: dict[str, Any] = {}
    for server in servers:
        told[f"{server} connected"] = dns(server, connected=True)
        told[f"{server} unconnected"] = dns(server, connected=False)
        told[f"{server} tcp"] = dns_tcp(server)
    return told


def getent() -> list[str]:
    """What glibc finds."""
    done = subprocess.run(
        ["getent", "ahostsv4", "name.test"], capture_output=True, text=True, check=False
    )
    return done.stdout.split()[:1]


def myself(*words: str) -> list[str]:
    """The command that does something else."""
    at = len(sys.orig_argv) - len(sys.argv) + 1
    return [sys.executable, *sys.orig_argv[1:at], *words]


def tree() -> dict[str, Any]:
    """Children of all kinds, and a thread."""
    told: dict[str, Any] = {}
    reads, writes = os.pipe()
    os.set_inheritable(writes, True)

    def child(name: str, do: Callable[[], Any]) -> None:
        pid = os.fork()
        if not pid:
            os.write(writes, (json.dumps({name: do()}) + "\n").encode())
            os._exit(0)
        os.waitpid(pid, 0)

    def apart() -> Any:
        os.setsid()
        return udp()

    child("fork", udp)
    child("setsid", apart)
    told["exec"] = json.loads(subprocess.check_output(myself("udp")))
    daemon = os.fork()
    if not daemon:
        os.setsid()
        if not os.fork():
            while os.getppid() == daemon:
                time.sleep(0.01)
            os.write(writes, (json.dumps({"daemon": udp()}) + "\n").encode())
        os._exit(0)
    os.waitpid(daemon, 0)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(udp()))
    thread.start()
    thread.join()
    os.close(writes)
    with os.fdopen(reads) as lines:
        for line in lines:
            told |= json.loads(line)
    return {**told, "thread": found[0]}


def device(name: str) -> Prepare:
    """Bound to an interface."""
    packed = name.encode() + b"\0"
    return lambda made: made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, packed)


def mark(number: int) -> Prepare:
    """With another mark."""
    return lambda made: made.setsockopt(socket.SOL_SOCKET, _SO_MARK, number)


def escapes(source: str, neighbour: str) -> dict[str, Any]:
    """Every way out by eth0 that a socket of the internet has, as root."""
    index = socket.if_nametoindex("eth0")

    def info() -> Any:
        with socket.socket(V4, socket.SOCK_DGRAM) as made:
            made.settimeout(BRIEF)
            packed = struct.pack("=i4s4s", index, bytes(4), bytes(4))
            made.sendmsg([b"x"], [(0, _IP_PKTINFO, packed)], 0, (TARGETS[V4], PORT))
            return made.recv(100).decode()

    return {
        "mark 0": udp(V4, mark(0), patience=BRIEF),
        "another mark": udp(V4, mark(99), patience=BRIEF),
        "device": udp(V4, device("eth0"), patience=BRIEF),
        "device6": udp(V6, device("eth0"), patience=BRIEF),
        "unicast_if": udp(
            V4,
            lambda made: made.setsockopt(0, _IP_UNICAST_IF, struct.pack("!I", index)),
            patience=BRIEF,
        ),
        "pktinfo": tried(info),
        "dontroute": udp(
            V4,
            lambda made: made.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1),
            to=neighbour,
            patience=BRIEF,
        ),
        "source": udp(V4, lambda made: made.bind((source, 0)), patience=BRIEF),
    }


def packet_socket() -> Any:
    """A raw frame's socket."""
    return tried(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3).close() or "made")


def other_netns(*, user: bool) -> Any:
    """A socket in a network namespace of one's own."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEWNET | (_NEWUSER if user else 0)):
        return f"unshare: {errno.errorcode[ctypes.get_errno()]}"
    return tried(lambda: socket.socket(V4, socket.SOCK_DGRAM).close() or "made")


def held() -> None:
    """Sockets that stay open: each line on stdin has them used, and others opened."""

    def connected() -> socket.socket:
        stream = socket.create_connection((TARGETS[V4], PORT), PATIENCE)
        stream.recv(100)
        return stream

    stream = connected()
    plain = socket.socket(V4, socket.SOCK_DGRAM)
    peered = socket.socket(V4, socket.SOCK_DGRAM)
    peered.connect((TARGETS[V4], PORT))

    def of(made: socket.socket, send: Callable[[], object], seconds: float) -> Any:
        def go() -> str:
            made.settimeout(seconds)
            send()
            return (made.recv(1000).decode().split() or ["closed"])[-1]

        return tried(go)

    say({"ready": os.getpid()})
    for line in sys.stdin:
        wait = float(line)
        say(
            {
                "tcp": of(stream, lambda: stream.send(b"x"), wait),
                "udp": of(plain, lambda: plain.sendto(b"x", (TARGETS[V4], PORT)), wait),
                "connected": of(peered, lambda: peered.send(b"x"), wait),
                "new tcp": tcp(patience=wait),
                "new udp": udp(patience=wait),
                "new udp6": udp(V6, patience=wait),
            }
        )


def bound_to(source: str) -> None:
    """Send from an address, each time that a line comes."""
    say({"ready": os.getpid()})
    for line in sys.stdin:
        say({"from": udp(V4, lambda made: made.bind((source, 0)), patience=float(line))})


def server(port: str) -> None:
    """Accepts, greets and ends."""
    with socket.create_server(("0.0.0.0", int(port))) as listening:
        say({"ready": os.getpid()})
        stream, peer = listening.accept()
        with stream:
            stream.sendall(b"greetings")
            say({"peer": peer[0]})


def giver(path: str) -> None:
    """Makes a socket, gives it away, and ends."""
    with socket.socket(socket.AF_UNIX) as to, socket.socket(V4, socket.SOCK_DGRAM) as made:
        to.connect(path)
        numbers = array.array("i", [made.fileno()])
        to.sendmsg([b"x"], [(socket.SOL_SOCKET, _SCM_RIGHTS, numbers)])
        to.recv(1)


def taker(path: str) -> None:
    """Takes a socket, and uses it."""
    with socket.socket(socket.AF_UNIX) as to:
        to.connect(path)
        _, ancillary, *_ = to.recvmsg(1, socket.CMSG_SPACE(4))
        (number,) = struct.unpack("=i", ancillary[0][2][:4])
        with socket.socket(fileno=number) as taken:
            taken.settimeout(PATIENCE)

            def go() -> str:
                taken.sendto(b"x", (TARGETS[V4], PORT))
                return taken.recv(100).decode()

            say({"taken": tried(go)})
            to.recv(1)


def refused(count: str) -> dict[str, int]:
    """So many datagrams that may not leave, and how many were refused to their sender."""
    told: dict[str, int] = {}
    with socket.socket(V4, socket.SOCK_DGRAM) as made:
        device("eth0")(made)
        for _ in range(int(count)):
            how = tried(lambda: made.sendto(b"x", (TARGETS[V4], PORT)) and "sent")
            told[how] = told.get(how, 0) + 1
    return told


def opens(count: str) -> dict[str, int]:
    """Open and close so many sockets, and accept some."""
    for _ in range(int(count)):
        socket.socket(V4, socket.SOCK_DGRAM).close()
    accepted = 0
    with socket.create_server(("127.0.0.1", 0)) as listening:
        for _ in range(100):
            with socket.create_connection(listening.getsockname()), listening.accept()[0]:
                accepted += 1
    return {"accepted": accepted}


def storm(senders: str) -> None:
    """Send all that can be sent, by several processes that fork others, until stdin is closed."""
    reads, writes = os.pipe()
    for _ in range(int(senders)):
        if not os.fork():
            os.close(writes)
            sends(reads)
            os._exit(0)
    say({"ready": os.getpid()})
    sys.stdin.read()
    os.close(writes)
    for _ in range(int(senders)):
        os.wait()


def sends(until: int) -> None:
    """Until that is closed."""
    os.set_blocking(until, False)
    rounds = 0
    while tried(lambda: os.read(until, 1)) == "EAGAIN":
        rounds += 1
        for family in (V4, V6):
            burst(family)
        if not rounds % 25:
            if not os.fork():
                udp(patience=0.01)
                os._exit(0)
            os.wait()


def burst(family: int) -> None:
    """One of each kind."""
    target = (TARGETS[family], PORT)
    with socket.socket(family, socket.SOCK_DGRAM) as made:
        tried(lambda: made.sendto(b"x", target))
        tried(lambda: made.connect(target))
        tried(lambda: made.send(b"x"))
    with socket.socket(family, socket.SOCK_STREAM) as stream:
        stream.setblocking(False)
        tried(lambda: stream.connect(target))


def say(told: object) -> None:
    """A line."""
    print(json.dumps(told), flush=True)


WHAT: dict[str, Callable[..., Any]] = {
    "many": many,
    "udp": udp,
    "icmp": lambda: {"4": ping(V4), "6": ping(V6)},
    "raw": lambda: {"4": ping(V4, socket.SOCK_RAW), "6": ping(V6, socket.SOCK_RAW)},
    "mptcp": lambda: tcp(protocol=_MPTCP),
    "dns": questions,
    "getent": getent,
    "tree": tree,
    "escapes": escapes,
    "device": lambda: udp(V4, device("eth0"), patience=BRIEF),
    "packet": packet_socket,
    "netns": lambda: other_netns(user=False),
    "user netns": lambda: other_netns(user=True),
    "refused": refused,
    "opens": opens,
    "held": held,
    "from": bound_to,
    "server": server,
    "giver": giver,
    "taker": taker,
    "storm": storm,
}

if __name__ == "__main__":
    result = WHAT[sys.argv[1]](*sys.argv[2:])
    if result is not None:
        say(result)
