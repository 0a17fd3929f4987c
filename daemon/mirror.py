# SPDX-License-Identifier: Apache-2.0
"""A map that userspace alone fills, and always as a whole."""

from __future__ import annotations

import errno
from collections.abc import Container, Mapping

from carom.errors import BPFError
from carom.kernel import libbpf

_FULL = (errno.E2BIG, errno.ENOSPC, errno.ENOMEM)
"""The errors of a map without room."""


class Mirror:
    """What a map in the kernel holds, and what makes it hold something else.

    `things` are what is in it, in the plural, and `room` for how many there is room.
    """

    def __init__(self, map_fd: int, things: str, room: int):
        self._map = map_fd
        self._things = things
        self._room = room
        self.now: dict[bytes, bytes] = {}
        """Its elements, keys and values as packed; to be changed together with the map alone."""

    def hold(self, wanted: Mapping[bytes, bytes]) -> None:
        """Have it hold `wanted`; what is not wanted is removed, even where adding fails.

        Raises BPFError when there is no room for all.
        """
        try:
            libbpf.replace(self._map, self.now, wanted)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise self._full(len(wanted), error) from error

    def _full(self, count: int, error: OSError) -> BPFError:
        if count <= self._room:
            return BPFError(
                f"the kernel refused {count:,} {self._things}: {error.strerror}",
                hint="is there memory left, for this host and for its control group?",
            )
        return BPFError(
            f"{count:,} {self._things} are too many: there is room for {self._room:,}",
            hint="start carom again: it makes room for twice as many as there are",
        )

    def withdraw(self, wanted: Container[bytes]) -> None:
        """Remove all that is not `wanted`; nothing is added."""
        libbpf.withdraw(self._map, self.now, wanted)

    def set(self, key: bytes, value: bytes) -> None:
        """Add or change one element."""
        libbpf.update(self._map, key, value)
        self.now[key] = value

    def remove(self, key: bytes) -> None:
        """Remove one element, if it is there."""
        if self.now.pop(key, None) is not None:
            libbpf.delete(self._map, key)
