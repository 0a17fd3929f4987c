# SPDX-License-Identifier: Apache-2.0
"""coap: CoAP over UDP (RFC 7252), its replies learned from the server: coap.h says what and why."""

from __future__ import annotations

from collections.abc import Sequence

from carom.protocols.spec import Filled, RequestId, Sample, Spec

PORT = 5683
TOKEN_MAX = 8
REQUEST_MAX = 240
"""Bytes of the longest read: header, token, the options of its key, and a few more."""

URI_PATH, URI_QUERY = 11, 15
_VERSION_CON, _GET = 0x40, 0x01  # RFC 7252 3


def option(delta: int, value: bytes) -> bytes:
    """An option as on the wire; `delta` is its number less the number before it (RFC 7252 3.1)."""
    heads, more = [], b""
    for number in (delta, len(value)):
        if number < 13:
            heads.append(number)
        elif number < 269:
            heads.append(13)
            more += bytes([number - 13])
        else:
            heads.append(14)
            more += (number - 269).to_bytes(2)
    return bytes([heads[0] << 4 | heads[1]]) + more + value


def keys_named(name: bytes) -> tuple[bytes, ...]:
    """The cache keys of a resource as a user names it, such as `/sensors/1?unit=K`.

    One for each length of a token, all for requests without host, port, format and ETag.
    """
    path, _, query = name.partition(b"?")
    segments = [segment for segment in path.split(b"/") if segment]
    queries = query.split(b"&") if query else []
    options, before, start, end = b"", 0, 4, 4
    for number, values in ((URI_PATH, segments), (URI_QUERY, queries)):
        for value in values:
            options += option(number - before, value)
            before = number
            if number == URI_PATH:
                end = 4 + len(options)
                start = start if start > 4 else end - len(value)
    if len(options) > REQUEST_MAX or end > 255:
        return ()
    return tuple(bytes([token, start, end, 0]) + options for token in range(TOKEN_MAX + 1))


def asking(name: bytes) -> bytes | None:
    """A confirmable GET, without a token, of a resource such as `/sensors/1?unit=K`."""
    keys = keys_named(name)
    if not keys:
        return None
    return bytes([_VERSION_CON, _GET]) + (1).to_bytes(2) + keys[0][4:]


def _samples(client: str) -> Sequence[Sample]:
    from carom.protocols.coap.samples import SAMPLE

    del client
    return [SAMPLE]


SPEC = Spec(
    name="coap",
    number=4,
    filled=Filled.LEARNED,
    port=PORT,
    request_max=REQUEST_MAX,
    id=RequestId(4, TOKEN_MAX, varies=True),
    headers=("coap.h",),
    functions=(
        "request",
        "answer",
        "learn",
        "what_answer",
        "may_be_learned",
        "answers_more",
        "counts_off",
        "slot_start",
        "slot_end",
    ),
    nameless=True,
    repeat_at=2,
    written_at_any_door=True,
    keys_named=keys_named,
    asking=asking,
    samples=_samples,
)
