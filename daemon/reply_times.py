# SPDX-License-Identifier: Apache-2.0
"""How long replies take: counts by powers of two of microseconds, of one request in SAMPLED."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from carom.kernel.abi import SAMPLED, TIMES


class ReplyTimes:
    """Times that one thread notes; any may read them."""

    def __init__(self) -> None:
        self.cells = [0] * (TIMES + 1)
        """As in the kernel (REPLY_TIMES of abi.py)."""

    def note(self, nanoseconds: int) -> None:
        """A reply took so long."""
        took = nanoseconds // 1000
        self.cells[min(took.bit_length(), TIMES - 1)] += 1
        self.cells[TIMES] += took


def told(cells: Sequence[int]) -> dict[str, Any]:
    """Times as `carom status` says them: `counts[n]` took less than 2^n microseconds, and no less
    than half of that."""
    return {
        "one_in": SAMPLED,
        "counts": list(cells[:TIMES]),
        "sum_seconds": cells[TIMES] / 1e6,
    }
