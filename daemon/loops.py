# SPDX-License-Identifier: Apache-2.0
"""Replies that may go in a loop: those that are known requests, where a host echoes them."""

from __future__ import annotations

import threading
from typing import Any

from carom.daemon.cache import Cache
from carom.kernel.abi import WHOLE_MAX

_REMEMBERED = 65_536
_KEYS = 1 << 20
"""Bits, by hash, of requests that may be keys in the cache."""


class Loops:
    """Ends loops of a server of ours with a host that sends back what it gets.

    In such a loop a reply comes back as a request. So every loop has a reply that is a request that
    was asked before: at the latest, the reply that was made last. Of `every` such replies to one
    request of one client, one is left out. That ends the loop, which is a single packet. Replies
    that the kernel gives by itself are marked when they are filled (`known`), and counted there
    (include/loop.h). For the serving thread alone, but for `restored`.
    """

    def __init__(self, every: int, cache: Cache | None = None):
        self._every = every
        self._cache = cache
        self._asked: set[int] = set()
        self._asked_before: set[int] = set()
        self._keys = bytearray(_KEYS // 8)
        self._restored: bytearray | None = None
        self._restoring = threading.Lock()
        self._counts: dict[tuple[Any, bytes], int] = {}
        self._latest: tuple[bytes, bytes, bool] = b"", b"", False
        self.ended = 0

    def known(self, request: bytes, reply: bytes) -> bool:
        """Whether the reply is a request that was asked lately, or that the cache answers.

        Remembers the request.
        """
        last_request, last_reply, known = self._latest
        if last_request is request and last_reply is reply:
            return known
        asked = self._asked
        if len(asked) >= _REMEMBERED:
            self._asked_before, self._asked = asked, set()
            asked = self._asked
        hashed = hash(request)
        asked.add(hashed)
        self._keys[hashed % _KEYS >> 3] |= 1 << (hashed & 7)
        hashed = hash(reply)
        known = hashed in asked or hashed in self._asked_before or self._cached(reply, hashed)
        self._latest = request, reply, known
        return known

    def _cached(self, reply: bytes, hashed: int) -> bool:
        """Whether the cache answers a reply. Most are no requests, which needs no system call."""
        at, bit = hashed % _KEYS >> 3, hashed & 7
        if not self._cache or not (
            self._keys[at] >> bit & 1 or (self._restored and self._restored[at] >> bit & 1)
        ):
            return False
        return 0 < len(reply) <= WHOLE_MAX and self._cache.get(reply) is not None

    def restored(self, request: bytes, reply: bytes) -> bool:
        """The same of a reply that comes from a file, before it is stored. For any thread."""
        hashed = hash(request)
        with self._restoring:
            self._restored = self._restored or bytearray(_KEYS // 8)
            self._restored[hashed % _KEYS >> 3] |= 1 << (hashed & 7)
        hashed = hash(reply)
        known = hashed in self._asked or hashed in self._asked_before
        return request == reply or known or self._cached(reply, hashed)

    def ends(self, origin: Any, request: bytes, reply: bytes) -> bool:
        """Whether to leave this reply out, to end a loop. Call it once for each reply."""
        if not self.known(request, reply):
            return False
        key = origin, request
        count = self._counts.get(key, 0) + 1
        if count >= self._every:
            self._counts.pop(key, None)
            self.ended += 1
            return True
        if len(self._counts) >= _REMEMBERED:
            self._counts.clear()
        self._counts[key] = count
        return False
