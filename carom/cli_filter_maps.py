# SPDX-License-Identifier: Apache-2.0
"""What `carom filter` shows of the maps of a user's own filter."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterable, Iterator
from typing import Any

from carom.cli_cache import print_json
from carom.cli_options import new_table, show_table
from carom.daemon import control

Map = dict[str, Any]

_POLL = 0.1  # seconds between looks for records
_AGAIN = 10  # a look at the other maps is at every so many looks for records
_RECORDS, _ENTRIES = 100, 1000


def shapes(maps: Iterable[Map]) -> Iterator[str]:
    """A line for each map: its type, and the names of its members."""
    for one in maps:
        members = " -> ".join(", ".join(names) for names in (one["keys"], one["values"]) if names)
        yield f"  {one['name']}: {one['type']} of {one['capacity']:,}, {members}"


def counted(pid: int | None, entries: int) -> list[Map]:
    """The counters and gauges, with up to so many entries of each. Raises ControlError."""
    found = control.call("filter_maps", pid, most=entries)
    return [one for one in found if one["kind"] != "print"]


def with_maps(pid: int | None, patience: float, entries: int) -> Map:
    """A carom's status, with `filter_maps` if its filter has any. Raises ControlError."""
    status: Map = control.call("status", pid, patience)
    if status["filter"] and status["filter"]["maps"]:
        status["filter_maps"] = control.call("filter_maps", pid, patience, most=entries)
    return status


def show_map(one: Map) -> None:
    """Print a counter or a gauge as a table."""
    print(f"\n{one['name']}")
    table = new_table(*one["keys"], *one["values"])
    for column in table.columns[len(one["keys"]) :]:
        column.justify = "right"
    for entry in one["entries"]:
        numbers = (f"{value:,}" for value in entry["value"].values())
        table.add_row(*map(str, entry["key"].values()), *numbers)
    if one["entries"]:
        show_table(table)
    else:
        print("no entry yet")
    if one["left_out"]:
        print(f"{'' if one['all_seen'] else 'at least '}{one['left_out']:,} more")


def to_print(maps: Iterable[Map]) -> bool:
    """Whether there are maps that `carom filter print` prints."""
    return any(one["kind"] == "print" for one in maps)


def print_maps(pid: int | None, count: int | None, seconds: float | None, *, json: bool) -> None:
    """Print until Ctrl-C, so many lines, or so long. Raises ControlError."""
    with contextlib.suppress(KeyboardInterrupt):
        for one in itertools.islice(_lines(pid, seconds), count):
            if json:
                print_json(one)
            else:
                print(_line(one), flush=True)


def _lines(pid: int | None, seconds: float | None) -> Iterator[dict[str, Any]]:
    end = None if seconds is None else time.monotonic() + seconds
    before: dict[tuple[str, str], Any] = {}
    for look in itertools.count():
        records = control.call("filter_events", pid, most=_RECORDS)
        yield from records
        if look % _AGAIN == 0:
            yield from _changed(pid, before)
        if end is not None and time.monotonic() >= end:
            return
        if len(records) < _RECORDS:
            time.sleep(_POLL)


def _changed(pid: int | None, before: dict[tuple[str, str], Any]) -> Iterator[dict[str, Any]]:
    """Entries that were not there `before`, or had other values, which it then knows."""
    now = {
        (one["name"], str(entry["key"])): entry
        for one in control.call("filter_maps", pid, most=_ENTRIES)
        if one["kind"] == "print"
        for entry in one["entries"]
    }
    at = time.time()
    for (name, key), entry in now.items():
        if before.get((name, key)) != entry:
            yield {"map": name, "seconds": at, **entry}
    before.clear()
    before.update(now)


def _line(one: dict[str, Any]) -> str:
    at = time.strftime("%H:%M:%S", time.localtime(one["seconds"]))
    words = [f"{name} {value}" for part in ("key", "value") for name, value in _said(one, part)]
    return f"{at} {one['map']}: {', '.join(words)}"


def _said(one: dict[str, Any], part: str) -> Iterator[tuple[str, Any]]:
    for name, value in one.get(part, {}).items():
        yield name, value if value != "" else "-"
