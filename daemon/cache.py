# SPDX-License-Identifier: Apache-2.0
"""The daemon's hands on the kernel's cache: fill, look, drop, flush and sweep."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import time
from collections.abc import Iterator
from typing import Protocol

from carom.include import libbpf
from carom.include.abi import (
    ENTRY,
    ENTRY_KEY,
    KEY,
    REPLY_MAX,
    SLOTS,
    Entry,
    slot_of,
    sum_of,
    unpack_entry,
)
from carom.protocols.raw import key_of
from carom.xdp.fastpath import FastPath

_HEAD = struct.Struct(f"=QQQQI{ENTRY.size - 36}x")
"""head, expires, token, generation and slot of an entry, the rest skipped."""


class Clock(Protocol):
    """Time in jiffies."""

    def now(self) -> int:
        """Jiffies now."""

    def ticks(self, seconds: float) -> int:
        """Jiffies in so many seconds."""

    def seconds(self, ticks: int) -> float:
        """Seconds in so many jiffies."""


Token = tuple[int, int, int]
"""What a miss takes before its reply is made: a slot, its version, the service's generation."""


class Cache:
    """The kernel's cache of one service.

    `take` and `fill` belong to the thread that serves; the rest may be called from any. Nothing is
    decided at a fill: the entry carries its token, and the fast path compares at every hit.
    """

    def __init__(self, fastpath: FastPath, clock: Clock, ttl: float):
        self._fastpath = fastpath
        self._clock = clock
        self._ttl = clock.ticks(ttl)
        self._fd = fastpath.cache_fd
        self._service = fastpath.SERVICE
        self._generation_cell = SLOTS + fastpath.SERVICE
        self._versions = fastpath.versions
        self._entry = bytearray(ENTRY.size)
        self._entry_pointer = ctypes.addressof(ctypes.c_char.from_buffer(self._entry))
        self._key_pointer = self._entry_pointer + ENTRY_KEY
        self._update = libbpf.library().bpf_map_update_elem
        self._stamp = time.time_ns()
        self.fills = 0
        self.refused = 0
        """Fills that the kernel had no room for: the cache is full."""
        self.unfit = 0
        """Replies that cannot be cached: too long, or to a request that cannot be a key."""

    def take(self, request: bytes) -> Token:
        """The token of a miss: take it before the reply is made."""
        slot = slot_of(request)
        versions = self._versions
        return slot, versions[slot], versions[self._generation_cell]

    def fill(self, request: bytes, reply: bytes, token: Token, ttl: float | None = None) -> None:
        """Store a reply; it is in the kernel when this returns. `ttl` in seconds."""
        key = key_of(request)
        if key is None or len(reply) > REPLY_MAX:
            self.unfit += 1
            return
        self._stamp += 1
        slot, version, generation = token
        ENTRY.pack_into(
            self._entry,
            0,
            self._stamp,
            self._clock.now() + (self._ttl if ttl is None else self._clock.ticks(ttl)),
            version,
            generation,
            slot,
            len(reply),
            sum_of(reply),
            self._service,
            len(key),
            key,
            0,
            reply,
            self._stamp,
        )
        result = self._update(self._fd, self._key_pointer, self._entry_pointer, 0)
        if result == 0:
            self.fills += 1
        elif result in (-errno.E2BIG, -errno.ENOMEM, -errno.EBUSY):
            self.refused += 1
        else:
            raise OSError(-result, os.strerror(-result))

    def get(self, request: bytes) -> Entry | None:
        """The entry of a request, dead or alive, or None."""
        value = libbpf.lookup(self._fd, self._pack(request), ENTRY.size)
        return unpack_entry(value) if value else None

    def state(self, entry: Entry) -> str:
        """`live`, `void` (written or flushed since) or `expired`."""
        if (entry.token, entry.generation) != (
            self._versions[entry.slot],
            self._versions[self._generation_cell],
        ):
            return "void"
        return "live" if self._clock.now() < entry.expires else "expired"

    def seconds_left(self, entry: Entry) -> float:
        """Seconds until an entry expires; negative when it has."""
        return self._clock.seconds(entry.expires - self._clock.now())

    def entries(self) -> Iterator[Entry]:
        """All entries, dead or alive, in no order."""
        for _, _, values in libbpf.batches(self._fd, KEY.size, ENTRY.size):
            for start in range(0, len(values), ENTRY.size):
                entry = unpack_entry(values[start : start + ENTRY.size])
                if entry:
                    yield entry

    def invalidate(self, request: bytes) -> None:
        """Void what was stored for a request, and any fill whose token was taken before."""
        self._fastpath.bump(slot_of(request))

    def drop(self, request: bytes) -> bool:
        """Invalidate a request and remove its entry; False when there was none."""
        self.invalidate(request)
        return libbpf.delete(self._fd, self._pack(request))

    def flush(self) -> int:
        """Void everything at once; then remove it. Returns how many entries were removed."""
        self._fastpath.bump(self._generation_cell)
        return self.sweep()

    def sweep(self) -> int:
        """Remove entries that can no longer hit, so that a full cache has room again.

        One that was refilled in between is removed with them: that costs a miss.
        """
        now, versions = self._clock.now(), self._versions
        generation = versions[self._generation_cell]
        dead = [
            bytes(keys[i * KEY.size : (i + 1) * KEY.size])
            for _, keys, values in libbpf.batches(self._fd, KEY.size, ENTRY.size)
            for i, (_, expires, token, entry_generation, slot) in enumerate(
                _HEAD.iter_unpack(values)
            )
            if expires <= now or entry_generation != generation or token != versions[slot % SLOTS]
        ]
        return sum(libbpf.delete(self._fd, key) for key in dead)

    def count(self) -> int:
        """How many entries there are, dead or alive."""
        return sum(n for n, _, _ in libbpf.batches(self._fd, KEY.size, ENTRY.size))

    def _pack(self, request: bytes) -> bytes:
        return KEY.pack(self._service, len(request), request)
