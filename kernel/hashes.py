# SPDX-License-Identifier: Apache-2.0
"""Hashes of keys, by secrets that are drawn at each start: slot.h and key_hash.h in Python.

An attacker who could make two keys share a slot would void one by writes to the other. So a slot is
SipHash by a secret that nobody outside knows, whatever the environment says.
"""

from __future__ import annotations

import ctypes
import functools
import operator
import secrets
import struct
from collections.abc import Callable, Mapping, Sequence

from carom.kernel.siphash import absorb, begin, end, siphash

_BEFORE = 32  # SLOT_BEFORE of slot.h
_SHIFT = 48  # SLOT_SHIFT of slot.h
_MASK = 0xFFFF  # of the 16 bits above: SLOTS - 1
_U64 = 2**64 - 1
_FACTOR = 0x9E3779B97F4A7C15  # HASH_FACTOR of key_hash.h


@functools.cache
def python_secret() -> bytes | None:
    """The 16 bytes of secret with which hash() of bytes is SipHash-1-3 here; None if it is not.

    CPython draws them when it starts, but with PYTHONHASHSEED set they are known to everybody.
    """
    try:
        secret = bytes((ctypes.c_char * 16).in_dll(ctypes.pythonapi, "_Py_HashSecret"))
    except ValueError:
        return None
    samples = (secrets.token_bytes(length) for length in range(1, 64))
    same = all(
        hash(sample) >> _SHIFT & _MASK == siphash(secret, sample) >> _SHIFT for sample in samples
    )
    return secret if same else None


class Hashes:
    """The secrets of one loaded fast path.

    SipHash written in Python takes microseconds, but hash() of bytes is SipHash too. It is used
    with 32 secret bytes of our own before each key, so its own secret may be known; programs get
    the state after those bytes. Without `native`, or where python_secret() is None, the same is
    computed in Python.
    """

    def __init__(self, *, native: bool = True, parameters: Mapping[str, int] | None = None):
        """Draw secrets, or go on with those of a fast path that had these `parameters`.

        Those were another process', so that slots are computed in Python.
        """
        if parameters:
            v0, v1, v2, v3 = (parameters[f"slot_v{n}"] for n in range(4))
            known = v0, v1, v2, v3
            self.slot_of: Callable[[bytes], int] = lambda key: end(known, key, _BEFORE) >> _SHIFT
            self.parameters = dict(parameters)
            return
        theirs = python_secret() if native else None
        before = secrets.token_bytes(_BEFORE)
        state = absorb(begin(theirs or secrets.token_bytes(16)), before)
        self.slot_of = (
            (lambda key: hash(before + key) >> _SHIFT & _MASK)
            if theirs is not None
            else (lambda key: end(state, key, _BEFORE) >> _SHIFT)
        )
        """The cell of `versions` that a key hashes to, 0 to SLOTS - 1."""
        self.parameters = {
            **{f"slot_v{n}": word for n, word in enumerate(state)},
            **{f"hash_secret{n}": secrets.randbits(64) for n in range(2)},
        }
        """The parameters that programs are loaded with."""


def hash_of(weights: Sequence[int], service: int, key: bytes) -> int:
    """hash_of() of key_hash.h: the hash that the directory finds a key by, 0 to 2**64 - 1."""
    words = struct.pack(f"=HH4x{len(key)}s{-len(key) % 8}x", service, len(key), key)
    numbers = (number for (number,) in struct.iter_unpack("=I", words))
    hashed: int = sum(map(operator.mul, weights, numbers)) & _U64
    hashed = (hashed ^ hashed >> 32) * _FACTOR & _U64
    return hashed ^ hashed >> 32
