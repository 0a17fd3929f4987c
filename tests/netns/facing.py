# SPDX-License-Identifier: Apache-2.0
"""A host and its server face a client that sends any frame from any source, and sees every reply.

Replies to spoofed sources leave for the client too. Nothing is judged here.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, NamedTuple

from scapy.layers.inet import UDP

from carom.kernel.resource import Resource
from carom.kernel.waiting import readable
from carom.vm.namespace import Namespace, join
from carom.vm.netns import attach_pass
from netns.process import DEADLINE, INTERFACE
from netns.wire import Frame, Tap
from prog.mutations import SOURCE_PORTS, half_made_at, read_tags
from prog.packets import CLIENT, CLIENT6, CLIENT_MAC, HOST, HOST6, HOST_MAC, PORT, Wire

FENCE_PORT = 7
FENCE = b"all that was sent before this is there"
CLIENTS, CLIENTS6 = "198.19.0.0/16", "2001:db8:1::/64"
"""Where the client's kernel takes every address for its own: so sockets get most replies."""

BATCH = 100
"""Frames on the way at once: a veth's ring holds 256."""

NEVER = str(2**30)  # milliseconds between two ICMP errors: they would stand among the frames
# Loose reverse-path filtering is what distributions set: no reply to a broadcast address.
_SYSCTLS = {
    "ipv4/conf/all/rp_filter": "2",
    "ipv4/icmp_ratelimit": NEVER,
    "ipv6/icmp/ratelimit": NEVER,
}
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h
_IP_PKTINFO, _IPV6_RECVPKTINFO = 8, 49  # linux/in.h, linux/in6.h
_SOL_PACKET, _PACKET_VNET_HDR = 263, 15  # linux/if_packet.h
_NEEDS_CHECKSUM = 1  # VIRTIO_NET_HDR_F_NEEDS_CSUM, linux/virtio_net.h
_VNET = struct.Struct("=BBHHHH")
_CHECK_AT = 6  # of the UDP header

Peer = tuple[bytes, int]
"""An address and a port."""

Answer = Callable[[bytes], bytes]

Batch = dict[Peer | int, bytes]
"""Frames by their sources, of which no two are the same; by a number those that have none."""


class Reply(NamedTuple):
    """A reply as its receiver knows it."""

    client: Peer
    host: Peer
    payload: bytes


class Seen(NamedTuple):
    """What came of some frames: `replies` on the client's wire, `delivered` payloads at its
    sockets by their destination, `arrived` at the server by their source."""

    replies: list[Frame]
    delivered: list[tuple[Peer, bytes]]
    arrived: list[tuple[Peer, bytes]]


@contextlib.contextmanager
def facing() -> Iterator[tuple[Namespace, Namespace]]:
    """Client and host, with the addresses and MACs of tests/prog's frames, and all on one CPU: so
    frames keep their order."""
    with _one_cpu(), Namespace("client") as client, Namespace("server") as host:
        join(client, INTERFACE, host, INTERFACE)
        ends = ((client, CLIENT_MAC, CLIENT, CLIENT6), (host, HOST_MAC, HOST, HOST6))
        for end, mac, *addresses in ends:
            end.run("ip", "link", "set", INTERFACE, "address", mac)
            end.up("lo")
            for address in addresses:
                end.address(INTERFACE, address, 64 if ":" in address else 16)
            end.call(_write_sysctls)
            end.run("ethtool", "-K", INTERFACE, "rx", "off")  # checksums are verified
        for end, (_, mac, *addresses) in ((client, ends[1]), (host, ends[0])):
            for address in addresses:
                end.neighbour(INTERFACE, address, mac)
        for via, network in ((CLIENT, f"{HOST}/16"), (CLIENT6, f"{HOST6}/64")):
            host.run("ip", "route", "add", via, "dev", INTERFACE)
            host.run("ip", "route", "add", "default", "via", via)
            # Neighbours that no one knows would be asked for instead of answered.
            host.run("ip", "route", "del", str(ip_network(network, strict=False)))
        for prefix in (CLIENTS, CLIENTS6):
            client.run("ip", "route", "add", "local", prefix, "dev", "lo")
        # A veth sends what native XDP answers only to a peer that has a program too.
        descriptor = attach_pass(client, INTERFACE)
        try:
            yield client, host
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _one_cpu() -> Iterator[None]:
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cpus)


def _write_sysctls() -> None:
    for name, value in _SYSCTLS.items():
        (Path("/proc/sys/net") / name).write_text(value)


class Exchange(Resource):
    """Sockets for frames of one wire: the client's, a server's, and all the client's wire sees."""

    def __init__(self, client: Namespace, host: Namespace, wire: Wire):
        self.wire = wire
        self._family = socket.AF_INET if wire.version == 4 else socket.AF_INET6
        with contextlib.ExitStack() as stack:

            def udp(where: Namespace, address: str, port: int) -> socket.socket:
                return stack.enter_context(where.call(lambda: self._udp(address, port)))

            self._fencer = udp(client, wire.client, 0)
            everywhere = "0.0.0.0" if wire.version == 4 else "::"
            self._clients = [udp(client, everywhere, port) for port in SOURCE_PORTS]
            self._tap = stack.enter_context(Tap(client))
            self._sender = stack.enter_context(client.call(_sender))
            self._serve(lambda port: udp(host, wire.host, port))
            self._stack = stack.pop_all()

    def _udp(self, address: str, port: int) -> socket.socket:
        udp = socket.socket(self._family, socket.SOCK_DGRAM)
        udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 24)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if self._family == socket.AF_INET:
            udp.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        else:
            udp.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        udp.bind((address, port))
        udp.setblocking(False)
        return udp

    def send(self, frames: Iterable[bytes], *, answering: bool = True) -> Seen:
        """Send frames, and see all that comes of them.

        The wire keeps its order: what was sent before a datagram of our own is there when that is.
        """
        self._tap.frames()
        for frame in frames:
            self._sender.send(_vnet_header(self.wire, frame) + frame)
        arrived = self._settle(answering)
        delivered = [
            ((_destination(extra), udp.getsockname()[1]), payload)
            for udp in self._clients
            for payload, extra, _ in _datagrams(udp)
        ]
        return Seen([one for one in self._tap.frames() if not one.outgoing], delivered, arrived)

    @property
    def fencer(self) -> Peer:
        """Who sends those datagrams."""
        return peer_of(self._fencer.getsockname())

    def _serve(self, udp: Callable[[int], socket.socket]) -> None:
        """Make the server's sockets."""

    def _settle(self, answering: bool) -> list[tuple[Peer, bytes]]:
        """Return when all that was sent is answered, with what came to our own server."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the sockets."""
        self._stack.close()


class OwnServer(Exchange):
    """A server of our own, which answers when told."""

    def __init__(self, client: Namespace, host: Namespace, wire: Wire, answer: Answer):
        self._answer = answer
        super().__init__(client, host, wire)

    def _serve(self, udp: Callable[[int], socket.socket]) -> None:
        self._server, self._fence = udp(PORT), udp(FENCE_PORT)

    def _settle(self, answering: bool) -> list[tuple[Peer, bytes]]:
        self._fencer.sendto(FENCE, (self.wire.host, FENCE_PORT))
        client = _await(self._fence, FENCE)
        arrived = list(_datagrams(self._server))
        if answering:
            for payload, _, source in arrived:
                # What the stack will not send to, port 0 say, gets no reply.
                with contextlib.suppress(OSError):
                    self._server.sendto(self._answer(payload), source)
        self._fence.sendto(FENCE, client)
        _await(self._fencer, FENCE)
        return [(peer_of(source), payload) for payload, _, source in arrived]


_LATE = 0.05
"""Seconds for replies that the fence's overtook: those of a server that has changed its CPU wait on
the one before."""


class RealServer(Exchange):
    """A server that is there, and answers requests in turn.

    `fence` gives a request that it alone can answer, and how its reply begins.
    """

    def __init__(
        self,
        client: Namespace,
        host: Namespace,
        wire: Wire,
        fence: Callable[[], tuple[bytes, bytes]],
    ):
        self._fence = fence
        super().__init__(client, host, wire)

    def _settle(self, answering: bool) -> list[tuple[Peer, bytes]]:
        request, reply = self._fence()
        self._fencer.sendto(request, (self.wire.host, PORT))
        _await(self._fencer, reply)
        time.sleep(_LATE)
        return []


def _sender() -> socket.socket:
    """Takes frames behind a word on their checksum, as a guest's device does."""
    sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sender.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    sender.bind((INTERFACE, 0))
    return sender


def _vnet_header(wire: Wire, frame: bytes) -> bytes:
    """A half-made checksum comes with the word that it is: from elsewhere it would be wrong."""
    at = half_made_at(wire, frame)
    if at is None:
        return bytes(_VNET.size)
    return _VNET.pack(_NEEDS_CHECKSUM, 0, 0, 0, at, _CHECK_AT)


def _datagrams(udp: socket.socket) -> Iterator[tuple[bytes, list[tuple[int, int, bytes]], Any]]:
    """What waits at a socket: payloads, with control messages and sources."""
    while True:
        try:
            payload, extra, _, source = udp.recvmsg(65_536, 256)
        except BlockingIOError:
            return
        yield payload, extra, source


def _await(udp: socket.socket, start: bytes) -> Any:
    """Wait for a datagram that starts so. Returns its sender."""
    while readable([udp], DEADLINE):
        for payload, _, source in _datagrams(udp):
            if payload.startswith(start):
                return source
    raise AssertionError("the wire is silent")


def _destination(extra: list[tuple[int, int, bytes]]) -> bytes:
    """The address that a datagram was sent to."""
    ((level, _, data),) = extra
    return data[8:12] if level == socket.IPPROTO_IP else data[:16]


def peer_of(source: Any) -> Peer:
    """A socket address' address and port."""
    return ip_address(source[0].partition("%")[0]).packed, source[1]


def peer(wire: Wire, frame: bytes, at: int) -> Peer | None:
    """A frame's source (`at` 0) or destination (1), where a proper one has it."""
    _, _, network = read_tags(frame)
    size, end = (4, network + 20) if wire.version == 4 else (16, network + 40)
    if len(frame) < end + 4:
        return None
    address = frame[end - (2 - at) * size :][:size]
    return address, int.from_bytes(frame[end + 2 * at :][:2], "big")


def batches(wire: Wire, frames: list[bytes], size: int = BATCH) -> Iterator[Batch]:
    """Frames in the order they have."""
    batch: Batch = {}
    for number, frame in enumerate(frames):
        source = peer(wire, frame, 0) or number
        if source in batch or len(batch) == size:
            yield batch
            batch = {}
        batch[source] = frame
    yield batch


def replies(wire: Wire, seen: Seen) -> dict[Peer, list[tuple[Reply, Frame]]]:
    """The datagrams among the frames that came back, by whom they are for."""
    found: dict[Peer, list[tuple[Reply, Frame]]] = {}
    for frame in seen.replies:
        packet = frame.ip()
        if UDP not in packet or FENCE in frame.data:
            continue
        client, host = peer(wire, frame.data, 1), peer(wire, frame.data, 0)
        assert client
        assert host
        reply = Reply(client, host, bytes(packet[UDP].payload))
        found.setdefault(client, []).append((reply, frame))
    return found
