# SPDX-License-Identifier: Apache-2.0
"""What a CoAP server might have replied, for who asks what a hit would be."""

from __future__ import annotations

from collections.abc import Iterator

_TOKEN = 15  # RFC 7252 3: the lower half of the first byte
_CON, _ACK, _CONTENT, _PAYLOAD = 0x40, 0x60, 0x45, 0xFF


def exchanges(request: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The request as one that is acknowledged, and one byte of content."""
    if len(request) >= 4:
        token = request[0] & _TOKEN
        reply = bytes([_ACK | token, _CONTENT]) + request[2 : 4 + token]
        yield bytes([_CON | token]) + request[1:], reply + bytes([_PAYLOAD]) + b"?"
