# SPDX-License-Identifier: Apache-2.0
"""Numbers for what a server is bound to, addresses and devices: each answers for itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from carom.kernel.abi import VIEWS_MAX
from carom.kernel.netlink import Address

Bound = tuple[Address, int]
"""An address, and the ifindex of a device or 0."""


class Views:
    """A number below VIEWS_MAX for each; a kept one keeps its own. One thread takes them.

    The number that is given anew is the one that was let go of longest ago: what is answered by it
    still, for the moment, is another address' of long before.
    """

    def __init__(self) -> None:
        self._numbers: dict[Bound, int] = {}
        self._free = deque(range(VIEWS_MAX))
        self.used = 0
        """How many numbers have been given, from 0 on."""

    def take(self, addresses: Iterable[Bound]) -> list[Bound]:
        """Number these, and no others from now on; those for which no number is left."""
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
