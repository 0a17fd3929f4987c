# SPDX-License-Identifier: Apache-2.0
"""The figures by which two runs of one experiment are compared."""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    """One figure of one cell (or of a contest's subject)."""

    cell: str
    figure: str
    larger_is_better: bool = False
    share: bool = False
    """Whether it is the share of requests that were answered: less means lost, not slower."""

    @property
    def words(self) -> tuple[str, str]:
        """What to call a change to the better, and to the worse."""
        return ("fewer lost", "more lost") if self.share else ("faster", "slower")


def share(count: int, total: int) -> float:
    """A share of requests; a count of 0 is taken as a half, so that ratios exist."""
    return max(count, 0.5) / total
