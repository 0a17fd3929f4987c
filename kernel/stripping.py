# SPDX-License-Identifier: Apache-2.0
"""Whether a device takes VLAN tags off the frames before XDP sees them."""

from __future__ import annotations

import struct

from carom.kernel import ethtool

_GFLAGS = 0x25  # ETHTOOL_GFLAGS, linux/ethtool.h
_RXVLAN = 1 << 8  # ETH_FLAG_RXVLAN
_VALUE = struct.Struct("=II")  # struct ethtool_value

HANDS_ON = ("veth",)
"""Drivers where the other end decides whether frames have tags, whatever the setting here is."""


def strips_tags(name: str, driver: str) -> bool:
    """Whether an interface strips tags, or may: for a veth its peer decides (ethtool's txvlan)."""
    if driver in HANDS_ON:
        return True
    try:
        _, flags = _VALUE.unpack(ethtool.call(name, _VALUE.pack(_GFLAGS, 0)))
    except OSError:  # it has no such settings, or is gone
        return False
    return bool(flags & _RXVLAN)
