# SPDX-License-Identifier: Apache-2.0
"""The daemon's hands on the kernel's cache: fill, look, drop, flush and sweep."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Iterator
from typing import Protocol

from carom.daemon.fastpath import ENTRY_CLASSES, REPLY_CLASSES, FastPath, LengthClass
from carom.include import libbpf
from carom.include.abi import (
    ASKED,
    PENDING,
    PENDING_SECONDS,
    REPLY_MAX,
    REPLY_SHORT,
    SERVICES_MAX,
    SLOTS,
    Entry,
    slot_of,
    sum_of,
    unpack_entry,
)
from carom.include.abi import Protocol as Wire
from carom.protocols import language

_HEAD = "=8xQ8xQQQI2xH8xH"
"""expires, token, generation, body, slot, stored and service, at the front of every entry."""

_BATCH = 512
_EXIST = 2  # BPF_EXIST, linux/bpf.h
_FULL = (-errno.E2BIG, -errno.ENOMEM, -errno.EBUSY)
_U64 = 2**64 - 1


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


class _Table:
    """One length class's map, with a buffer for one element: a fill allocates nothing."""

    def __init__(self, fastpath: FastPath, length_class: LengthClass):
        self.room, _, self.key, self.value = length_class
        self.fd = fastpath.map(length_class.map)
        self._buffer = bytearray(self.key.size + self.value.size)
        self._key_at = ctypes.addressof(ctypes.c_char.from_buffer(self._buffer))
        self._value_at = self._key_at + self.key.size
        self._update = libbpf.library().bpf_map_update_elem

    def put(self, key: tuple[object, ...], value: tuple[object, ...], flags: int = 0) -> bool:
        """Store; False when the map is full, or with _EXIST when it has no such key."""
        self.key.pack_into(self._buffer, 0, *key)
        self.value.pack_into(self._buffer, self.key.size, *value)
        result: int = self._update(self.fd, self._key_at, self._value_at, flags)
        if result in _FULL or (flags and result == -errno.ENOENT):
            return False
        if result:
            raise OSError(-result, os.strerror(-result))
        return True

    def get(self, *key: object) -> bytes | None:
        """The value of a key, or None."""
        return libbpf.lookup(self.fd, self.key.pack(*key), self.value.size)

    def delete(self, *key: object) -> bool:
        """Remove; False when it was not there."""
        return libbpf.delete(self.fd, self.key.pack(*key))

    def batches(self) -> Iterator[tuple[memoryview, memoryview]]:
        """All keys and values, some at a time."""
        for _, keys, values in libbpf.batches(self.fd, self.key.size, self.value.size, _BATCH):
            yield keys, values

    def heads(self) -> Iterator[tuple[memoryview, Iterator[tuple[int, ...]]]]:
        """All keys with the front of their entries, some at a time."""
        head = struct.Struct(f"{_HEAD}{self.value.size - struct.calcsize(_HEAD)}x")
        for keys, values in self.batches():
            yield keys, head.iter_unpack(values)


def _fitting(tables: tuple[_Table, ...], length: int) -> _Table | None:
    return next((table for table in tables if length <= table.room), None)


class Cache:
    """The kernel's cache of one service.

    `take` and `fill` belong to the thread that serves; the rest may be called from any. Nothing is
    decided at a fill: the entry carries its token, and the fast path compares at every hit.
    """

    def __init__(
        self,
        fastpath: FastPath,
        clock: Clock,
        ttl: float,
        service: int = 0,
        protocol: Wire = Wire.RAW,
    ):
        self._fastpath = fastpath
        self._language = language(protocol)
        self._key_of = self._language.key_of
        self._clock = clock
        self._ttl = clock.ticks(ttl)
        self._service = service
        self._generation_cell = SLOTS + service
        self._versions = fastpath.versions
        self._entries = tuple(_Table(fastpath, one) for one in ENTRY_CLASSES)
        self._replies = tuple(_Table(fastpath, one) for one in REPLY_CLASSES)
        self._pendings = fastpath.map("pendings")
        self._raw = protocol == Wire.RAW
        self.take = self._take_raw() if self._raw else self._take
        self.fills = 0
        self.refused = 0
        """Fills that the kernel had no room for: the cache is full."""
        self.not_admitted = 0
        """Replies to keys that were not missed before, while the cache was full."""
        self.held = 0
        """Replies not kept for the sake of a write that nobody acknowledges."""
        self.unfit = 0
        """Replies that cannot be cached: too long, or to a request that cannot be a key."""

    def _take(self, request: bytes) -> Token | None:
        """The token of a miss: take it before the reply is made.

        None for what is no read, and while a write that nobody acknowledges is on its way.
        """
        key = self._key_of(request)
        if key is None:
            return None
        slot = self._slot_of(key)
        token = slot, self._versions[slot], self._versions[self._generation_cell]
        # The version first: whoever sees a new one sees its hold too.
        now, holds = self._clock.now(), self._fastpath.holds
        return None if now < holds[slot] or now < holds[self._generation_cell] else token

    def _slot_of(self, key: bytes) -> int:
        """The cell of a key's version, as the kernel has it too; only we name those of `raw`."""
        return hash(key) % SLOTS if self._raw else slot_of(self._language.slot_key_of(key))

    def _take_raw(self) -> Callable[[bytes], Token]:
        """`take` where requests are keys and nothing writes: a closure, for every miss pays."""
        versions, generation_cell = self._versions, self._generation_cell

        def take(request: bytes) -> Token:
            slot = hash(request) % SLOTS  # _slot_of, without the call
            return slot, versions[slot], versions[generation_cell]

        return take

    def fill(
        self, request: bytes, reply: bytes, token: Token | None, ttl: float | None = None
    ) -> None:
        """Store a reply; it is in the kernel when this returns. `ttl` in seconds."""
        key, length = self._key_of(request), len(reply)
        if key is None or length > REPLY_MAX:
            self.unfit += 1
            return
        if token is None:
            self.held += 1
            return
        entries = self._entries[len(key) > self._entries[0].room]
        stamp = next(self._fastpath.stamps)
        slot, version, generation = token
        now = self._clock.now()
        map_key = (self._service, len(key), key)
        body, inline = (0, reply) if length <= REPLY_SHORT else (hash(map_key) & _U64, b"")
        admitted = self._admit(map_key)
        stored = entries.put(
            map_key,
            (
                stamp,
                now + (self._ttl if ttl is None else self._clock.ticks(ttl)),
                now,
                version,
                generation,
                body,
                slot,
                length,
                length,
                sum_of(reply),
                *map_key,
                inline,
                stamp,
            ),
            0 if admitted else _EXIST,
        )
        if stored and length > REPLY_SHORT:
            replies = self._replies[length > self._replies[0].room]
            if not replies.put((body,), (stamp, reply, stamp)):
                entries.delete(*map_key)
                self._fastpath.orphans = True
                stored = False
        if stored:
            self.fills += 1
        elif admitted:
            self.refused += 1
        else:
            self.not_admitted += 1

    def _admit(self, map_key: tuple[int, int, bytes]) -> bool:
        """admit() of include/admission.h, but for entries that are there: those _EXIST takes."""
        seen, room = self._fastpath.seen, self._fastpath.room
        if seen is None or room is None:
            return True
        free = room[0]
        if free:
            room[0] = free - 1
        hashed = hash(map_key) & _U64
        cell = hashed % len(seen)
        if seen[cell] == hashed:
            return True
        seen[cell] = hashed
        return free > 0

    def _table(self, key: bytes) -> _Table | None:
        return _fitting(self._entries, len(key))

    def find(self, name: bytes) -> Entry | None:
        """The entry of what a user calls by this name, dead or alive, or None."""
        return next(filter(None, map(self.get, self._language.keys_named(name))), None)

    def get(self, key: bytes) -> Entry | None:
        """The entry under a key, dead or alive, or None."""
        table = self._table(key)
        value = table.get(self._service, len(key), key) if table else None
        return unpack_entry(table.value, value) if table and value else None

    def reply(self, entry: Entry) -> bytes | None:
        """The reply of an entry; None when it was evicted, or replaced meanwhile."""
        if entry.stored <= REPLY_SHORT:
            return entry.reply[: entry.length]
        table = _fitting(self._replies, entry.stored)
        value = table.get(entry.body) if table else None
        if not table or not value:
            return None
        head, data, tail = table.value.unpack(value)
        return data[: entry.length] if head == tail == entry.head else None

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
        for table in self._entries:
            size = table.value.size
            for _, values in table.batches():
                for start in range(0, len(values), size):
                    entry = unpack_entry(table.value, values[start : start + size])
                    if entry and entry.service == self._service:
                        yield entry

    def invalidate(self, request: bytes) -> None:
        """Void what was stored for a request, and any fill whose token was taken before."""
        key = self._key_of(request)
        if key is not None:
            self.void(key)

    def void(self, key: bytes) -> None:
        """The same by the key."""
        self._fastpath.bump(self._slot_of(key))

    def drop(self, name: bytes) -> bool:
        """Invalidate what a user calls by this name, and remove it; False when it was not there."""
        dropped = False
        for key in self._language.keys_named(name):
            self.void(key)
            entry, table = self.get(key), self._table(key)
            if entry and table:
                self._remove_reply(entry.body)
                dropped |= table.delete(self._service, len(key), key)
        return dropped

    def flush(self) -> int:
        """Void everything at once; then remove it. Returns how many entries were removed.

        Those that a sweep took which was under way are among them.
        """
        before = self._fastpath.removed
        self._fastpath.bump(self._generation_cell)
        self.sweep()
        return self._fastpath.removed - before

    def _remove_reply(self, body: int) -> None:
        for table in self._replies:
            if body:
                table.delete(body)

    def sweep(self) -> int:
        """Remove entries that can no longer hit, so that a full cache has room again.

        One that was refilled in between is removed with them: that costs a miss. Returns how many.
        """
        with self._fastpath.sweeping:
            removed = self._sweep()
            self._fastpath.removed += removed
        return removed

    def _sweep(self) -> int:
        now, versions, room = self._clock.now(), self._versions, self._fastpath.room
        before = room[0] if room else 0
        removed, live, referenced = 0, 0, set[tuple[int, _Table | None]]()
        for table in self._entries:
            dead = []
            for keys, heads in table.heads():
                for i, head in enumerate(heads):
                    expires, token, generation, body, slot, stored, service = head
                    if (
                        expires > now
                        and token == versions[slot % SLOTS]
                        and generation == versions[SLOTS + service % SERVICES_MAX]
                    ):
                        live += 1
                        referenced.add((body, _fitting(self._replies, stored)))
                    else:
                        dead.append((bytes(keys[i * table.key.size :][: table.key.size]), body))
            for key, body in dead:
                self._remove_reply(body)
                removed += libbpf.delete(table.fd, key)
        if room:
            self._fastpath.set_room(live, taken=max(0, before - room[0]))
        if self._fastpath.orphans:
            self._fastpath.orphans = False
            self._sweep_replies(referenced)
        self._sweep_pendings(now)
        return removed

    def _sweep_pendings(self, now: int) -> None:
        """Remove the tokens of requests that have no reply to come."""
        patience, fd = self._clock.ticks(PENDING_SECONDS), self._pendings
        for _, keys, values in libbpf.batches(fd, ASKED.size, PENDING.size, _BATCH):
            for i, (_, _, since, _, _) in enumerate(PENDING.iter_unpack(values)):
                if now - since >= patience:
                    libbpf.delete(fd, bytes(keys[i * ASKED.size :][: ASKED.size]))

    def _sweep_replies(self, referenced: set[tuple[int, _Table | None]]) -> None:
        """Remove replies that no entry names: those whose key was refilled in another class."""
        for table in self._replies:
            orphans = [
                body
                for keys, _ in table.batches()
                for (body,) in table.key.iter_unpack(keys)
                if (body, table) not in referenced
            ]
            for body in orphans:
                table.delete(body)

    def count(self) -> int:
        """How many entries there are, dead or alive."""
        return sum(
            service == self._service
            for table in self._entries
            for keys, _ in table.batches()
            for service, *_ in table.key.iter_unpack(keys)
        )
