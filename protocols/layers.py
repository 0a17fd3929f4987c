# SPDX-License-Identifier: Apache-2.0
"""The protocols' packets for scapy, which takes long to import: apart from what a daemon needs."""

from __future__ import annotations

from scapy.fields import (
    ConditionalField,
    LEIntField,
    LESignedLongField,
    ShortField,
    StrLenField,
    XShortField,
)
from scapy.layers.inet import UDP
from scapy.packet import Packet, bind_layers

from carom.protocols import kv, memcached


def _word_length(packet: Packet) -> int:
    """How long the leading run of letters is in what is dissected."""
    return len(kv.word_of(packet.original))


class KeyValue(Packet):
    """One request, for scapy."""

    name = "key-value request"
    fields_desc = [  # noqa: RUF012  # scapy's way
        StrLenField("word", b"GET", length_from=_word_length),
        ConditionalField(LEIntField("key", 0), lambda one: one.word != b"STOP"),
        ConditionalField(LESignedLongField("value", 0), lambda one: one.word == b"PUT"),
    ]


class MemcachedUDP(Packet):
    """The frame header before every request and reply (doc/protocol.txt, "UDP protocol")."""

    name = "memcached UDP frame"
    fields_desc = [  # noqa: RUF012  # scapy's way
        XShortField("request_id", 0),
        ShortField("sequence", 0),
        ShortField("total", 1),
        ShortField("reserved", 0),
    ]


bind_layers(UDP, MemcachedUDP, dport=memcached.PORT)
bind_layers(UDP, MemcachedUDP, sport=memcached.PORT)
