# SPDX-License-Identifier: Apache-2.0
"""Server cookies (RFC 9018). dns_cookie.h, in the kernel, only judges them.

This makes cookies for tests and measurements.
"""

from __future__ import annotations

import ipaddress
import struct

_WORD = 2**64 - 1


def _turn(word: int, bits: int) -> int:
    return (word << bits | word >> (64 - bits)) & _WORD


def siphash24(key: bytes, data: bytes) -> bytes:
    """SipHash-2-4 as in the paper of Aumasson and Bernstein, by a key of 16 bytes; 8 bytes."""
    k0, k1 = struct.unpack("<QQ", key)
    a, b = k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D
    c, d = k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573
    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) % 256])

    def rounds(count: int) -> None:
        nonlocal a, b, c, d
        for _ in range(count):
            a = (a + b) & _WORD
            b = _turn(b, 13) ^ a
            a = _turn(a, 32)
            c = (c + d) & _WORD
            d = _turn(d, 16) ^ c
            a = (a + d) & _WORD
            d = _turn(d, 21) ^ a
            c = (c + b) & _WORD
            b = _turn(b, 17) ^ c
            c = _turn(c, 32)

    for (word,) in struct.iter_unpack("<Q", padded):
        d ^= word
        rounds(2)
        a ^= word
    c ^= 0xFF
    rounds(4)
    return struct.pack("<Q", a ^ b ^ c ^ d)


def server_cookie(
    secret: bytes, client_cookie: bytes, client: str, seconds: int, *, version: int = 1
) -> bytes:
    """The server's part of a cookie, 16 bytes (RFC 9018 4); `seconds` since 1970, its time."""
    head = bytes([version, 0, 0, 0]) + struct.pack("!I", seconds % 2**32)
    address = ipaddress.ip_address(client).packed
    return head + siphash24(secret, client_cookie + head + address)
