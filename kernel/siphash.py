# SPDX-License-Identifier: Apache-2.0
"""SipHash in Python, the same as siphash.h: a hash with a secret of 128 bits.

Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012). SipHash-c-d makes c rounds for
each word and d at the end.
"""

from __future__ import annotations

import struct

State = tuple[int, int, int, int]

_U64 = 2**64 - 1


def _round(state: State) -> State:
    v0, v1, v2, v3 = state
    v0 = (v0 + v1) & _U64
    v2 = (v2 + v3) & _U64
    v1 = (v1 << 13 & _U64 | v1 >> 51) ^ v0
    v3 = (v3 << 16 & _U64 | v3 >> 48) ^ v2
    v0 = v0 << 32 & _U64 | v0 >> 32
    v2 = (v2 + v1) & _U64
    v0 = (v0 + v3) & _U64
    v1 = (v1 << 17 & _U64 | v1 >> 47) ^ v2
    v3 = (v3 << 21 & _U64 | v3 >> 43) ^ v0
    return v0, v1, v2 << 32 & _U64 | v2 >> 32, v3


def begin(secret: bytes) -> State:
    """The state before the first word, for a secret of 16 bytes."""
    k0, k1 = struct.unpack("<QQ", secret)
    return (
        k0 ^ 0x736F6D6570736575,
        k1 ^ 0x646F72616E646F6D,
        k0 ^ 0x6C7967656E657261,
        k1 ^ 0x7465646279746573,
    )


def absorb(state: State, words: bytes, rounds: int = 1) -> State:
    """The state after `words`, whole words of eight bytes; `rounds` is SipHash's c."""
    for (word,) in struct.iter_unpack("<Q", words):
        v0, v1, v2, v3 = state
        state = v0, v1, v2, v3 ^ word
        for _ in range(rounds):
            state = _round(state)
        v0, v1, v2, v3 = state
        state = v0 ^ word, v1, v2, v3
    return state


def end(state: State, data: bytes, before: int = 0, word_rounds: int = 1, rounds: int = 3) -> int:
    """The hash of `before` bytes (whole words), already in the state, and of `data` after them.

    `word_rounds` and `rounds` are SipHash's c and d.
    """
    last = (before + len(data)) % 256
    data += bytes(-(len(data) + 1) % 8) + bytes((last,))
    v0, v1, v2, v3 = absorb(state, data, word_rounds)
    state = v0, v1, v2 ^ 0xFF, v3
    for _ in range(rounds):
        state = _round(state)
    v0, v1, v2, v3 = state
    return v0 ^ v1 ^ v2 ^ v3


def siphash(secret: bytes, data: bytes, word_rounds: int = 1, rounds: int = 3) -> int:
    """SipHash-c-d of `data` with a secret of 16 bytes, 0 to 2**64 - 1."""
    return end(begin(secret), data, 0, word_rounds, rounds)
