# SPDX-License-Identifier: Apache-2.0
"""Addresses that an interface had.

Their rules by source stay for a while: where the interface is made anew it gets them back, and what
comes before that is seen must not be answered elsewhere. They do not stay for good, as a host that
makes itself a new IPv6 address each day would have more rules each day.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from carom.routes.tables import Link, Rule

STAY = 3600.0
"""Seconds that an interface is up without an address, until the rule of that address goes too."""


class Lost:
    """Since when interfaces that are up do not have the addresses of rules."""

    def __init__(self) -> None:
        self._since: dict[Rule, float] = {}

    def kept(self, rules: Iterable[Rule], link: Link) -> list[Rule]:
        """Those of an interface's rules by source that are to stay."""
        there = {str(address) for address in link.addresses}
        now = time.monotonic()
        kept = []
        for rule in rules:
            is_lost = link.up and rule.source not in there
            self._since[rule] = self._since.get(rule, now) if is_lost else now
            if now - self._since[rule] < STAY:
                kept.append(rule)
        return kept
