# SPDX-License-Identifier: Apache-2.0
"""Writes captures as pcapng (draft-ietf-opsawg-pcapng): packets with nanoseconds and comments."""

from __future__ import annotations

import platform
import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import BinaryIO

from carom import __version__

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
"""Types of blocks: section header, interface description, enhanced packet."""
_ORDER, _ANY_LENGTH = 0x1A2B3C4D, 2**64 - 1
_ETHERNET = 1  # LINKTYPE_ETHERNET
_COMMENT, _SYSTEM, _APPLICATION = 1, 3, 4  # opt_comment, shb_os, shb_userappl
_NAME, _RESOLUTION, _FLAGS = 2, 9, 2  # if_name, if_tsresol, epb_flags
_NANOSECONDS = 9  # 10 to the minus 9th of a second
_OPTION_MAX = 0xFFFF


class Way(IntEnum):
    """The direction of a packet, as epb_flags has it."""

    IN = 1
    OUT = 2


class Writer:
    """Writes one section, whose interfaces are described when their first packets come."""

    def __init__(self, file: BinaryIO, snap: int):
        """`snap` is the most that is kept of a packet, in bytes. Raises OSError."""
        self._file, self._snap = file, snap
        self._numbers: dict[str, int] = {}
        options = {
            _SYSTEM: platform.platform().encode(),
            _APPLICATION: f"carom {__version__}".encode(),
        }
        head = struct.pack("=IHHQ", _ORDER, 1, 0, _ANY_LENGTH)
        self._block(_SECTION, head, options)

    def packet(
        self, interface: str, nanoseconds: int, data: bytes, length: int, way: Way, comment: str
    ) -> None:
        """Write a packet of `length` bytes, of which `data` is kept; its time is since 1970.

        Raises OSError.
        """
        number = self._numbers.get(interface)
        if number is None:
            number = self._numbers[interface] = len(self._numbers)
            options = {_NAME: interface.encode(), _RESOLUTION: bytes([_NANOSECONDS])}
            self._block(_INTERFACE, struct.pack("=HHI", _ETHERNET, 0, self._snap), options)
        head = struct.pack(
            "=IIIII", number, nanoseconds >> 32, nanoseconds & 0xFFFFFFFF, len(data), length
        )
        options = {_COMMENT: comment.encode(), _FLAGS: struct.pack("=I", way)}
        self._block(_PACKET, head + _whole(data), options)

    def _block(self, kind: int, body: bytes, options: Mapping[int, bytes]) -> None:
        body += b"".join(_option(code, value) for code, value in options.items())
        body += struct.pack("=HH", 0, 0)  # opt_endofopt
        length = struct.pack("=I", 12 + len(body))
        self._file.write(struct.pack("=I", kind) + length + body + length)


def _whole(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _option(code: int, value: bytes) -> bytes:
    value = value[:_OPTION_MAX]
    return struct.pack("=HH", code, len(value)) + _whole(value)
