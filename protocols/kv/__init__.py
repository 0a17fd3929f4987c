# SPDX-License-Identifier: Apache-2.0
"""kv: the key-value store of Kierkegaard and Willén (2025), its requests byte for byte.

`PUT` key value, `GET` key, `DELETE` key and `STOP`, where a key is an unsigned integer of 32 bits
and a value a signed one of 64, both little-endian. Only GET has a reply: the value in decimal. The
command is the leading run of ASCII letters, so a key whose first byte is a letter cannot be asked
for. kv.h is the same in C.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import NamedTuple

from carom.protocols.protocol import Intent
from carom.protocols.spec import Filled, Sample, Spec

PORT = 12345

_KEY = struct.Struct("<I")
_VALUE = struct.Struct("<q")
_LETTERS = re.compile(rb"[A-Za-z]*")
_SIZES = {b"PUT": 15, b"GET": 7, b"DELETE": 10, b"STOP": 4}


class Command(NamedTuple):
    """A request that was understood."""

    name: bytes
    key: int | None = None
    value: int | None = None

    def encode(self) -> bytes:
        """Its bytes. Raises struct.error for a key or a value out of range."""
        key = b"" if self.key is None else _KEY.pack(self.key)
        value = b"" if self.value is None else _VALUE.pack(self.value)
        return self.name + key + value


def word_of(request: bytes) -> bytes:
    """The command: the leading run of ASCII letters."""
    match = _LETTERS.match(request)
    return match[0] if match else b""


def decode(request: bytes) -> Command | None:
    """The command of a request; None for an invalid request."""
    name = word_of(request)
    if _SIZES.get(name) != len(request):
        return None
    rest = request[len(name) :]
    key = _KEY.unpack_from(rest)[0] if rest else None
    value = _VALUE.unpack_from(rest, _KEY.size)[0] if len(rest) > _KEY.size else None
    return Command(name, key, value)


def intent_of(request: bytes) -> Intent:
    """What a request means for the cache."""
    command = decode(request)
    if command is None or command.name == b"STOP":
        return Intent.OTHER
    return Intent.READ if command.name == b"GET" else Intent.WRITE


def key_of(request: bytes) -> bytes | None:
    """The cache key of a GET: the four bytes of its key. None for other requests."""
    return request[-_KEY.size :] if intent_of(request) is Intent.READ else None


def written_by(request: bytes) -> bytes | None:
    """The cache key that a PUT or DELETE changes. None for other requests."""
    if intent_of(request) is not Intent.WRITE:
        return None
    command = decode(request)
    assert command and command.key is not None
    return _KEY.pack(command.key)


def read_of_written(request: bytes) -> bytes | None:
    """The GET whose reply a PUT or DELETE voids. None for other requests."""
    key = written_by(request)
    return None if key is None else b"GET" + key


def keys_named(name: bytes) -> tuple[bytes, ...]:
    """The cache keys of what a user names: by the number of a key, or by a GET."""
    if name.isdigit() and int(name) < 2**32:
        return (_KEY.pack(int(name)),)
    key = key_of(name)
    return () if key is None else (key,)


def asking(name: bytes) -> bytes | None:
    """The request of a command in words, such as `PUT 7 -1`; a number alone is a GET."""
    words = name.split()
    if len(words) == 1 and words[0].isdigit():
        words = [b"GET", *words]
    try:
        command = Command(words[0].upper(), *map(int, words[1:])).encode()
    except (IndexError, TypeError, ValueError, struct.error):
        return None
    return command if decode(command) else None


def _samples(client: str) -> Sequence[Sample]:
    del client
    return [Sample("kv", b"GET\x0a\0\0\0", b"12345", miss=("kv", b"GET\x0b\0\0\0"))]


SPEC = Spec(
    name="kv",
    number=1,
    filled=Filled.DAEMON,
    port=PORT,
    request_max=max(_SIZES.values()),
    headers=("kv.h",),
    functions=("request",),
    filtered=Command(b"PUT", 10, 1).encode(),
    why_not_learned="its replies do not name the key that they are the value of",
    key_of=key_of,
    keys_named=keys_named,
    asking=asking,
    read_of_written=read_of_written,
    samples=_samples,
)
