# SPDX-License-Identifier: Apache-2.0
"""The record of a distribution of round trips: made of samples, put together, read for plots."""

from __future__ import annotations

import binascii
import math
import operator
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from hdrh.codec import HdrCookieException, HdrLengthException
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from carom.errors import ExperimentError
from carom.lab.record import RoundTrips

LOWEST_NS = 1
HIGHEST_NS = 60_000_000_000
DIGITS = 3

Samples = NDArray[np.int64]
Values = NDArray[np.int64] | NDArray[np.float64]

_PERMILLES = {"p50": 500, "p90": 900, "p99": 990, "p999": 999}


def round_trips(
    samples_ns: Sequence[int] | Samples,
    *,
    lost: int,
    duplicated: int,
    reordered: int,
    wrong: int,
    seconds: float,
    corrected: RoundTrips | None = None,
) -> RoundTrips:
    """The record of one client's round trips (ns); `seconds` is how long all of them took.

    A percentile is the smallest sample that at least that share of the samples does not exceed
    (Hyndman and Fan 1996, definition 1, HdrHistogram's too): always a value that occurred.
    `stddev` is the sample's (n - 1), 0 for a single one. Without samples every figure is 0, as
    JSON has no NaN: `count` tells.
    """
    samples = np.asarray(samples_ns, dtype=np.int64)
    ordered = np.sort(samples) if samples.size else np.zeros(1, dtype=np.int64)
    values, counts = np.unique(samples, return_counts=True)
    return RoundTrips(
        count=samples.size,
        lost=lost,
        duplicated=duplicated,
        reordered=reordered,
        wrong=wrong,
        seconds=seconds,
        mean=float(ordered.mean()),
        stddev=float(ordered.std(ddof=1)) if ordered.size > 1 else 0.0,
        minimum=float(ordered[0]),
        maximum=float(ordered[-1]),
        **percentiles(values, counts),
        histogram=encode(values, counts),
        corrected=corrected,
    )


def percentiles(values: Values, counts: Samples) -> dict[str, float]:
    """The percentiles of a record, of values (ns, ascending) and the count of each; 0 of none.

    Ranks are computed in integers: in floats, 99.9 % of 1,000 is slightly more than 999.
    """
    if not values.size:
        return dict.fromkeys(_PERMILLES, 0.0)
    ranks = np.cumsum(counts)
    return {
        name: float(values[np.searchsorted(ranks, -(-int(ranks[-1]) * permille // 1000))])
        for name, permille in _PERMILLES.items()
    }


def empty() -> Any:
    """An HdrHistogram of the one shape used here: 1 ns to 60 s, 3 significant digits."""
    return HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)


def encode(values: Values, counts: Samples) -> str:
    """Values (ns) and the count of each, as a V2 compressed HdrHistogram in base64.

    Values outside 1 ns to 60 s are counted at the nearer end.
    """
    histogram = empty()
    whole = np.clip(np.rint(values).astype(np.int64), LOWEST_NS, HIGHEST_NS)
    for value, count in zip(whole.tolist(), counts.tolist(), strict=True):
        histogram.record_value(value, count)
    return _encoded(histogram)


def _encoded(histogram: Any) -> str:
    encoded: bytes = histogram.encode()
    return encoded.decode("ascii")


def decode(histogram: str) -> Any:
    """The HdrHistogram (values in nanoseconds) that `encode` wrote; ExperimentError if torn."""
    try:
        return HdrHistogram.decode(histogram)
    except (
        HdrCookieException,
        HdrLengthException,
        binascii.Error,
        zlib.error,
        ValueError,
        IndexError,
    ) as error:
        raise ExperimentError(
            "a histogram in these results cannot be read",
            hint="the file was changed or cut short; run the experiment again",
        ) from error


def merge(histograms: Iterable[str]) -> Any:
    """One HdrHistogram of several encoded ones, such as the repetitions of a cell."""
    merged = empty()
    for histogram in histograms:
        decoded = decode(histogram)
        if decoded.get_total_count():
            merged.add(decoded)
    return merged


def together(clients: Sequence[RoundTrips]) -> RoundTrips:
    """The round trips of clients that asked at the same time, as one record.

    Counts are summed; `seconds` is the longest. Mean, stddev, minimum and maximum are those of all
    samples, percentiles the merged histogram's: at most 0.1 % above the sample. ValueError
    without clients, or for corrected times.
    """
    if not clients or any(client.corrected for client in clients):
        raise ValueError("only clients that asked without a rate can be put together")
    counts = np.array([client.count for client in clients])
    count = int(counts.sum())
    asked = [client for client in clients if client.count]
    means = np.array([client.mean for client in clients])
    mean = float(np.average(means, weights=counts)) if count else 0.0
    squares = sum((client.count - 1) * client.stddev**2 for client in asked)
    squares += float((counts * (means - mean) ** 2).sum())
    histogram = merge(client.histogram for client in clients)
    return RoundTrips(
        count=count,
        lost=sum(client.lost for client in clients),
        duplicated=sum(client.duplicated for client in clients),
        reordered=sum(client.reordered for client in clients),
        wrong=sum(client.wrong for client in clients),
        seconds=max(client.seconds for client in clients),
        mean=mean,
        stddev=math.sqrt(squares / (count - 1)) if count > 1 else 0.0,
        minimum=min((client.minimum for client in asked), default=0.0),
        maximum=max((client.maximum for client in asked), default=0.0),
        **percentiles(*points(histogram)),
        histogram=_encoded(histogram),
        corrected=None,
    )


def points(histogram: Any) -> tuple[Samples, Samples]:
    """The values (ns, ascending) that a histogram holds, and the count of each.

    A value is its bucket's upper end: at most 0.1 % above the sample.
    """
    buckets = np.asarray(histogram.counts)  # hdrh's own iterator is a thousand times slower
    used = np.flatnonzero(buckets)
    ends = [
        histogram.get_highest_equivalent_value(histogram.get_value_from_index(index))
        for index in used.tolist()
    ]
    return np.array(ends, dtype=np.int64), buckets[used].astype(np.int64)


_TICKS = 5
"""Lines of a percentile table for each half of the way that is left to 100 %."""


def table(histogram: Any) -> str:
    """The percentile table of a histogram that holds something, values in nanoseconds.

    It is to the letter what HdrHistogram's own `output_percentile_distribution` writes, which looks
    at every bucket, used or not, four times.
    """
    values, counts = points(histogram)
    ranks = np.cumsum(counts)
    total, last = int(ranks[-1]), values.size - 1
    lines = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}\n"]
    at = -1
    for level in _levels():
        at = min(int(np.searchsorted(100.0 * ranks / total, level)), last)
        rest = 1 / (1 - level / 100)
        lines.append(f"{values[at]:12.3f} {level / 100:2.12f} {ranks[at]:10} {rest:14.2f}")
        if at == last:
            break
    lines.append(f"{values[last]:12.3f} {1:2.12f} {total:10}")
    mean, deviation = _spread(histogram, values.tolist(), counts.tolist())
    most, buckets = histogram.get_max_value(), histogram.bucket_count
    lines += [
        f"#[Mean    = {mean:12.3f}, StdDeviation   = {deviation:12.3f}]",
        f"#[Max     = {most:12.3f}, TotalCount     = {total:12.3f}]",
        f"#[Buckets = {buckets:12}, SubBuckets     = {histogram.sub_bucket_count:12}]",
    ]
    return "\n".join(lines) + "\n"


def _levels() -> Iterator[float]:
    """Percentiles from 0 on, in steps that are halved with the way that is left."""
    level = 0.0
    while level < 100:
        yield level
        level += 100.0 / (_TICKS * 2 ** (math.log(100 / (100.0 - level)) / math.log(2) + 1))


def _spread(histogram: Any, ends: list[int], counts: list[int]) -> tuple[float, float]:
    """Mean and standard deviation, by the middle of each bucket."""
    starts = [histogram.get_lowest_equivalent_value(end) for end in ends]
    middles = [start + (end + 1 - start >> 1) for start, end in zip(starts, ends, strict=True)]
    total = sum(counts)
    mean = sum(map(operator.mul, middles, counts)) / total
    squares = ((middle - mean) ** 2 * n for middle, n in zip(middles, counts, strict=True))
    return mean, math.sqrt(sum(squares, 0.0) / total)
