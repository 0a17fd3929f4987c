# SPDX-License-Identifier: Apache-2.0
"""The published numbers beside a run's own, with the ratio of the two."""

from __future__ import annotations

from carom.lab.experiments.bounce_cache.comparison import speedups
from carom.lab.experiments.filters import stats as filter_stats
from carom.lab.experiments.filters.model import FilterResults, Series
from carom.lab.model import Cell, Results
from carom.lab.results import Run
from carom.lab.show import published as published_tables
from carom.lab.show import words
from carom.lab.show.sheets import Row, Sheet
from carom.lab.stats.estimates import summarise

WAIT = "blocking"
"""How the published servers wait: times of other waits have no published counterpart."""

_PATHS: dict[str, Series] = {"userspace": "userspace", "kernel": "socket"}


def sheets(run: Run) -> list[Sheet]:
    """Those that have rows: none where nothing was published or measured."""
    match run:
        case Results() if run.experiment in ("bounce", "cache"):
            made = [_means(run), _speedups(run)]
        case FilterResults() if run.experiment != "filter-loss":
            made = [_walls(run)]
        case _:
            made = []
    return [one for one in made if one.rows]


def where(run: Run) -> Sheet | None:
    """How and on what ours and the published were measured; None where nothing was published."""
    theirs = published_tables.WHERE.get(run.experiment)
    if theirs is None:
        return None
    ours = _where(run)
    rows = [
        {"": name, "this run": ours.get(name, "-"), "published": said}
        for name, said in theirs.items()
    ]
    return Sheet("Where: this run, and what was published", rows, names=3)


def _where(run: Run) -> dict[str, str]:
    on = run.environment
    filters = isinstance(run, FilterResults)
    return {
        "authors": f"carom {on.carom}",
        "hosts": f"pair {on.pair} ({on.driver}), {on.mode or 'no'} XDP",
        "CPUs": f"{on.cpus}, {on.cpu}",
        "memory": f"{on.memory_bytes / 2**30:.1f} GiB",
        "distribution": on.distribution,
        "kernel": on.kernel,
        "userspace": "blocks, and other ways" if _waits(run) != {WAIT} else "blocks",
        "hook": "socket filter, TC and XDP",
        "server": "in Python",
        "rate": "as fast as it goes",
        "repetitions": str(run.settings.get("repetitions", "-")),
        "time": "whole runs, without start-up" if filters else "every round trip",
    }


def _waits(run: Run) -> set[str]:
    return {one.cell.wait for one in run.repetitions} if isinstance(run, Results) else set()


def _published_mean(cell: Cell) -> float | None:
    """Milliseconds: of runs as long, or of all if none was."""
    if cell.hit_rate is not None:
        at = {(row.series, row.hit_rate): row.mean_ms for row in published_tables.cache_hit_rate()}
        return at.get((cell.series, cell.hit_rate))
    rows = [row for row in published_tables.bounce() if row.series == cell.series]
    rows = [row for row in rows if row.seconds == cell.seconds] or rows
    return sum(row.mean_ms for row in rows) / len(rows) if rows else None


def _means(results: Results) -> Sheet:
    rows: list[Row] = []
    for one in sorted(summarise(results), key=lambda one: words.order(one.cell)):
        theirs = _published_mean(one.cell)
        if theirs and one.cell.wait == WAIT and one.n:
            rows.append(
                {
                    **_cell(one.cell),
                    "this run": words.micro(one.mean.value),
                    "published": words.micro(1e6 * theirs),
                    "ratio": _ratio(one.mean.value / (1e6 * theirs)),
                }
            )
    return Sheet(f"Mean round trips, µs, beside the published ({WAIT})", rows, grouped=True)


def _speedups(results: Results) -> Sheet:
    rows: list[Row] = []
    for one in speedups(results):
        ours = one.means_against_same_wait
        if ours and one.published:
            rows.append(
                {
                    **_cell(one.cell),
                    "wait": one.cell.wait,
                    "this run": words.bracket(ours),
                    "published": words.times(one.published),
                    "ratio": _ratio(ours.value / one.published),
                }
            )
    title = "Userspace time / XDP time, of means, beside the published"
    return Sheet(title, rows, grouped=True)


def _cell(cell: Cell) -> Row:
    row = {"series": words.series(cell)}
    if cell.hit_rate is not None:
        row["hits"] = words.percent(cell.hit_rate)
    elif cell.seconds:
        row["s"] = f"{cell.seconds:g}"
    return row


def _walls(results: FilterResults) -> Sheet:
    """Wall times of the two paths that were published, and what filtering gains in them."""
    table = filter_stats.grid(results)
    theirs = published_tables.filter_seconds()
    rows: list[Row] = []
    for packets in table.packets:
        for percent in table.percents:
            published = published_tables.filter_ratio(packets, percent)
            gain = table.gain(filter_stats.wall, ("socket", packets, percent))
            if published is None or gain is None:
                continue
            row = {"packets": f"{packets:,}", "invalid": f"{percent:g} %"}
            for path, series in _PATHS.items():
                ours = table.mean(filter_stats.wall, (series, packets, percent))
                row[f"{series}, s"] = words.times(ours.value * packets)
                row[f"published {path}, s"] = words.times(theirs[packets, percent, path])
            row |= {
                "gain": words.bracket(gain),
                "published gain": words.times(published),
                "ratio": _ratio(gain.value / published),
            }
            rows.append(row)
    title = "Wall time of userspace and the socket filter, and the gain, beside the published"
    return Sheet(title, rows, grouped=True)


def _ratio(value: float) -> str:
    return words.times(value) if value >= 0.1 else f"{value:.3g}"
