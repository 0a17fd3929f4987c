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
from carom.filters.own import told
from carom.protocols.spec import Store

CAPTURE_RATE_MAX = 10_000
SHOWN_MAX = 10_000
"""Entries of a map, or records, in one answer."""


class Filtering:
    """The filter of the services that run together, with the stores that they answer from."""

    def __init__(self, kernel: Filter, clock: JiffiesClock, stores: Sequence[Store | None]):
        self.filter = kernel
        self._clock = clock
        self._stores = stores
        if kernel.name in NAMES:
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
            self._tell_no_keys()

    def use_own(self, name: str, object: str) -> None:
        """Swap it for a filter of the user's own, as own.Own.told() says it.

        Raises UsageError, ObjectError, VerifierError, BPFError; then the one before goes on.
        """
        self.filter.load_own(told(name, self.filter.place, object))
        self._tell_no_keys()

    def _tell_no_keys(self) -> None:
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
        """Name, place, settings, counters CPU by CPU, the number of the program, and the maps of an
        own filter that are shown."""
        return {
            "filter": self.filter.name,
            "place": self.filter.place,
            "settings": self.filter.settings(),
            "tallies": self.filter.tallies(),
            "program": self.filter.program_id(),
            "maps": self.filter.maps(),
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

    def tables(self, most: int) -> list[dict[str, Any]]:
        """What is in an own filter's maps: up to `most` entries of each. Raises UsageError."""
        return self.filter.tables(_in_one_answer(most))

    def events(self, most: int) -> list[dict[str, Any]]:
        """Up to `most` of its ring buffers' records since the last call. Raises UsageError."""
        return self.filter.events(_in_one_answer(most))


def _in_one_answer(most: int) -> int:
    if not 1 <= most <= SHOWN_MAX:
        raise UsageError(f"{most} in one answer is out of range", hint=f"1 to {SHOWN_MAX:,}")
    return most
