# SPDX-License-Identifier: Apache-2.0
"""Services for the tests to run: `carom serve --app services:NAME` from this folder."""

from __future__ import annotations

import collections
import random
import zlib

from carom import Reply, Service

PORT = 51141

sized = Service(PORT)
"""Replies with as many bytes as the request's first two say."""

told = Service(PORT)
"""Does as the request's first word says; most replies tell how often its handler was asked."""

backwards = Service(PORT)
"""Replies with the request backwards: what is sent back to it turns back again."""

_asked: collections.Counter[bytes] = collections.Counter()


def sized_request(reply_bytes: int, length: int) -> bytes:
    """A request of `length` bytes for a reply of `reply_bytes`."""
    return reply_bytes.to_bytes(2, "big").ljust(length, b"?")


def sized_reply(request: bytes) -> bytes:
    """The reply to expect."""
    return random.Random(zlib.crc32(request)).randbytes(int.from_bytes(request[:2], "big"))


sized.reply(sized_reply)
backwards.reply(lambda request: request[::-1])


@told.reply
def _told(request: bytes) -> object:
    word, _, rest = request.partition(b" ")
    _asked[request] += 1
    answer = b"%s: %d" % (request, _asked[request])
    if word == b"ttl":
        return Reply(answer, ttl=float(rest.split()[0]))
    if word == b"uncached":
        return Reply(answer, cache=False)
    if word == b"bytearray":
        return bytearray(answer)
    if word == b"silent":
        return None
    if word == b"raise":
        raise ValueError("as the request said")
    if word == b"wrong":
        return {b"text": "text", b"number": 7, b"data": Reply("text"), b"ttl": Reply(b"", "1")}[
            rest
        ]
    if word == b"invalidate":
        told.invalidate(rest)
        return Reply(b"done", cache=False)
    if word == b"self":
        told.invalidate(request)
    return answer
