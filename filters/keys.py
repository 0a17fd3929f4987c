# SPDX-License-Identifier: Apache-2.0
"""The server's keys, as the filter existing-key is told."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from carom.kernel import libbpf

_KEY = struct.Struct("=I")
_STORED = struct.Struct("=QQ")  # struct stored of existing_key.c: exists, puts
_COUNT = struct.Struct("=Q")
KEYS_MAX = 262_144


class Keys:
    """The server's keys, as the kernel knows them.

    A PUT of a key that is gone may be on its way. So the kernel counts PUTs as they pass, and is
    told here how many of them the server had done when the key was removed. If PUTs came past the
    filter, these numbers cannot be trusted: then the key counts as existing for good, and its
    requests go to the server, which knows. With more than KEYS_MAX keys every key may exist.
    """

    def __init__(self, arrived: int, stored: int, overflow: Callable[[], None]):
        """`arrived` and `stored` are the descriptors of the maps `arrived_puts` and `stored_keys`.

        `overflow` is called when they have no room any more.
        """
        self._arrived = arrived
        self._stored = stored
        self._overflow = overflow
        self._puts: dict[int, int] = {}

    def start(self, keys: Iterable[int]) -> None:
        """Forget all that was told before; these keys exist."""
        self._puts.clear()
        for fd, size in ((self._arrived, _COUNT.size), (self._stored, _STORED.size)):
            stale = [
                bytes(key) for _, batch, _ in libbpf.batches(fd, 4, size) for key in _split(batch)
            ]
            for packed in stale:
                libbpf.delete(fd, packed)
        for key in keys:
            self._say(key, exists=True)

    def put(self, key: int, *, new: bool) -> None:
        """The server has done a PUT."""
        self._puts[key] = self._puts.get(key, 0) + 1
        if len(self._puts) > KEYS_MAX:
            self._overflow()
        if new:
            self._say(key, exists=True)

    def delete(self, key: int) -> None:
        """The server has removed a key."""
        done = self._puts.get(key, 0)
        value = libbpf.lookup(self._arrived, _KEY.pack(key), _COUNT.size)
        (arrived,) = _COUNT.unpack(value or bytes(_COUNT.size))
        if done <= arrived:
            self._say(key, exists=False, puts=done)

    def _say(self, key: int, *, exists: bool, puts: int = 0) -> None:
        try:
            libbpf.update(self._stored, _KEY.pack(key), _STORED.pack(exists, puts))
        except OSError:
            self._overflow()


def _split(keys: memoryview) -> Iterable[memoryview]:
    return (keys[start : start + 4] for start in range(0, len(keys), 4))
