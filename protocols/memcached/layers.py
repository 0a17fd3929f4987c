# SPDX-License-Identifier: Apache-2.0
"""memcached's packets for scapy, which takes long to import."""

from __future__ import annotations

from scapy.fields import ShortField, XShortField
from scapy.layers.inet import UDP
from scapy.packet import Packet, bind_layers

from carom.protocols.memcached import PORT


class MemcachedUDP(Packet):
    """The frame header before every request and reply (doc/protocol.txt, "UDP protocol")."""

    name = "memcached UDP frame"
    fields_desc = [  # noqa: RUF012  # scapy's way
        XShortField("request_id", 0),
        ShortField("sequence", 0),
        ShortField("total", 1),
        ShortField("reserved", 0),
    ]


bind_layers(UDP, MemcachedUDP, dport=PORT)
bind_layers(UDP, MemcachedUDP, sport=PORT)
