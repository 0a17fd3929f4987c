# SPDX-License-Identifier: Apache-2.0
"""A driver's own counters of an interface (`ethtool -S`), by ethtool's ioctl."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct

_SIOCETHTOOL = 0x8946  # linux/sockios.h
_GSTRINGS, _GSTATS, _GSSET_INFO = 0x1B, 0x1D, 0x37  # ETHTOOL_*, linux/ethtool.h
_STATS = 1  # ETH_SS_STATS
_NAME = 32  # ETH_GSTRING_LEN
_REQUEST = struct.Struct("@16sP16x")  # struct ifreq
_SET = struct.Struct("=IIQI")  # struct ethtool_sset_info with one number
_NAMES = struct.Struct("=III")  # struct ethtool_gstrings
_VALUES = struct.Struct("=II")  # struct ethtool_stats
_SPARE = 2
"""The kernel writes as many as there are then, whatever room there is: queues may be added."""


def driver_counters(name: str) -> dict[str, int]:
    """They by their names; none where the driver has none. Raises OSError for no such interface."""
    socket.if_nametoindex(name)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any:

        def ask(question: bytes, room: int) -> bytes:
            asked = ctypes.create_string_buffer(question, len(question) + room)
            request = _REQUEST.pack(name.encode(), ctypes.addressof(asked))
            fcntl.ioctl(any, _SIOCETHTOOL, request)
            return asked.raw

        try:
            *_, count = _SET.unpack(ask(_SET.pack(_GSSET_INFO, 0, 1 << _STATS, 0), 0))
            room = _SPARE * count
            names = ask(_NAMES.pack(_GSTRINGS, _STATS, count), room * _NAME)[_NAMES.size :]
            values = ask(_VALUES.pack(_GSTATS, count), room * 8)[_VALUES.size :]
        except OSError:  # it has none
            return {}
    return {
        names[at * _NAME :][:_NAME].split(b"\0")[0].decode(errors="replace"): value
        for at, (value,) in enumerate(struct.iter_unpack("=Q", values[: count * 8]))
    }
