# SPDX-License-Identifier: Apache-2.0
"""A device's features, queues and counters, by ethtool's ioctl (linux/ethtool.h)."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from typing import NamedTuple

_SIOCETHTOOL = 0x8946  # linux/sockios.h
_REQUEST = struct.Struct("@16sP16x")  # struct ifreq
_GSTRINGS, _GSTATS, _GSSET_INFO = 0x1B, 0x1D, 0x37
_GFEATURES, _SFEATURES, _GCHANNELS = 0x3A, 0x3B, 0x3C
_STATS, _FEATURES = 1, 4  # ETH_SS_STATS, ETH_SS_FEATURES
_STRING = 32  # ETH_GSTRING_LEN
_SET = struct.Struct("=IIQI")  # struct ethtool_sset_info, for one set
_HEAD = struct.Struct("=II")  # of struct ethtool_gfeatures, ethtool_sfeatures and ethtool_stats
_BLOCK = struct.Struct("=4I")  # struct ethtool_get_features_block
_CHANNELS = struct.Struct("=9I")  # struct ethtool_channels
_SPARE = 2
"""The kernel writes as many as there are then, whatever room there is: queues may be added."""


class Feature(NamedTuple):
    """A feature: whether it is on, and whether that can be changed."""

    on: bool
    changeable: bool


class Channels(NamedTuple):
    """How many queues take packets in and send them, and how many could.

    `together` says that each does both.
    """

    receive: int
    receive_max: int
    send: int
    send_max: int
    together: bool = False


def call(name: str, asked: bytes, room: int = 0) -> bytes:
    """What the kernel makes of a command on a device, with so many bytes behind it. OSError."""
    buffer = ctypes.create_string_buffer(asked, len(asked) + room)
    request = _REQUEST.pack(name.encode(), ctypes.addressof(buffer))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any:
        fcntl.ioctl(any, _SIOCETHTOOL, request)
    return buffer.raw


def _names(name: str, of: int) -> list[str]:
    """The names of a set, in the order of their values."""
    told = call(name, _SET.pack(_GSSET_INFO, 0, 1 << of, 0))
    count: int = _SET.unpack(told)[3]
    head = struct.pack("=III", _GSTRINGS, of, count)
    told = call(name, head, _SPARE * count * _STRING)[len(head) :]
    return [
        told[at : at + _STRING].partition(b"\0")[0].decode(errors="replace")
        for at in range(0, count * _STRING, _STRING)
    ]


def counters(name: str) -> dict[str, int]:
    """A driver's own counters (`ethtool -S`) by their names; none where it has none.

    Raises OSError for no such interface.
    """
    socket.if_nametoindex(name)
    try:
        names = _names(name, _STATS)
        told = call(name, _HEAD.pack(_GSTATS, len(names)), _SPARE * len(names) * 8)
    except OSError:  # it has none
        return {}
    return dict(zip(names, struct.unpack_from(f"={len(names)}Q", told, _HEAD.size), strict=True))


def features(name: str) -> dict[str, Feature]:
    """A device's features, by the kernel's names (`rx-gro`, `rx-lro`). Raises OSError."""
    names = _names(name, _FEATURES)
    blocks = -(-len(names) // 32)
    told = call(name, _HEAD.pack(_GFEATURES, blocks) + bytes(blocks * _BLOCK.size))
    found = {}
    for number, feature in enumerate(names):
        block, bit = divmod(number, 32)
        at = _HEAD.size + block * _BLOCK.size
        available, _, active, never = (word >> bit & 1 for word in _BLOCK.unpack_from(told, at))
        found[feature] = Feature(bool(active), bool(available and not never))
    return found


def set_feature(name: str, feature: str, *, on: bool) -> None:
    """Turn a feature on or off. Raises OSError, also where the device keeps it as it is."""
    names = _names(name, _FEATURES)
    if feature not in names:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    block, bit = divmod(names.index(feature), 32)
    blocks = -(-len(names) // 32)
    words = [0, 0] * blocks
    words[2 * block : 2 * block + 2] = 1 << bit, int(on) << bit
    call(name, _HEAD.pack(_SFEATURES, blocks) + struct.pack(f"={2 * blocks}I", *words))
    if features(name)[feature].on != on:
        raise OSError(errno.EOPNOTSUPP, f"{name} keeps {feature} as it is")


def channels(name: str) -> Channels | None:
    """A device's queues; None for one that has no such setting. Raises OSError."""
    try:
        told = call(name, _CHANNELS.pack(_GCHANNELS, *bytes(8)))
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return None
        raise
    _, receive_max, send_max, _, both_max, receive, send, _, both = _CHANNELS.unpack(told)
    return Channels(
        receive + both, receive_max + both_max, send + both, send_max + both_max, bool(both)
    )
