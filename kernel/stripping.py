# SPDX-License-Identifier: Apache-2.0
"""Whether a device takes VLAN tags off the frames before XDP sees them, by ethtool's ioctl."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct

_SIOCETHTOOL = 0x8946  # linux/sockios.h
_GFLAGS = 0x25  # ETHTOOL_GFLAGS, linux/ethtool.h
_RXVLAN = 1 << 8  # ETH_FLAG_RXVLAN
_VALUE = struct.Struct("=II")  # struct ethtool_value
_REQUEST = struct.Struct("@16sP16x")  # struct ifreq

HANDS_ON = ("veth",)
"""Drivers where the other end decides whether frames have tags, whatever the setting here is."""


def strips_tags(name: str, driver: str) -> bool:
    """Whether an interface strips tags, or may: for a veth its peer decides (ethtool's txvlan)."""
    if driver in HANDS_ON:
        return True
    asked = ctypes.create_string_buffer(_VALUE.pack(_GFLAGS, 0), _VALUE.size)
    request = _REQUEST.pack(name.encode(), ctypes.addressof(asked))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any:
        try:
            fcntl.ioctl(any, _SIOCETHTOOL, request)
        except OSError:  # it has no such settings, or is gone
            return False
    _, flags = _VALUE.unpack(asked.raw)
    return bool(flags & _RXVLAN)
