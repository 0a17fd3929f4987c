# SPDX-License-Identifier: Apache-2.0
"""What a name server might have replied, for who asks what a hit would be."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_HEADER = struct.Struct("!6H")  # RFC 1035 4.1.1
_RECORD = struct.Struct("!HHHIH")  # name, type, class, TTL, length of its data
_REPLY, _COPIED = 0x8400, 0x0110  # QR and AA; RD and CD
_QUESTION, _CLASS_IN, _TTL = 0xC00C, 1, 3600
_OPT = b"\0" + struct.pack("!HHIH", 41, 1232, 0, 0)  # RFC 6891 6.1.2
_LENGTHS = {28: 16}
"""Bytes of a record's data, by type, where it is no IPv4 address."""


def exchanges(request: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The request, and one record; with EDNS, if the request has it."""
    end = request.find(b"\0", _HEADER.size) + 5
    if end < _HEADER.size + 5 or end > len(request):
        return
    id, flags, *_, additional = _HEADER.unpack_from(request)
    (kind,) = struct.unpack_from("!H", request, end - 4)
    edns = additional == 1
    head = _HEADER.pack(id, _REPLY | flags & _COPIED, 1, 1, 0, edns)
    data = bytes(_LENGTHS.get(kind, 4))
    record = _RECORD.pack(_QUESTION, kind, _CLASS_IN, _TTL, len(data)) + data
    yield request, head + request[_HEADER.size : end] + record + (_OPT if edns else b"")
