# SPDX-License-Identifier: Apache-2.0
"""What `carom top` shows of a look: tables for a terminal of 80 columns and 24 lines, or a larger
one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from carom.daemon.key_text import key_text
from carom.top import PACKETS

Look = Mapping[str, Any]


class Part(NamedTuple):
    """A table: its heads, with a < where words stand below and not numbers, and its rows.

    Where it is too wide its last column gives way, if that is of words; with `even`, the widest do.
    """

    heads: str
    rows: Sequence[Sequence[str]]
    even: bool = False


def view(look: Look, height: int) -> RenderableType:
    """A look, in no more than so many lines."""
    if not look["up"]:
        return _line(f"looking again: {look['why']}")
    head = [_line(text) for text in _head(look)][:height]
    parts = [part for part in (_verdicts(look), *_lists(look)) if part.rows]
    parts = parts[: (height - len(head)) // 3]  # one row each, a head and an empty line
    room = rows_for([len(part.rows) for part in parts], height - len(head) - 2 * len(parts))
    shown: list[RenderableType] = list(head)
    for part, rows in zip(parts, room, strict=True):
        if rows:
            shown += [Text(), _table(part, rows)]
    return Group(*shown)


def rows_for(wanted: Sequence[int], room: int) -> list[int]:
    """How many rows each of several tables gets: one each in turn, as long as there is room."""
    given = [0] * len(wanted)
    while given != list(wanted):
        for at, rows in enumerate(wanted):
            if room <= 0:
                return given
            if given[at] < rows:
                given[at] += 1
                room -= 1
    return given


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def _table(part: Part, rows: int) -> Table:
    """The first rows of a part; the last says how many more there are, if not all fit."""
    table = Table(box=None, pad_edge=False)
    heads = part.heads.split("|")
    for at, head in enumerate(heads):
        words = head.startswith("<")
        gives_way = part.even or (words and at == len(heads) - 1)
        justify: JustifyMethod = "left" if words else "right"
        table.add_column(_line(head.lstrip("<")), justify=justify, no_wrap=not gives_way)
    fits = rows if rows == len(part.rows) else rows - 1
    for row in part.rows[:fits]:
        table.add_row(*map(_line, row))
    if fits < len(part.rows):
        table.add_row(_line(f"{len(part.rows) - fits} more"))
    return table


def _head(look: Look) -> list[str]:
    age, cache = look["lease_age_seconds"], look["cache"]
    lease = "" if age is None else f", lease renewed {age:.1f} s ago"
    lines = [
        f"carom {look['pid']}, up {duration(look['uptime_seconds'])}{lease}, "
        f"{look['cpu']:.1%} of a CPU"
    ]
    if look["packets"]:
        told = (f"{amount(look['packets'][name])} {name}" for name in PACKETS)
        lines.append(f"packets a second: {', '.join(told)}")
    if cache:
        lines.append(
            f"hits {share(look['hit_ratio'])}, {amount(cache['fills'])} fills a second; "
            f"{cache['entries']:,} entries of {cache['capacity']:,}, "
            f"{cache['memory_bytes'] / 2**20:,.1f} MiB"
        )
    return lines


def _verdicts(look: Look) -> Part:
    rates = {
        f"{hook} {name.replace('_', ' ')}": rate
        for hook, verdicts in look["verdicts"].items()
        for name, rate in verdicts.items()
    }
    rows = [(name, amount(rates[name])) for name in sorted(rates, key=lambda name: -rates[name])]
    return Part("<verdict|a second", rows)


def _lists(look: Look) -> list[Part]:
    services = [
        (
            str(one["port"]),
            *(amount(one["packets"].get(name)) for name in PACKETS[:3]),
            share(one["hit_ratio"]),
            amount(one["entries"]),
            amount(one["fills"]),
            *(micro((one["reply_times"] or {}).get(f"{name}_seconds")) for name in ("p50", "p99")),
        )
        for one in look["services"]
    ]
    interfaces = [
        (
            one["name"],
            one["mode"] or one["hook"],
            *(amount(one[name]) for name in ("received", "sent", "lost")),
            amount(one["lost_so_far"]),
            one["unknown"],
        )
        for one in look["interfaces"]
    ]
    programs = [
        (
            name.replace("_", " "),
            amount(ran["runs"]),
            f"{ran['nanoseconds']:,.0f}",
            f"{ran['cpu']:.1%}",
        )
        for name, ran in look["programs"].items()
    ]
    hits = (look["packets"] or {}).get("answered", 0)
    keys = [
        (
            amount(one["hits_per_second"]),
            share(min(1, one["hits_per_second"] / hits) if hits else None),
            str(one["port"]),
            key_text(bytes.fromhex(one["key"])),
        )
        for one in look.get("keys", ())
    ]
    return [
        Part("<service|answered|missed|passed|hits|entries|fills|p50 <|p99 <", services),
        Part("<interface|<mode|received|sent|lost|lost in all|<", interfaces),
        Part("<program|runs|ns each|of a CPU", programs),
        Part("hits|of all|service|<key", keys),
        *map(_map, look.get("filter_maps", ())),
    ]


def _map(one: Mapping[str, Any]) -> Part:
    """A map of a filter: its numbers first, as its key may be long. What stands still is left out
    of a counter."""
    counter = one["kind"] == "counter"
    rows = [
        (*map(amount, entry["value"].values()), ", ".join(map(str, entry["key"].values())))
        for entry in one["entries"]
        if any(entry["value"].values()) or not counter
    ]
    name = f"{one['name']}{' a second' if counter else ''}"
    keys = f", by {', '.join(one['keys'])}" if one["keys"] else ""
    return Part("|".join([*one["values"], f"<{name}{keys}"]), rows, even=True)


def amount(number: float | None) -> str:
    """A count, or a rate; - where it is not known."""
    if number is None:
        return "-"
    return f"{number:,.0f}" if number >= 10 or number == int(number) else f"{number:.1f}"


def share(ratio: float | None) -> str:
    """A share in percent; - where there is none."""
    return "-" if ratio is None else f"{ratio:.1%}"


def micro(seconds: float | None) -> str:
    """A time with its unit; - where there is none."""
    if seconds is None:
        return "-"
    for unit, size in (("s", 1), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.0f} us"


def duration(seconds: float) -> str:
    """How long it has been up, in the two largest units."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
