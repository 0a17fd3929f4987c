# SPDX-License-Identifier: Apache-2.0
"""What a sweep says, in words: whichever way it falls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from carom.lab.experiments.bounce_cache.conclusion import judgement
from carom.lab.experiments.sweeps.grid import Name, Series
from carom.lab.experiments.sweeps.stats import Knee, Row, Sweep, p50, replies
from carom.lab.model import Results, Task, Wait
from carom.lab.show import words
from carom.lab.stats.estimates import Estimate

BASE: Series = "userspace"
"""What the others are compared with."""

_TITLES: dict[Task, str] = {"bounce": "A bounce", "hit": "A hit", "miss": "A miss with its fill"}


def sentences(results: Results) -> list[str]:
    """What was found of each hook against userspace, with 95 % intervals."""
    sweep = Sweep(results)
    said = [
        line
        for (task, wait), rows in sweep.groups().items()
        for line in _SAY[sweep.name](sweep, task, wait, rows)
    ]
    if not said and sweep.series and BASE not in sweep.series:
        return ["Userspace was not measured, with which the hooks are compared."]
    return said or [words.TOO_LITTLE]


def gain(sweep: Sweep, series: Series, row: Row) -> Estimate | None:
    """How many times as fast a series is as userspace: in p50, or with clients in replies."""
    if sweep.name == "clients":
        return sweep.ratio(replies, series, BASE, row)
    return sweep.ratio(p50, BASE, series, row)


def reach(knee: Knee) -> str:
    """The rate up to which a series answered, in words."""
    if knee.rate is None:
        return "no rate that was asked"
    return f"{words.amount(knee.rate)}{' or more' if knee.lossy is None else ''}"


def _others(sweep: Sweep) -> list[Series]:
    return [one for one in sweep.series if one != BASE]


def _hooks(sweep: Sweep, task: Task, wait: Wait, rows: Sequence[Row]) -> Iterator[str]:
    def takes(series: Series) -> str:
        return f"{words.SERIES[series]} {words.micro(sweep.mean(p50, series, rows[0]).value)} µs"

    found = {one: gain(sweep, one, rows[0]) for one in _others(sweep)}
    said = "; ".join(f"{takes(one)}, {judgement(of)}" for one, of in found.items() if of)
    if said:
        yield f"{_TITLES[task]} (p50, {wait}): {takes(BASE)}; {said}."


def _by_tc(sweep: Sweep, series: Series, row: Row) -> str:
    """What there is to add to a figure of XDP's that is TC's."""
    return " (by TC)" if sweep.by_tc(series, row) else ""


def _count(number: float, unit: str) -> str:
    return f"{number:,.0f} {unit if number != 1 else unit.removesuffix('s')}"


def _along(unit: str) -> Callable[[Sweep, Task, Wait, Sequence[Row]], Iterator[str]]:
    """What is said at the least and the most of what was varied."""

    def say(sweep: Sweep, task: Task, wait: Wait, rows: Sequence[Row]) -> Iterator[str]:
        ends = list(dict.fromkeys((rows[0], rows[-1])))
        figure = "replies a second" if sweep.name == "clients" else "p50"
        for series in _others(sweep):
            found = [(row, gain(sweep, series, row)) for row in ends]
            said = "; ".join(
                f"{_count(row.x or 0, unit)}{_by_tc(sweep, series, row)}: {judgement(one)}"
                for row, one in found
                if one
            )
            if said:
                yield f"{_TITLES[task]} at {words.SERIES[series]} ({figure}, {wait}). {said}."

    return say


def _knee(sweep: Sweep, task: Task, wait: Wait, rows: Sequence[Row]) -> Iterator[str]:
    for series in sweep.series:
        knee = sweep.knee(series, rows)
        if knee is None:
            continue
        lossy = "" if knee.lossy is None else f" (not at {words.amount(knee.lossy)})"
        said = (
            f"{words.SERIES[series]} ({wait}) answers 99.9 % of requests up to "
            f"{reach(knee)} a second{lossy}, and at most {words.amount(knee.most.value)} a second"
        )
        more = sweep.most_ratio(series, BASE, rows)
        if series != BASE and more:
            said += f": {words.bracket(more)} times as many as userspace"
        yield said + "."


def _minutes(sweep: Sweep, task: Task, wait: Wait, rows: Sequence[Row]) -> Iterator[str]:
    for series in sweep.series:
        found = sweep.steady(series, rows)
        if not found:
            continue
        yield (
            f"{words.SERIES[series]} ({wait}): the last third's p50 is {words.bracket(found.drift)}"
            f" times the first's: {_drift(found.drift)}; the slowest part took "
            f"{words.bracket(found.slowest)} times the middle one."
        )


def _drift(found: Estimate) -> str:
    if found.low is None or found.high is None:
        return "one repetition, no interval"
    if found.low > 1:
        return "it became slower"
    return "it became faster" if found.high < 1 else "no change shown"


_SAY: dict[Name, Callable[[Sweep, Task, Wait, Sequence[Row]], Iterator[str]]] = {
    "hooks": _hooks,
    "sizes": _along("bytes"),
    "clients": _along("clients"),
    "knee": _knee,
    "minutes": _minutes,
}
