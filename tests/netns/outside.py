# SPDX-License-Identifier: Apache-2.0
"""The outside world: it answers with the source that it saw, and counts what came by each way.

    python outside.py DNS...

A line on stdin is a question: what was seen since the line before. The answer is a line of JSON.
Frames are counted without their link's header, as a link may have none.
"""

from __future__ import annotations

import collections
import contextlib
import ipaddress
import json
import select
import socket
import struct
import sys
import threading
from collections.abc import Callable

TARGETS = ("198.18.100.1", "2001:db8:100::1")
PORT = 7000
_SO_RCVBUFFORCE, _SOL_PACKET, _PACKET_STATISTICS = 33, 263, 6
_OUTGOING = 4  # PACKET_OUTGOING
_DNS = 53
_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6"}
_NEIGHBOURS = {*range(130, 138), 143}  # of ICMPv6: what hosts say without being asked
_HOPS = 0  # a header before such

Counts = collections.Counter[tuple[str, str]]
seen: Counts = collections.Counter()
asked: Counts = collections.Counter()
lock = threading.Lock()


def read(protocol: int, packet: bytes) -> tuple[str, str] | None:
    """What a packet is and where it comes from; None for what nobody asked for."""
    if protocol == 0x0800:
        kind, source, at = packet[9], ipaddress.ip_address(packet[12:16]), (packet[0] & 15) * 4
    elif protocol == 0x86DD:
        kind, source, at = packet[6], ipaddress.ip_address(packet[8:24]), 40
        if kind == _HOPS or (kind == 58 and packet[at] in _NEIGHBOURS):
            return None
    else:
        return None
    return _NAMES.get(kind, str(kind)), str(source)


def sniff() -> None:
    """Count what comes, by whichever interface: one that is made anew too."""
    heard.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
    heard.setblocking(False)
    started.release()
    while True:
        select.select([heard], [], [])
        count()


def count() -> None:
    """All that has come until now."""
    with lock, contextlib.suppress(BlockingIOError):
        while True:
            packet, (interface, protocol, kind, *_) = heard.recvfrom(128)
            ours = kind != _OUTGOING and interface != "lo"
            if ours and (found := read(protocol, packet)):
                seen[interface, " ".join(found)] += 1


def streams(address: str) -> None:
    """TCP: the peer's address, at once and for each piece that comes."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, PORT), family=family, backlog=128) as listening:
        started.release()
        while True:
            stream, peer = listening.accept()
            threading.Thread(target=talk, args=(stream, peer[0]), daemon=True).start()


def talk(stream: socket.socket, peer: str) -> None:
    """One connection."""
    with contextlib.suppress(OSError), stream:
        stream.sendall(peer.encode() + b"\n")
        while stream.recv(4096):
            stream.sendall(peer.encode() + b"\n")


def datagrams(address: str, port: int, reply: Callable[[bytes, str], bytes]) -> None:
    """UDP: what `reply` makes of a datagram and the peer's address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as bound:
        bound.bind((address, port))
        started.release()
        while True:
            data, peer = bound.recvfrom(2048)
            with contextlib.suppress(OSError):  # no way there
                bound.sendto(reply(data, peer[0]), peer)


def answer_of(server: str) -> Callable[[bytes, str], bytes]:
    """How a DNS server answers: every name has the address of the server itself, as IPv4's."""
    packed = ipaddress.ip_address(server).packed[-4:]

    def answer(question: bytes, peer: str) -> bytes:
        with lock:
            asked[server, peer] += 1
        end = question.index(b"\0", 12) + 5
        kind = question[end - 4 : end - 2]
        count = b"\0\1" if kind == b"\0\1" else b"\0\0"
        head = question[:2] + b"\x81\x80\0\1" + count + bytes(4) + question[12:end]
        record = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + packed
        return head + (record if count == b"\0\1" else b"")

    return answer


def dns_streams(server: str) -> None:
    """DNS over TCP, one question a connection."""
    answer = answer_of(server)
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.create_server((server, _DNS), family=family) as listening:
        started.release()
        while True:
            stream, peer = listening.accept()
            with stream:
                data = stream.recv(2048)
                if len(data) > 2:
                    reply = answer(data[2:], peer[0])
                    stream.sendall(struct.pack("!H", len(reply)) + reply)


def by_first(counts: Counts) -> dict[str, dict[str, int]]:
    """Counts by their first name, and by their second."""
    found: dict[str, dict[str, int]] = {}
    for (first, second), count in sorted(counts.items()):
        found.setdefault(first, {})[second] = count
    return found


def dropped() -> int:
    """How many frames nobody has counted since the last time."""
    packed = heard.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
    lost: int = struct.unpack("=II", packed)[1]
    return lost


def echo(data: bytes, peer: str) -> bytes:
    """The peer's address."""
    return peer.encode()


started = threading.Semaphore(0)

if __name__ == "__main__":
    heard = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))  # ETH_P_ALL
    servers = sys.argv[1:]
    jobs: list[tuple[object, ...]] = [(sniff,)]
    jobs += [(streams, target) for target in TARGETS]
    jobs += [(datagrams, target, PORT, echo) for target in TARGETS]
    jobs += [(datagrams, server, _DNS, answer_of(server)) for server in servers]
    jobs += [(dns_streams, server) for server in servers]
    for job, *arguments in jobs:
        threading.Thread(target=job, args=arguments, daemon=True).start()  # type: ignore[arg-type]
    for _ in jobs:
        started.acquire()
    print("ready", flush=True)
    for _ in sys.stdin:
        count()
        with lock:
            told = {"seen": by_first(seen), "asked": by_first(asked), "lost": dropped()}
            seen.clear()
            asked.clear()
        print(json.dumps(told), flush=True)
