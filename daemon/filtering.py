# SPDX-License-Identifier: Apache-2.0
"""A running filter and the servers behind it: what `carom filter` calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from carom.daemon.clock import JiffiesClock
from carom.errors import UsageError
from carom.filters.capture import Capture
from carom.filters.filter import Filter
from carom.filters.names import NAMES, Name
from carom.kernel import libbpf
from carom.protocols.spec import Store

CAPTURE_RATE_MAX = 10_000


class Filtering:
    """The filter of the services that run together, with the stores that they answer from."""

    def __init__(self, kernel: Filter, clock: JiffiesClock, stores: Sequence[Store | None]):
        self.filter = kernel
        self._clock = clock
        self._stores = stores
        self.use(kernel.name)

    def use(self, name: str) -> None:
        """Swap the filter, between two packets. Raises UsageError for an unknown or unfit one."""
        known: Name | None = next((candidate for candidate in NAMES if candidate == name), None)
        if known is None:
            raise UsageError(f"there is no filter {name!r}", hint=f"there are {', '.join(NAMES)}")
        if known == "existing-key":
            self._tell_keys()
        self.filter.load(known)
        if known != "existing-key":
            for store in filter(None, self._stores):
                store.watcher = None

    def _tell_keys(self) -> None:
        stores = self._stores
        if len(stores) != 1 or stores[0] is None:
            raise UsageError(
                "existing-key has to be told the server's keys",
                hint="it filters one service at a time, and one with carom's KeyValueStore",
            )
        stores[0].watcher = self.filter.keys
        self.filter.learn(list(stores[0].values), self._clock)

    def show(self) -> dict[str, Any]:
        """Name, place, settings, counters CPU by CPU, and the number of the program."""
        return {
            "filter": self.filter.name,
            "place": self.filter.place,
            "settings": self.filter.settings(),
            "tallies": self.filter.tallies(),
            "program": libbpf.program_id(self.filter.program),
        }

    def captures(self, rate: int, limit: int) -> list[Capture]:
        """Up to `limit` packets captured since the last call, `rate` a second at most.

        Raises UsageError for a rate out of range."""
        if not 1 <= rate <= CAPTURE_RATE_MAX:
            raise UsageError(
                f"a rate of {rate} captures a second is out of range",
                hint=f"1 to {CAPTURE_RATE_MAX:,}",
            )
        return self.filter.captures(self._clock, rate, limit)
