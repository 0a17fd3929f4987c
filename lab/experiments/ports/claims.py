# SPDX-License-Identifier: Apache-2.0
"""What was claimed of four ports, and what a run says of it."""

from __future__ import annotations

from collections.abc import Sequence

from carom.lab.experiments.ports import published
from carom.lab.experiments.ports.stats import Table
from carom.lab.show import words
from carom.lab.show.verdicts import outcome, side
from carom.lab.stats.estimates import Estimate


def claim(name: str, table: Table, title: str, over: str, under: str) -> str:
    """A claim that one series takes longer than another, at every socket."""
    found = [table.ratio((over, socket), (under, socket)) for socket in table.sockets]
    ratios = ", ".join(words.bracket(one) for one in found)
    theirs = [published.ratio(name, (over, socket), (under, socket)) for socket in table.sockets]
    known = ", ".join(words.times(one) for one in theirs if one is not None)
    told = f"{title}: {outcome(_sides(found))}; {ratios} times as long"
    return told + (f" (published {known})." if known else ".")


def _sides(found: Sequence[Estimate | None]) -> list[int]:
    return [side(one, 1) for one in found]


def said(found: Estimate) -> str:
    """Whether more work takes longer."""
    return {1: "more work takes longer", 0: "no difference shown", -1: "more work takes less"}[
        side(found, 1)
    ]
