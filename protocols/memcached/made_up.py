# SPDX-License-Identifier: Apache-2.0
"""What a memcached might have replied, for who asks what a hit would be."""

from __future__ import annotations

from collections.abc import Iterator

from carom.protocols.memcached import HEADER

_READS = {b"get": b"", b"gets": b" 1"}
"""What stands behind the length of a value: the cas number."""


def exchanges(request: bytes) -> Iterator[tuple[bytes, bytes]]:
    """A request for each of a request's keys by itself, and a value of one byte."""
    word, *keys = request[HEADER.size :].split() or [b""]
    if word in _READS:
        head = HEADER.pack(1, 0, 1, 0)
        for key in keys:
            value = b"VALUE %b 0 1%b\r\n?\r\nEND\r\n" % (key, _READS[word])
            yield head + b"%b %b\r\n" % (word, key), head + value
