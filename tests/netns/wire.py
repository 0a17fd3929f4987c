# SPDX-License-Identifier: Apache-2.0
"""The client's end of the wire: a real socket, the frames as they came, and their checksums."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from pathlib import Path
from typing import NamedTuple

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet
from scapy.utils import checksum

from carom.kernel.resource import Resource
from carom.vm.namespace import Namespace
from netns.process import DEADLINE, INTERFACE
from netns.services import PORT
from netns.sums import looks_half_made

ETH_P_ALL, _ETH_P_IP, _ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h
_SOL_PACKET, _PACKET_AUXDATA = 263, 8  # linux/socket.h, linux/if_packet.h
_AUXDATA = struct.Struct("=IIIHHHH")
_CSUM_NOT_READY = 1 << 3  # TP_STATUS_CSUMNOTREADY
_VLAN_VALID, _VLAN_TPID_VALID = 1 << 4, 1 << 6  # TP_STATUS_VLAN_{,TPID_}VALID
UDP_SEGMENT = 103  # linux/udp.h


class Frame(NamedTuple):
    """One frame of IPv4, or of UDP over IPv6, with its VLAN tags where they are on the wire.

    `half_made`: the kernel knows that its UDP checksum is still to be made.
    """

    data: bytes
    outgoing: bool
    half_made: bool

    def packet(self) -> bytes:
        """Its IP packet, without Ethernet's padding."""
        at = 12
        while self.data[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
            at += 4
        kind, packet = self.data[at : at + 2], self.data[at + 2 :]
        if kind == _ETH_P_IP.to_bytes(2, "big"):
            return packet[: int.from_bytes(packet[2:4], "big")]
        assert kind == _ETH_P_IPV6.to_bytes(2, "big")
        return packet[: 40 + int.from_bytes(packet[4:6], "big")]

    def ip(self) -> Packet:
        """The same, as scapy has it."""
        packet = self.packet()
        return IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)


def check_sums(frame: Frame) -> None:
    """The IPv4 checksum is right, and the UDP checksum is what the kernel takes it for."""
    packet = frame.packet()  # scapy takes long to make each anew
    if packet[0] >> 4 == 4:
        start, protocol, addresses = 4 * (packet[0] & 15), packet[9], packet[12:20]
        right = checksum(packet[:10] + bytes(2) + packet[12:start])
        assert int.from_bytes(packet[10:12], "big") == right, "IPv4 checksum"
    else:
        start, protocol, addresses = 40, packet[6], packet[8:40]
    assert protocol == socket.IPPROTO_UDP
    udp = packet[start:]
    (length, found) = struct.unpack_from("!HH", udp, 4)
    pseudo = addresses + struct.pack("!HH", protocol, length)
    if frame.half_made:
        assert found == 0xFFFF ^ checksum(pseudo), "UDP checksum of the pseudo-header"
    else:
        right = checksum(pseudo + udp[:6] + bytes(2) + udp[8:]) or 0xFFFF
        assert found == right, "UDP checksum"


def _with_tag(data: bytes, auxdata: tuple[int, ...]) -> bytes:
    """The kernel takes the outermost tag off; here it is again."""
    status, tci, tpid = auxdata[0], auxdata[5], auxdata[6]
    if not status & _VLAN_VALID:
        return data
    kind = tpid if status & _VLAN_TPID_VALID else 0x8100
    return data[:12] + struct.pack("!HH", kind, tci) + data[12:]


def _is_udp6(kind: int, data: bytes) -> bool:
    return kind == _ETH_P_IPV6 and data[20:21] == bytes([socket.IPPROTO_UDP])


class Tap(Resource):
    """Sees the frames of an interface, both ways: of IPv4, UDP over IPv6, or behind a VLAN tag.

    With `everything` it sees the others too. `protocol` takes frames of one EtherType only, but
    those that come in as the stack does: behind TC.
    """

    def __init__(
        self,
        namespace: Namespace,
        interface: str = INTERFACE,
        *,
        everything: bool = False,
        protocol: int = ETH_P_ALL,
    ):
        def make() -> socket.socket:
            tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            tap.bind((interface, protocol))
            return tap

        self._everything = everything
        self._socket = namespace.call(make)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 24)
        self._socket.setblocking(False)

    def frames(self) -> list[Frame]:
        """The frames since the last time."""
        frames = []
        while True:
            try:
                data, extra, _, address = self._socket.recvmsg(65_536, 256)
            except BlockingIOError:
                return frames
            auxdata = next(
                _AUXDATA.unpack(value)
                for level, kind, value in extra
                if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA)
            )
            tagged = auxdata[0] & _VLAN_VALID or address[1] in (0x8100, 0x88A8)
            # What hosts say by themselves over IPv6 is no UDP.
            if not (
                self._everything or tagged or address[1] == _ETH_P_IP or _is_udp6(address[1], data)
            ):
                continue
            outgoing = address[2] == socket.PACKET_OUTGOING
            half_made = bool(auxdata[0] & _CSUM_NOT_READY)
            frames.append(Frame(_with_tag(data, auxdata), outgoing, half_made))

    def send(self, frame: bytes) -> None:
        """Send a frame as it is."""
        self._socket.send(frame)

    def fileno(self) -> int:
        """For `select`."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop."""
        self._socket.close()


class Client(Resource):
    """A connected UDP socket inside a namespace."""

    def __init__(self, namespace: Namespace, address: str, port: int = PORT, own: int = 0):
        """Its own port is any, or `own`: then the same requests have the same sums each time.

        If any, no request's sum looks half-made (netns/sums.py).
        """
        self._namespace, self._own, self._server = namespace, own, (address, port)
        self._open()

    def _open(self) -> None:
        family = socket.AF_INET6 if ":" in self._server[0] else socket.AF_INET
        self._socket = self._namespace.call(lambda: socket.socket(family, socket.SOCK_DGRAM))
        self._socket.bind(("", self._own))
        self._socket.connect(self._server)
        self._socket.settimeout(DEADLINE)
        self.port: int = self._socket.getsockname()[1]

    def send(self, request: bytes) -> None:
        """Send a request; from a new port, if that may be, where its sum would look half-made."""
        while not self._own and looks_half_made(self._socket, request):
            self._socket.close()
            self._open()
        self._socket.send(request)

    def send_segments(self, requests: bytes, size: int) -> None:
        """Send several requests, of `size` bytes each, as one super-packet (UDP GSO)."""
        self._socket.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
        self._socket.send(requests)
        self._socket.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 0)

    def receive(self) -> bytes:
        """The next reply. Raises TimeoutError when there is none."""
        return self._socket.recv(65_536)

    def ask(self, request: bytes) -> bytes:
        """Send a request and return the next reply."""
        self.send(request)
        return self._socket.recv(65_536)

    def answered(self, request: bytes, seconds: float = 0.2) -> bool:
        """Send a request; is there a reply within so many seconds? Late ones to others are none."""
        with contextlib.suppress(ConnectionRefusedError):
            while not self.nothing_more():
                pass
        self.send(request)
        self._socket.settimeout(seconds)
        try:
            self._socket.recv(65_536)
        except (TimeoutError, ConnectionRefusedError):
            return False
        else:
            return True
        finally:
            self._socket.settimeout(DEADLINE)

    def until_answered(self, request: bytes) -> None:
        """Ask until there is a reply. Fails after DEADLINE."""
        end = time.monotonic() + DEADLINE
        while not self.answered(request):
            assert time.monotonic() < end, f"{request!r} stays unanswered"

    def until_unanswered(self, request: bytes) -> None:
        """Ask until there is no reply. Fails after DEADLINE."""
        end = time.monotonic() + DEADLINE
        while self.answered(request) or self.answered(request, 1):
            assert time.monotonic() < end, f"{request!r} is answered on and on"

    def nothing_more(self) -> bool:
        """No reply is waiting: none came twice."""
        self._socket.setblocking(False)
        try:
            self._socket.recv(65_536)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            self._socket.settimeout(DEADLINE)

    def close(self) -> None:
        """Stop."""
        self._socket.close()


def checksum_errors(namespace: Namespace) -> int:
    """UDP datagrams, of either IP, that the kernel found a wrong checksum in."""

    def read() -> int:
        lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
        names, values = (line.split()[1:] for line in lines if line.startswith("Udp:"))
        of_ipv4 = int(dict(zip(names, values, strict=True))["InCsumErrors"])
        lines = Path("/proc/thread-self/net/snmp6").read_text().splitlines()
        return of_ipv4 + int(dict(line.split() for line in lines)["Udp6InCsumErrors"])

    return namespace.call(read)
