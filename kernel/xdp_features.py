# SPDX-License-Identifier: Apache-2.0
"""What a driver says of its XDP, by generic netlink's family netdev (linux/netdev.h)."""

from __future__ import annotations

import errno
import struct
import sys

from carom.kernel import netlink

_NETLINK_GENERIC = 16  # linux/netlink.h
_CONTROL, _GETFAMILY, _DEV_GET = 0x10, 3, 1  # GENL_ID_CTRL, CTRL_CMD_GETFAMILY, NETDEV_CMD_DEV_GET
_FAMILY_ID, _FAMILY_NAME = 1, 2  # CTRL_ATTR_*
_IFINDEX, _XDP_FEATURES = 1, 3  # NETDEV_A_DEV_*
_BASIC = 1 << 0  # NETDEV_XDP_ACT_BASIC: what answering takes, XDP_TX among it
_GENERIC = struct.Struct("=BBxx")  # struct genlmsghdr
_ATTRIBUTE = struct.Struct("=HH")


def has_native(ifindex: int) -> bool:
    """Whether a driver says that it has native XDP. Raises OSError: ENOENT before Linux 6.3."""
    family = _ask(_CONTROL, _GETFAMILY, _FAMILY_NAME, b"netdev\0")[_FAMILY_ID]
    told = _ask(
        int.from_bytes(family, sys.byteorder), _DEV_GET, _IFINDEX, struct.pack("=I", ifindex)
    )
    if _XDP_FEATURES not in told:
        raise OSError(errno.ENOENT, "its driver does not say")
    return bool(struct.unpack("=Q", told[_XDP_FEATURES])[0] & _BASIC)


def _ask(kind: int, command: int, attribute: int, value: bytes) -> dict[int, bytes]:
    padded = value + bytes(-len(value) % 4)
    body = _GENERIC.pack(command, 1) + _ATTRIBUTE.pack(4 + len(value), attribute) + padded
    (message,) = netlink.ask(kind, body, _NETLINK_GENERIC)
    return dict(netlink.attributes(message[_GENERIC.size :]))
