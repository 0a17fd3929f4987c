# SPDX-License-Identifier: Apache-2.0
"""Maps of a user's own filter in `carom top`: how fast counters grow, and what gauges say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Maps = Sequence[Mapping[str, Any]]

ENTRIES = 100
"""Entries of a map that are looked at: those with the largest numbers."""


def compare_maps(before: Maps, now: Maps, seconds: float) -> list[dict[str, Any]]:
    """Counters as rates by the second, what grows fastest first; gauges as they are.

    A counter's entry that was not there before has grown by all that it has, unless its whole map
    is new: then nothing is known of what it was.
    """
    was = {one["name"]: one for one in before}
    return [_compared(was.get(one["name"]), one, seconds) for one in now if one["kind"] != "print"]


def _compared(was: Mapping[str, Any] | None, one: Mapping[str, Any], seconds: float) -> Any:
    entries = list(one["entries"])
    if one["kind"] == "counter":
        entries = list(_rates(was, one, seconds))
        entries.sort(key=lambda entry: -max(entry["value"].values(), default=0.0))
    shown = {name: one[name] for name in ("name", "kind", "keys", "values", "left_out")}
    return {**shown, "entries": entries}


def _rates(
    was: Mapping[str, Any] | None, one: Mapping[str, Any], seconds: float
) -> Iterator[dict[str, Any]]:
    old = {str(entry["key"]): entry["value"] for entry in (was or {"entries": ()})["entries"]}
    for entry in one["entries"]:
        before = old.get(str(entry["key"]), {} if was else entry["value"])
        yield {
            "key": entry["key"],
            "value": {
                name: max(0, count - before.get(name, 0)) / seconds
                for name, count in entry["value"].items()
            },
        }
