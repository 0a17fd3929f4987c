# SPDX-License-Identifier: Apache-2.0
"""Published claims about the four ports, each with the outcome of a run."""

from __future__ import annotations

from collections.abc import Sequence

from carom.lab.experiments.ports import published
from carom.lab.experiments.ports.stats import Table
from carom.lab.show import words
from carom.lab.show.verdicts import outcome, side
from carom.lab.stats.estimates import Estimate


def claim(name: str, table: Table, title: str, over: str, under: str) -> str:
    """The claim that one series takes longer than another at every socket, with its outcome."""
    estimates = [table.ratio((over, socket), (under, socket)) for socket in table.sockets]
    ratios = ", ".join(words.bracket(estimate) for estimate in estimates)
    theirs = [published.ratio(name, (over, socket), (under, socket)) for socket in table.sockets]
    known = ", ".join(words.times(ratio) for ratio in theirs if ratio is not None)
    text = f"{title}: {outcome(_sides(estimates))}; {ratios} times as long"
    return text + (f" (published {known})." if known else ".")


def _sides(estimates: Sequence[Estimate | None]) -> list[int]:
    return [side(estimate, 1) for estimate in estimates]


def more_work(estimate: Estimate) -> str:
    """In words, whether more work takes longer."""
    return {1: "more work takes longer", 0: "no difference shown", -1: "more work takes less"}[
        side(estimate, 1)
    ]
