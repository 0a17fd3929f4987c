# SPDX-License-Identifier: Apache-2.0
"""Every service's entries in the kernel: their maps, voiding them, and sweeping them out."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from carom.errors import BPFError, UsageError
from carom.kernel import libbpf
from carom.kernel.abi import (
    KEY,
    KEY_MAX,
    KEY_SHORT,
    LONG_ENTRY,
    LONG_REPLY,
    MEDIUM_REPLY,
    REPLY_MAX,
    REPLY_MEDIUM,
    SEEN_PER_ENTRY,
    SERVICES_MAX,
    SHORT_ENTRY,
    SHORT_KEY,
    SLOTS,
)
from carom.kernel.bpf import Module
from carom.kernel.hashes import Hashes
from carom.kernel.resource import Resource

Policy = Literal["lru", "fcfs"]
Admit = Literal["always", "second"]
"""What a full cache takes: every reply, or only one whose key is asked for a second time."""

_MAP_TYPES: dict[Policy, str] = {"lru": '"lru_hash"', "fcfs": '"hash"'}
_ELEMENT_BYTES = 64  # the kernel's own part of a hash element
_KEPT_MAX = 128
"""Free places of an LRU map for one CPU: LOCAL_FREE_TARGET, kernel/bpf/bpf_lru_list.c."""
_MEMORY_SHARE = 0.8
_HEAD = "=8xQ8xQQI2xH8xH"
"""The front of every entry: expires, token, body, slot, stored and service."""

_WORD = struct.Struct("=Q")
_BATCH = 512
_EXIST = 2  # BPF_EXIST, linux/bpf.h
_FULL = (-errno.E2BIG, -errno.ENOMEM, -errno.EBUSY)


class LengthClass(NamedTuple):
    """One map of entries or replies: those of at most `room` bytes that no shorter class takes."""

    room: int
    map: str
    key: struct.Struct
    value: struct.Struct


ENTRY_CLASSES = (
    LengthClass(KEY_SHORT, "short_entries", SHORT_KEY, SHORT_ENTRY),
    LengthClass(KEY_MAX, "long_entries", KEY, LONG_ENTRY),
)
REPLY_CLASSES = (
    LengthClass(REPLY_MEDIUM, "medium_replies", _WORD, MEDIUM_REPLY),
    LengthClass(REPLY_MAX, "long_replies", _WORD, LONG_REPLY),
)
ENTRY_BYTES = SEEN_PER_ENTRY * _WORD.size + sum(
    length_class.key.size + length_class.value.size + _ELEMENT_BYTES
    for length_class in (*ENTRY_CLASSES, *REPLY_CLASSES)
)
"""Bytes that a capacity of one takes: the kernel allocates every class at once."""


def check_memory(capacity: int) -> None:
    """Raises UsageError for a capacity that memory cannot hold.

    The kernel allocates all entries at once, and would use up all memory for them.
    """
    lines = Path("/proc/meminfo").read_text().splitlines()
    (available,) = (int(line.split()[1]) * 1024 for line in lines if "MemAvailable" in line)
    needed, most = capacity * ENTRY_BYTES, int(_MEMORY_SHARE * available)
    if needed > most:
        raise UsageError(
            f"a capacity of {capacity} needs {needed / 2**30:.1f} GiB of memory, and "
            f"{available / 2**30:.1f} are available",
            hint=f"at most --capacity {most // ENTRY_BYTES} here, or --memory {most >> 20}M",
        )


def store_defines(policy: Policy, admit: Admit, capacity: int) -> dict[str, str | int]:
    """The macros that a store's C is compiled with."""
    seen = {"SEEN": SEEN_PER_ENTRY * capacity} if admit == "second" else {}
    return {"CACHE_TYPE": _MAP_TYPES[policy], "CAPACITY": capacity, **seen}


class Table:
    """One length class's map, with a buffer for one element: a fill allocates nothing.

    `put` belongs to one thread.
    """

    def __init__(self, fd: int, length_class: LengthClass):
        self.room, _, self.key, self.value = length_class
        self.fd = fd
        self._buffer = bytearray(self.key.size + self.value.size)
        self._key_at = ctypes.addressof(ctypes.c_char.from_buffer(self._buffer))
        self._value_at = self._key_at + self.key.size
        self._update = libbpf.library().bpf_map_update_elem

    def put(
        self, key: tuple[object, ...], value: tuple[object, ...], *, replace: bool = False
    ) -> bool:
        """Store; False when the map is full, or has no such key to `replace`."""
        self.key.pack_into(self._buffer, 0, *key)
        self.value.pack_into(self._buffer, self.key.size, *value)
        flags = _EXIST if replace else 0
        result: int = self._update(self.fd, self._key_at, self._value_at, flags)
        if result in _FULL or (replace and result == -errno.ENOENT):
            return False
        if result:
            raise OSError(-result, os.strerror(-result))
        return True

    def get(self, *key: object) -> bytes | None:
        """The value of a key, or None."""
        return libbpf.lookup(self.fd, self.key.pack(*key), self.value.size)

    def change(self, key: tuple[object, ...], value: bytes) -> bool:
        """Put a whole value in the place of one that is there; False when there is none."""
        result: int = self._update(self.fd, self.key.pack(*key), value, _EXIST)
        if result and result not in (*_FULL, -errno.ENOENT):
            raise OSError(-result, os.strerror(-result))
        return not result

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


def fitting(tables: tuple[Table, ...], length: int) -> Table | None:
    """The table for that many bytes; None where they are too many."""
    return next((table for table in tables if length <= table.room), None)


class Store(Resource):
    """The entries of one fast path's services, dead or alive; each service has its Cache.

    `versions`, `voids` and `holds` are the maps' own cells: reads need no system call, and only
    `bump` raises versions. So are `seen` and `room` (include/admission.h) with `admit` second; else
    they are None. `hashes` has its secrets. No two fills get the same of its `stamps`. `orphans`
    says that a class of replies was full, and has to be swept. `removed` is how many entries all
    sweeps took.
    """

    def __init__(self, module: Module, hashes: Hashes, capacity: int, admit: Admit):
        """Raises VerifierError, BPFError."""
        self._module = module
        self._capacity = capacity
        self.hashes = hashes
        self._bump = module.program("bump")
        with contextlib.ExitStack() as stack:

            def cells(name: str, count: int) -> memoryview:
                memory = module.cells(name, count)
                stack.callback(memory.release)
                return memory

            self.versions = cells("versions", SLOTS + SERVICES_MAX)
            self.voids = cells("voids", 1)
            self.holds = cells("holds", SLOTS + SERVICES_MAX)
            self.seen = self.room = None
            if admit == "second":
                self.seen = cells("seen", SEEN_PER_ENTRY * capacity)
                self.room = cells("room", 1)
            self._stack = stack.pop_all()
        self._entries, self._replies = self.tables()
        self.stamps = itertools.count(time.time_ns())
        self.orphans = False
        self.removed = 0
        self._sweeping = threading.Lock()
        self.set_room(0)

    def tables(self) -> tuple[tuple[Table, ...], tuple[Table, ...]]:
        """Tables of entries and of replies, by length; their buffers are for one thread."""
        entries, replies = (
            tuple(
                Table(self._module.map(length_class.map), length_class) for length_class in classes
            )
            for classes in (ENTRY_CLASSES, REPLY_CLASSES)
        )
        return entries, replies

    def bump(self, cell: int) -> None:
        """Void a cell: from now on entries with an older token are void, on every CPU."""
        frame = struct.pack("=I", cell).ljust(64, b"\0")
        if libbpf.test_run(self._bump, frame).retval != libbpf.XDP_PASS:
            raise BPFError(f"versions has no cell {cell}")

    def set_room(self, entries: int, taken: int = 0) -> None:
        """Say how many `entries` of all services live, and how many were filled since (`taken`).

        An LRU map evicts before it is full, as each CPU keeps free places for itself.
        """
        if self.room:
            cpus = libbpf.possible_cpus()
            kept = cpus * min(_KEPT_MAX, max(1, self._capacity // cpus // 2))
            self.room[0] = max(0, self._capacity - kept - entries - taken)

    def remove_reply(self, body: int) -> None:
        """Remove the reply that an entry names; 0 is no name: the reply is in the entry."""
        for table in self._replies:
            if body:
                table.delete(body)

    def sweep(self, now: int) -> int:
        """Remove entries that can no longer hit, so that a full cache has room again.

        `now` is in jiffies. An entry that is refilled meanwhile is removed too, which costs a miss.
        One thread sweeps at a time. Returns how many were removed.
        """
        with self._sweeping:
            removed = self._sweep(now)
            self.removed += removed
        return removed

    def _sweep(self, now: int) -> int:
        versions, room = self.versions, self.room
        before = room[0] if room else 0
        removed, live, referenced = 0, 0, set[tuple[int, Table | None]]()
        for table in self._entries:
            dead = []
            for keys, heads in table.heads():
                for i, head in enumerate(heads):
                    expires, token, body, slot, stored, service = head
                    if (
                        expires > now
                        and token >= versions[slot % SLOTS]
                        and token >= versions[SLOTS + service % SERVICES_MAX]
                    ):
                        live += 1
                        referenced.add((body, fitting(self._replies, stored)))
                    else:
                        dead.append((bytes(keys[i * table.key.size :][: table.key.size]), body))
            for key, body in dead:
                self.remove_reply(body)
                removed += libbpf.delete(table.fd, key)
        if room:
            self.set_room(live, taken=max(0, before - room[0]))
        if self.orphans:
            self.orphans = False
            self._sweep_replies(referenced)
        return removed

    def _sweep_replies(self, referenced: set[tuple[int, Table | None]]) -> None:
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

    def close(self) -> None:
        """Release its cells; the maps are the module's."""
        self._stack.close()
