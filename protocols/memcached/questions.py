# SPDX-License-Identifier: Apache-2.0
"""Questions to a fronted memcached, over UDP, at the same socket whose replies are learned."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence

from carom.kernel import forked
from carom.kernel.resource import Resource

PATIENCE = 0.5
"""Seconds that the answers to AT_ONCE questions may take together."""

AT_ONCE = 64
"""Questions on their way at once: few enough for both sides' buffers."""

_HEADER = struct.Struct("!HHHH")  # request id, number of the datagram, datagrams, 0
_ROOM = 65_536


class Questions(Resource):
    """Asks one server."""

    def __init__(self, connected: socket.socket):
        """Ask through a connected socket, which is closed with this."""
        self._socket = connected
        forked.keep(connected.fileno())
        self._id = 0

    def ask(self, texts: Sequence[bytes]) -> list[bytes | None]:
        """The answers, in the order of the questions; None for one that did not come."""
        answers: list[bytes | None] = []
        for start in range(0, len(texts), AT_ONCE):
            answers += self._ask(texts[start : start + AT_ONCE])
        return answers

    def _ask(self, texts: Sequence[bytes]) -> list[bytes | None]:
        answers: list[bytes | None] = [None] * len(texts)
        parts: dict[int, dict[int, bytes]] = {}
        until = time.monotonic() + PATIENCE
        try:
            waiting = {self._send(text): n for n, text in enumerate(texts)}
            while waiting and (patience := until - time.monotonic()) > 0:
                self._socket.settimeout(patience)
                data = self._socket.recv(_ROOM)
                if len(data) < _HEADER.size:
                    continue
                number, part, total, _ = _HEADER.unpack_from(data)
                if number in waiting:  # else it is late: the question was given up
                    received = parts.setdefault(number, {})
                    received[part] = data[_HEADER.size :]
                    if len(received) >= total:
                        answers[waiting.pop(number)] = b"".join(
                            received[n] for n in sorted(received)
                        )
        except OSError:  # no answer, or nobody there
            pass
        return answers

    def _send(self, text: bytes) -> int:
        self._id = (self._id + 1) % 65_536
        self._socket.send(_HEADER.pack(self._id, 0, 1, 0) + text)
        return self._id

    def close(self) -> None:
        """Ask no more."""
        forked.forget(self._socket.fileno())
        self._socket.close()
