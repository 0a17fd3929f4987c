# SPDX-License-Identifier: Apache-2.0
"""raw: the whole payload is the key, and nothing on the wire writes. The other half of raw.h."""

from __future__ import annotations

from carom.kernel.abi import RAW_MAX


def key_of(request: bytes) -> bytes | None:
    """The cache key of a request; None for one that has none: empty, or longer than a key."""
    return request if 1 <= len(request) <= RAW_MAX else None


def slot_key_of(key: bytes) -> bytes:
    """The bytes of a cache key that its slot is computed from: all of them."""
    return key


def keys_named(name: bytes) -> tuple[bytes, ...]:
    """The cache keys of what a user calls by this name: the request itself."""
    return (name,)
