# SPDX-License-Identifier: Apache-2.0
"""Numbers for the addresses and devices that a server is bound to: each answers for itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from carom.kernel.abi import VIEWS_MAX
from carom.kernel.netlink import Address

Bound = tuple[Address, int]
"""An address, and the ifindex of a device or 0."""


class Views:
    """A number below VIEWS_MAX for each, kept as long as it is taken again. One thread takes them.

    The number that has been free for longest is given next: what the kernel may still answer by it
    is of an address of long ago.
    """

    def __init__(self) -> None:
        self._numbers: dict[Bound, int] = {}
        self._free = deque(range(VIEWS_MAX))
        self.used = 0
        """How many numbers have been given, from 0 on."""

    def take(self, addresses: Iterable[Bound]) -> list[Bound]:
        """Number these, and no others from now on. Returns those that get no number."""
        wanted = list(dict.fromkeys(addresses))
        kept = {bound: self._numbers[bound] for bound in wanted if bound in self._numbers}
        self._free.extend(self._numbers[bound] for bound in self._numbers.keys() - kept.keys())
        left = []
        for bound in wanted:
            if bound in kept:
                continue
            if not self._free:
                left.append(bound)
                continue
            kept[bound] = self._free.popleft()
            self.used = max(self.used, kept[bound] + 1)
        self._numbers = kept  # at once: other threads ask meanwhile
        return left

    def of(self, bound: Bound) -> int | None:
        """The number of an address, if it has one."""
        return self._numbers.get(bound)
