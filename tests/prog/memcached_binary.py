# SPDX-License-Identifier: Apache-2.0
"""memcached's binary protocol as Python has it: its requests, read, made, and nearly made.

The format is that of memcached's protocol-binary.xml; what that leaves open was read from the
behaviour of 1.6.18.
"""

from __future__ import annotations

import random
import struct
from typing import NamedTuple

from carom.protocols.memcached import KEY_LENGTH_MAX
from carom.protocols.protocol import Intent

MAGIC = 0x80
"""The first byte of a request."""

HEADER = struct.Struct("!BBHBBHIIQ")
"""Magic, opcode, length of the key, of the extras, data type, vbucket, length of the body, opaque,
cas."""


class Opcode(NamedTuple):
    """What the binary protocol's requests of one kind want, and what they are made of."""

    intent: Intent
    extras: tuple[int, ...] = (0,)
    """The lengths that their extras may have, in bytes."""
    key: tuple[bool, ...] = (True,)
    """Whether there may be, or may not be, a key."""
    value: bool = False
    quiet: bool = False


_GET = Opcode(Intent.OTHER)
_QUERY = Opcode(Intent.OTHER, key=(False,))
_FLUSH = Opcode(Intent.WRITE_ALL, extras=(0, 4), key=(False,), quiet=True)
_SASL = Opcode(Intent.OTHER, value=True)
_SET = Opcode(Intent.WRITE, extras=(8,), value=True)
_JOIN = Opcode(Intent.WRITE, value=True)
_DELETE = Opcode(Intent.WRITE)
_COUNT = Opcode(Intent.WRITE, extras=(20,))
_TOUCH = Opcode(Intent.WRITE, extras=(4,))
_UNKNOWN = Opcode(Intent.WRITE_ALL, key=(True, False))

OPCODES: dict[int, Opcode] = {
    **dict.fromkeys((0x00, 0x09, 0x0C, 0x0D), _GET),
    **dict.fromkeys((0x07, 0x17, 0x0A, 0x0B, 0x20), _QUERY),
    0x10: Opcode(Intent.OTHER, key=(True, False)),  # stat
    **dict.fromkeys((0x21, 0x22), _SASL),
    **dict.fromkeys((0x08, 0x18), _FLUSH),
    **dict.fromkeys((0x01, 0x02, 0x03), _SET),
    **dict.fromkeys((0x11, 0x12, 0x13), _SET._replace(quiet=True)),
    **dict.fromkeys((0x0E, 0x0F), _JOIN),
    **dict.fromkeys((0x19, 0x1A), _JOIN._replace(quiet=True)),
    0x04: _DELETE,
    0x14: _DELETE._replace(quiet=True),
    **dict.fromkeys((0x05, 0x06), _COUNT),
    **dict.fromkeys((0x15, 0x16), _COUNT._replace(quiet=True)),
    **dict.fromkeys((0x1C, 0x1D, 0x23), _TOUCH),
    **dict.fromkeys((0x1E, 0x24), _TOUCH._replace(quiet=True)),
}
"""Those that memcached knows. Behind any other it loses its place."""


class BinaryRequest(NamedTuple):
    """A request of the binary protocol, by its header."""

    opcode: Opcode
    extras_length: int
    key_length: int
    value_length: int

    @classmethod
    def read(cls, payload: bytes) -> BinaryRequest | None:
        """Of a payload that begins with one; None where memcached would not read it on."""
        if len(payload) < HEADER.size:
            return None
        magic, number, key, extras, _, _, body, _, _ = HEADER.unpack_from(payload)
        opcode, value = OPCODES.get(number), body - key - extras
        if magic != MAGIC or opcode is None or extras not in opcode.extras:
            return None
        if bool(key) not in opcode.key or key > KEY_LENGTH_MAX:
            return None
        return cls(opcode, extras, key, value) if 0 <= value <= 2**30 * opcode.value else None

    @property
    def length(self) -> int:
        """In bytes, all in all."""
        return self.key_end + self.value_length

    @property
    def key_end(self) -> int:
        """Where its key ends, in bytes from its beginning."""
        return HEADER.size + self.extras_length + self.key_length

    def lasts(self, payload: bytes) -> bool:
        """Whether it writes its key, and gives no end to an item that had none."""
        if self.opcode.intent is not Intent.WRITE:
            return False
        extras = payload[HEADER.size : HEADER.size + self.extras_length]
        if len(extras) == 20:  # delta, initial value, exptime: all ones for none
            return extras[-4:] in (bytes(4), b"\xff" * 4)
        return len(extras) != 4 and not any(extras[-4:])

    def key(self, payload: bytes) -> bytes:
        """Its key, of a payload that begins with it."""
        return payload[self.key_end - self.key_length : self.key_end]


def binary(
    opcode: int,
    key: bytes = b"",
    value: bytes = b"",
    extras: int | None = None,
    exptime: int = 0,
    **fields: int,
) -> bytes:
    """One request, with as many extras as are its opcode's, and fields of the header as told.

    The extras are zeros but for their end, where `exptime` stands, unless it is 0.
    """
    extras = OPCODES.get(opcode, _UNKNOWN).extras[0] if extras is None else extras
    size = extras + len(key) + len(value)
    told = {"key_length": len(key), "extras_length": extras, "data_type": 0, "vbucket": 0}
    told |= {"body_length": size, "opaque": 0, "cas": 0} | fields
    last = (exptime % 2**32).to_bytes(4, "big") if exptime else b""
    head = HEADER.pack(MAGIC, opcode, *told.values())
    return head + bytes(extras - len(last)) + last + key + value


def binary_request(rng: random.Random) -> bytes:
    """One request in binary, as it should be or nearly."""
    opcode = rng.randrange(0x25) if rng.random() < 0.97 else rng.randrange(256)
    fields = {"opaque": rng.getrandbits(32), "cas": rng.getrandbits(64)}
    if rng.random() < 0.04:
        wrong = rng.choice(("key_length", "extras_length", "data_type", "vbucket", "body_length"))
        fields[wrong] = rng.choice((0, 1, 9, 250))
    kind = OPCODES.get(opcode, _UNKNOWN)
    key = rng.choice((b"k", b"key-one", rng.randbytes(rng.randrange(1, 251)))) * rng.choice(
        kind.key
    )
    if rng.random() < 0.03:
        key = rng.choice((b"", b"k", b"k" * 251, b"k" * 300))
    extras = rng.choice((0, 4, 8, 20)) if rng.random() < 0.02 else None
    values = (b"", b"flush_all\r\n", HEADER.pack(MAGIC, 8, *[0] * 7), b"y" * rng.randrange(900))
    value = rng.choice(values) if kind.value or rng.random() < 0.02 else b""
    exptime = rng.choice((0, 0, 1, -1, 2**31)) if kind.extras[0] and extras is None else 0
    return binary(opcode, key, value, extras, exptime, **fields)
