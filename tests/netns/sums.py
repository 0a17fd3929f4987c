# SPDX-License-Identifier: Apache-2.0
"""Requests whose right UDP checksum looks half-made: they pass (include/checksum.h).

One in 65,536 does. A client of tests that count hits sends none of them.
"""

from __future__ import annotations

import ipaddress
import socket
import struct

from prog.mutations import words


def looks_half_made(sender: socket.socket, data: bytes) -> bool:
    """Whether this payload's checksum would, from a connected socket."""
    ends = (sender.getsockname(), sender.getpeername())
    addresses = b"".join(ipaddress.ip_address(host).packed for host, *_ in ends)
    length = 8 + len(data)
    half = struct.pack("!H", words(addresses + struct.pack("!HH", socket.IPPROTO_UDP, length)))
    ports = struct.pack("!3H", ends[0][1], ends[1][1], length)
    return words(half + ports + half + data) == 0xFFFF
