# SPDX-License-Identifier: Apache-2.0
"""A TCP client whose segments come in any order, with any numbers and any flags."""

from __future__ import annotations

import itertools
import socket

from carom.kernel.resource import Resource
from netns.forge import ACK, PSH, RST, SYN, Forge
from netns.memcache import PORT
from netns.process import DEADLINE, INTERFACE

RAW = "198.18.0.6"
"""An address of the client's link that no host has; the server has to know its neighbour's MAC."""


class ByHand(Resource):
    """A TCP client whose every segment is made by hand; its acknowledgements are not."""

    _ports = itertools.count(30_001)

    def __init__(
        self, forge: Forge, number: int = 1_000_000, *, server: int = PORT, whole: bool = True
    ):
        """Connect; `number` is that of the SYN. If not `whole`, data ends the handshake."""
        self._forge, self._server = forge, server
        self._heard = forge.line.client.call(
            lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        )
        self._heard.bind((INTERFACE, 0x0800))
        self._heard.settimeout(DEADLINE)
        self.port = next(self._ports)
        self.next = number + 1
        self.theirs = 0
        self.segment(b"", number, SYN)
        flags, numbers, _ = self._hear()
        assert flags & (SYN | ACK) == SYN | ACK
        self.theirs = numbers + 1
        if whole:
            self.segment(b"", flags=ACK)

    def segment(
        self, data: bytes, number: int | None = None, flags: int = ACK | PSH, **fields: int
    ) -> None:
        """Send one, in its turn or with another number; `fields` are the forge's."""
        number = self.next if number is None else number
        self._forge.tcp(
            data,
            source=RAW,
            sport=self.port,
            dport=self._server,
            sequence=number,
            flags=flags,
            **{"acknowledged": self.theirs, **fields},
        )

    def say(self, data: bytes) -> None:
        """The next bytes of the stream, in one segment."""
        self.segment(data)
        self.next += len(data)

    def _hear(self) -> tuple[int, int, bytes]:
        while True:
            packet = self._heard.recv(65_536)
            length = (packet[0] & 15) * 4
            if packet[9] != 6 or packet[16:20] != socket.inet_aton(RAW):
                continue
            tcp = packet[length : int.from_bytes(packet[2:4], "big")]
            if int.from_bytes(tcp[2:4], "big") == self.port:
                number = int.from_bytes(tcp[4:8], "big")
                return tcp[13], number, tcp[(tcp[12] >> 4) * 4 :]

    def hear(self, wanted: bytes) -> None:
        """Until the server has said this, which is acknowledged."""
        got = b""
        while wanted not in got:
            flags, number, data = self._hear()
            assert not flags & RST, got
            if data and number == self.theirs % 2**32:
                got += data
                self.theirs += len(data)
                self.segment(b"", flags=ACK)

    def close(self) -> None:
        """Reset the connection."""
        self.segment(b"", flags=RST | ACK)
        self._heard.close()
