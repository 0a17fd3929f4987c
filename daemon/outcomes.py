# SPDX-License-Identifier: Apache-2.0
"""Verdicts by what becomes of their packets: answered, missed, passed or dropped."""

from __future__ import annotations

from collections.abc import Mapping

from carom.kernel.abi import Verdict

ANSWERED = (Verdict.HIT, Verdict.BOUNCE, Verdict.SLIP)
"""Verdicts on requests that the kernel answers."""

MISSED = (Verdict.MISS, Verdict.MISS_EXPIRED, Verdict.MISS_VOID, Verdict.MISS_TORN)
"""Those on requests that nothing in the cache answers."""

DROPPED = (Verdict.DROP_LOOP, Verdict.FAULT)


def outcomes(verdicts: Mapping[Verdict, int]) -> dict[str, int]:
    """How many packets became what; together they are all that came.

    What XDP leaves to TC has a verdict there, and is counted by that alone.
    """

    def total(of: tuple[Verdict, ...]) -> int:
        return sum(verdicts.get(verdict, 0) for verdict in of)

    counted = (*ANSWERED, *MISSED, *DROPPED, Verdict.PASS_TO_TC)
    return {
        "answered": total(ANSWERED),
        "missed": total(MISSED),
        "passed": sum(count for verdict, count in verdicts.items() if verdict not in counted),
        "dropped": total(DROPPED),
    }
