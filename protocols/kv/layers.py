# SPDX-License-Identifier: Apache-2.0
"""kv's packets for scapy, which takes long to import."""

from __future__ import annotations

from scapy.fields import ConditionalField, LEIntField, LESignedLongField, StrLenField
from scapy.packet import Packet

from carom.protocols import kv


def _word_length(packet: Packet) -> int:
    """The length of the leading run of letters in the packet that is dissected."""
    return len(kv.word_of(packet.original))


class KeyValue(Packet):
    """One request, for scapy."""

    name = "key-value request"
    fields_desc = [  # noqa: RUF012  # scapy's way
        StrLenField("word", b"GET", length_from=_word_length),
        ConditionalField(LEIntField("key", 0), lambda packet: packet.word != b"STOP"),
        ConditionalField(LESignedLongField("value", 0), lambda packet: packet.word == b"PUT"),
    ]
