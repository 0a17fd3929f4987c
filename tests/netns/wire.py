# SPDX-License-Identifier: Apache-2.0
"""The client's end of the wire: a real socket, the frames as they came, and their checksums."""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path
from typing import NamedTuple

from scapy.layers.inet import IP, UDP, in4_pseudoheader
from scapy.utils import checksum

from carom.include.resource import Resource
from carom.vm.namespace import Namespace
from netns.process import DEADLINE, INTERFACE
from netns.services import PORT

_ETH_P_ALL, _ETH_P_IP = 0x0003, 0x0800
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h
_SOL_PACKET, _PACKET_AUXDATA = 263, 8  # linux/socket.h, linux/if_packet.h
_AUXDATA = struct.Struct("=IIIHHHH")
_CSUM_NOT_READY = 1 << 3  # TP_STATUS_CSUMNOTREADY
_ETHERNET = 14


class Frame(NamedTuple):
    """One IPv4 frame. `half_made`: the kernel knows that its UDP checksum is still to be made."""

    data: bytes
    outgoing: bool
    half_made: bool

    def ip(self) -> IP:
        """Its IPv4 packet, without Ethernet's padding."""
        length = int.from_bytes(self.data[_ETHERNET + 2 : _ETHERNET + 4], "big")
        return IP(self.data[_ETHERNET : _ETHERNET + length])


def check_sums(frame: Frame) -> None:
    """The IPv4 checksum is right, and the UDP checksum is what the kernel takes it for."""
    found = frame.ip()
    made = found.copy()
    del made.chksum, made[UDP].chksum
    made = IP(bytes(made))
    assert found.chksum == made.chksum, "IPv4 checksum"
    if frame.half_made:
        half = 0xFFFF ^ checksum(in4_pseudoheader(socket.IPPROTO_UDP, found, found[UDP].len))
        assert found[UDP].chksum == half, "UDP checksum of the pseudo-header"
    else:
        assert found[UDP].chksum == made[UDP].chksum, "UDP checksum"


class Tap(Resource):
    """Sees the IPv4 frames of an interface, both ways."""

    def __init__(self, namespace: Namespace, interface: str = INTERFACE):
        def make() -> socket.socket:
            tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            tap.bind((interface, _ETH_P_ALL))
            return tap

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
            if address[1] != _ETH_P_IP:
                continue
            status = next(
                _AUXDATA.unpack(value)[0]
                for level, kind, value in extra
                if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA)
            )
            outgoing = address[2] == socket.PACKET_OUTGOING
            frames.append(Frame(data, outgoing, bool(status & _CSUM_NOT_READY)))

    def send(self, frame: bytes) -> None:
        """Send a frame as it is."""
        self._socket.send(frame)

    def close(self) -> None:
        """Stop."""
        self._socket.close()


class Client(Resource):
    """A connected UDP socket inside a namespace."""

    def __init__(self, namespace: Namespace, address: str, port: int = PORT):
        self._socket = namespace.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._socket.connect((address, port))
        self._socket.settimeout(DEADLINE)
        self.port: int = self._socket.getsockname()[1]

    def send(self, request: bytes) -> None:
        """Send a request."""
        self._socket.send(request)

    def receive(self) -> bytes:
        """The next reply. Raises TimeoutError when there is none."""
        return self._socket.recv(65_536)

    def ask(self, request: bytes) -> bytes:
        """Send a request and return the next reply."""
        self._socket.send(request)
        return self._socket.recv(65_536)

    def answered(self, request: bytes, seconds: float = 0.2) -> bool:
        """Send a request; is there a reply within so many seconds? Whatever comes is taken."""
        self._socket.send(request)
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
        while self.answered(request):
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
    """UDP datagrams that the kernel found a wrong checksum in."""

    def read() -> int:
        lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
        names, values = (line.split()[1:] for line in lines if line.startswith("Udp:"))
        return int(dict(zip(names, values, strict=True))["InCsumErrors"])

    return namespace.call(read)
