# SPDX-License-Identifier: Apache-2.0
"""The request whose hit and miss are measured."""

from __future__ import annotations

from carom.protocols.coap import URI_PATH, option
from carom.protocols.spec import Sample

_TOKEN = b"\x07\x00\x00\x2a"
_MESSAGE = b"\x12\x34"
_CONTENT_FORMAT = 12


def _get(*path: bytes) -> bytes:
    """A confirmable GET (RFC 7252 3)."""
    segments = [option(0 if after else URI_PATH, one) for after, one in enumerate(path)]
    return b"\x44\x01" + _MESSAGE + _TOKEN + b"".join(segments)


_CONTENT = b"\x64\x45" + _MESSAGE + _TOKEN + option(_CONTENT_FORMAT, b"") + b"\xff22.5 C"
"""Its acknowledgement, which has the content."""

SAMPLE = Sample(
    "coap, /sensors/1",
    _get(b"sensors", b"1"),
    _CONTENT,
    miss=("coap, /sensors/2", _get(b"sensors", b"2")),
)
