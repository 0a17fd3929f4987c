# SPDX-License-Identifier: Apache-2.0
"""The key-value server of Kierkegaard and Willén (2025), in Python."""

from __future__ import annotations

import os
import signal
import sys

from carom.protocols import kv
from carom.protocols.spec import Watcher

CAPACITY = 100_000
_VALUES = 2**64


class KeyValueStore:
    """Unsigned 32-bit keys to signed 64-bit values.

    PUT adds to the key's value, which is 0 for a new key; sums wrap around at 64 bits. It is
    refused when the store is full and the key is new. Only GET has a reply, and none for a key that
    is absent. With `stops`, STOP ends this process as SIGTERM does. Otherwise it is ignored, for
    nothing on the wire may control a server that is in use. With `verbose` every request is printed
    on stderr.
    """

    def __init__(self, capacity: int = CAPACITY, *, verbose: bool = False, stops: bool = False):
        self.capacity = capacity
        self.verbose = verbose
        self.stops = stops
        self.values: dict[int, int] = {}
        self.watcher: Watcher | None = None
        self.invalid = 0
        self.refused = 0

    def handle(self, request: bytes) -> bytes | None:
        """Carry out a request; its reply, or None where it has none."""
        command = kv.decode(request)
        if self.verbose:
            print(f"kv: {command or request[:32]!r}", file=sys.stderr)
        if command is None:
            self.invalid += 1
            return None
        key = command.key or 0
        if command.name == b"GET":
            value = self.values.get(key)
            return None if value is None else b"%d" % value
        if command.name == b"PUT":
            self._add(key, command.value or 0)
        elif command.name == b"DELETE":
            if self.values.pop(key, None) is not None and self.watcher:
                self.watcher.delete(key)
        elif self.stops:
            os.kill(os.getpid(), signal.SIGTERM)
        return None

    def _add(self, key: int, value: int) -> None:
        new = key not in self.values
        if new and len(self.values) >= self.capacity:
            self.refused += 1
            return
        total = self.values.get(key, 0) + value
        self.values[key] = (total + _VALUES // 2) % _VALUES - _VALUES // 2
        if self.watcher:
            self.watcher.put(key, new=new)
