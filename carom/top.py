# SPDX-License-Identifier: Apache-2.0
"""What a running carom did between two looks at its status: policy alone, for `carom top`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from carom.top_maps import compare_maps

Status = Mapping[str, Any]

PACKETS = ("answered", "missed", "passed", "dropped")
"""What becomes of packets, as in `carom status`."""

_NAMES = ("name", "driver", "hook", "mode", "unknown")
"""What `carom status` says of an interface that is no count."""


def is_another(before: Status, now: Status) -> bool:
    """Is it another carom, whose counters began at 0?"""
    return bool(before["started_seconds"] != now["started_seconds"])


def compare(before: Status, now: Status, seconds: float) -> dict[str, Any]:
    """A line of `carom top --json`: counts by the second, shares from 0 to 1, times in seconds.

    What cannot be known is None: the share of hits where nothing was asked, for one.
    """
    if is_another(before, now):
        before, seconds = {}, now["uptime_seconds"]
    cache, since = now["cache"], before.get("cache") or {}
    return {
        "up": True,
        "pid": now["ready"]["pid"],
        "seconds": seconds,
        "uptime_seconds": now["uptime_seconds"],
        "lease_age_seconds": now["lease_age_seconds"],
        "cpu": (now["cpu_seconds"] - before.get("cpu_seconds", 0)) / seconds,
        "packets": _rates(before.get("packets"), now["packets"], seconds),
        "hit_ratio": hit_ratio(_rates(before.get("verdicts"), now["verdicts"], seconds)),
        "verdicts": {
            hook: {
                name: rate
                for name, rate in _rates(before.get("hooks", {}).get(hook), counts, seconds).items()
                if rate
            }
            for hook, counts in now["hooks"].items()
        },
        "cache": cache
        and {
            "entries": cache["entries"],
            "capacity": cache["capacity"],
            "memory_bytes": cache["memory_bytes"],
            "fills": (cache["fills"] - since.get("fills", 0)) / seconds,
        },
        "programs": _programs(before.get("programs", {}), now["programs"], seconds),
        "services": _each(_service, before.get("services", ()), now["services"], seconds),
        "interfaces": _each(_interface, before.get("interfaces", ()), now["interfaces"], seconds),
        "filter_maps": compare_maps(
            before.get("filter_maps", ()), now.get("filter_maps", ()), seconds
        ),
    }


def hit_ratio(verdicts: Mapping[str, float]) -> float | None:
    """Hits among the requests that were looked up: as docs/operating.md has it for Prometheus."""
    misses = sum(count for name, count in verdicts.items() if name.startswith("miss"))
    hits = verdicts.get("hit", 0)
    return hits / (hits + misses) if hits + misses else None


def _rates(
    before: Mapping[str, float] | None, now: Mapping[str, float] | None, seconds: float
) -> dict[str, float]:
    """How much each has grown in a second; nothing that shrinks has (an interface made anew)."""
    before = before or {}
    return {
        name: max(0.0, count - before.get(name, 0)) / seconds for name, count in (now or {}).items()
    }


def _programs(before: Status, now: Status, seconds: float) -> dict[str, dict[str, float]]:
    """Those that ran while their time was taken: runs a second, nanoseconds of each, and the share
    of a CPU."""
    found = {}
    for name, ran in now.items():
        grown = _rates(before.get(name), ran, seconds)
        if grown["runs"]:
            found[name] = {
                "runs": grown["runs"],
                "nanoseconds": 1e9 * grown["run_seconds"] / grown["runs"],
                "cpu": grown["run_seconds"],
            }
    return found


def _each(
    of: Any, before: Sequence[Status], now: Sequence[Status], seconds: float
) -> list[dict[str, Any]]:
    """Each one, with what it was before. Those of one carom stand in one order."""
    return [of(before[at] if at < len(before) else {}, one, seconds) for at, one in enumerate(now)]


def _service(before: Status, now: Status, seconds: float) -> dict[str, Any]:
    cache = now["cache"]
    return {
        "port": now["port"],
        "address": now["address"],
        "packets": _rates(before.get("packets"), now["packets"], seconds),
        "hit_ratio": hit_ratio(_rates(before.get("verdicts"), now["verdicts"], seconds)),
        "entries": cache and cache["entries"],
        "fills": None
        if not cache or cache["fills"] is None
        else (cache["fills"] - ((before.get("cache") or {}).get("fills") or 0)) / seconds,
        "reply_times": _times(before.get("reply_times"), now["reply_times"]),
        "silent": now["silence"] is not None,
    }


def _times(before: Status | None, now: Status | None) -> dict[str, Any] | None:
    """Those of the replies in between; `p50_seconds` and the like are what they did not exceed."""
    if not now:
        return None
    was = before["counts"] if before else [0] * len(now["counts"])
    counts = [new - old for new, old in zip(now["counts"], was, strict=True)]
    return {
        "one_in": now["one_in"],
        "counts": counts,
        "sum_seconds": now["sum_seconds"] - (before["sum_seconds"] if before else 0),
        "p50_seconds": quantile(counts, 0.5),
        "p99_seconds": quantile(counts, 0.99),
    }


def quantile(counts: Sequence[int], share: float) -> float | None:
    """What this share of the times is less than, in seconds, to a power of two of microseconds."""
    wanted, seen = share * sum(counts), 0
    for bits, count in enumerate(counts):
        seen += count
        if count and seen >= wanted:
            return float(2**bits) / 1e6
    return None


def _interface(before: Status, now: Status, seconds: float) -> dict[str, Any]:
    known = not now["unknown"]
    counts = {name: count for name, count in now.items() if name not in _NAMES} if known else {}
    was = {name: count or 0 for name, count in before.items() if name not in _NAMES}
    rates = _rates(was, counts, seconds)
    return {
        **{name: now[name] for name in _NAMES},
        **{name: rates.get(name) for name in ("received", "sent", "lost")},
        "lost_so_far": now["lost"],
    }
