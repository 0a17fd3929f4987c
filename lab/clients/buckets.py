# SPDX-License-Identifier: Apache-2.0
"""The histogram that lab/clients/load.c keeps of round trips, and the record made of it.

It is log-linear, as HdrHistogram is: below 128 ns a bucket is 1 ns wide, above there are 64 buckets
for each power of two, so that a bucket is at most 1/64 of its values wide. A bucket's values are
reported as its middle, which is at most 0.8 % from any of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from carom.lab.record import RoundTrips
from carom.lab.stats.distribution import encode, percentiles

SUB_BITS = 6
BUCKETS = 2048
"""The same as in lab/clients/load.c: up to 2^37 ns, more than any timeout."""

Counts = NDArray[np.uint64]


def bucket(ns: int) -> int:
    """The index of a round trip's bucket."""
    shift = max(0, ns.bit_length() - 1 - SUB_BITS)
    return (shift << SUB_BITS) + (ns >> shift)


def bounds(index: int) -> tuple[int, int]:
    """The lowest and the highest round trip (ns) of a bucket."""
    shift = max(0, (index >> SUB_BITS) - 1)
    low = (index - (shift << SUB_BITS)) << shift
    return low, low + (1 << shift) - 1


class Tally:
    """Round trips of the right replies: `counts` by bucket; `total` and extremes in exact ns."""

    def __init__(self, counts: Counts, total: int, minimum: int, maximum: int):
        self.counts = counts
        self.total = total
        self.minimum = minimum
        self.maximum = maximum

    def round_trips(
        self, *, lost: int, duplicated: int, reordered: int, wrong: int, seconds: float
    ) -> RoundTrips:
        """The record: mean, minimum and maximum are exact, the others from buckets' middles.

        Without any reply, `count` and every other figure are 0.
        """
        used = np.flatnonzero(self.counts)
        counts = self.counts[used].astype(np.int64)
        ends = [bounds(index) for index in used.tolist()]
        middles = np.array([(low + high) / 2 for low, high in ends])
        values = np.clip(middles, self.minimum, self.maximum)
        count = int(counts.sum())
        mean = self.total / count if count else 0.0
        squares = float((counts * (values - mean) ** 2).sum())
        return RoundTrips(
            count=count,
            lost=lost,
            duplicated=duplicated,
            reordered=reordered,
            wrong=wrong,
            seconds=seconds,
            mean=mean,
            stddev=(squares / (count - 1)) ** 0.5 if count > 1 else 0.0,
            minimum=float(self.minimum),
            maximum=float(self.maximum),
            **percentiles(values, counts),
            histogram=encode(values, counts),
            corrected=None,
        )
