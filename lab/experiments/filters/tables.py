# SPDX-License-Identifier: Apache-2.0
"""The filter experiments as tables, the gain first."""

from __future__ import annotations

from carom.lab.experiments.filters import published
from carom.lab.experiments.filters import stats as filter_stats
from carom.lab.experiments.filters import verdict as filter_verdict
from carom.lab.experiments.filters.model import FilterRun, Series
from carom.lab.experiments.filters.series import BASE, KERNEL, SERIES
from carom.lab.experiments.filters.stats import Figure, Knee, Table, knees
from carom.lab.experiments.filters.verdict import TIMES
from carom.lab.record import Run
from carom.lab.show import words
from carom.lab.show.sheets import Sheet
from carom.lab.stats.estimates import Estimate

TITLES: dict[str, str] = {
    "wall time": "Wall time",
    "the server's CPU time": "The server's CPU time",
    "the machine's CPU time": "The whole machine's CPU time",
}


def sheets(run: Run[FilterRun], *, times: bool, losses: bool) -> list[Sheet]:
    """The tables that have rows: the gain, and times, losses, or both."""
    table = filter_stats.grid(run.measurements)
    if not table.packets:
        return []
    made = [_fast(table)]
    paced = filter_stats.slowest(run.measurements)
    if paced:
        share = filter_verdict.most_invalid(paced[1])
        title = f"At {share:g} % invalid, {paced[0]:,.0f} packets/s, the same load for all"
        made.append(foremost(title, paced[1], *list(TIMES)[1:]))
    if times:
        made += [
            _times(title, table, TIMES[name], beside=name == "wall time")
            for name, title in TITLES.items()
        ]
    if losses:
        made += [_losses(table), _rates(run)]
    return [sheet for sheet in made if sheet.rows]


def _fast(table: Table) -> Sheet:
    share = filter_verdict.most_invalid(table)
    title = f"At {share:g} % invalid, {table.packets[-1]:,} packets, as fast as possible"
    return foremost(title, table, *TIMES)


def foremost(title: str, table: Table, *names: str) -> Sheet:
    """The gains in these times where almost all packets are invalid."""
    at = table.packets[-1], filter_verdict.most_invalid(table)
    rows = [
        {
            "userspace / kernel": SERIES.words(series),
            **{name: words.bracket(table.gain(TIMES[name], (series, *at))) for name in names},
            "points fewer lost": filter_verdict.points(
                table.saved(filter_stats.loss, (series, *at))
            ),
        }
        for series in KERNEL
        if series in table.series
    ]
    return Sheet(title, rows)


def _times(title: str, table: Table, figure: Figure, *, beside: bool) -> Sheet:
    """Userspace's time per packet, and each place's gain; with `beside`, the published gain too."""
    rows = []
    for packets, percent in _points(table):
        row = {
            "packets": f"{packets:,}",
            "invalid": f"{percent:g} %",
            "userspace": _margin(table.mean(figure, (BASE, packets, percent)), 1e6),
        }
        for series in (name for name in KERNEL if name in table.series):
            row[SERIES.words(series)] = words.bracket(
                table.gain(figure, (series, packets, percent))
            )
        if beside:
            ratio = published.ratio(packets, percent)
            row["published (socket)"] = "-" if ratio is None else words.times(ratio)
        rows.append(row)
    return Sheet(f"{title}: µs a packet in userspace, and userspace's over each filter's", rows)


def _losses(table: Table) -> Sheet:
    """The share of PUTs lost in each series, beside the published ones."""
    rows = []
    for packets, percent in _points(table):
        if percent < 100:
            row = {"packets": f"{packets:,}", "invalid": f"{percent:g} %"}
            for series in (name for name in SERIES if name in table.series):
                lost = table.mean(filter_stats.loss, (series, packets, percent))
                row[SERIES.words(series)] = _margin(lost, 100)
            for server in _published_servers():
                row[f"published {server}"] = _published(server, packets, percent)
            rows.append(row)
    return Sheet("PUTs lost, %", rows)


def _rates(run: Run[FilterRun]) -> Sheet:
    """The knee of each series and share of invalid packets."""
    by_point = knees(run.measurements)
    percents = sorted({percent for _, percent in by_point})
    rows = []
    for series in SERIES:
        row = {f"{percent:g} %": _knee(by_point, series, percent) for percent in percents}
        if any(row.values()):
            rows.append({"invalid": SERIES.words(series), **row})
    return Sheet("Knee: the highest rate, packets/s, that lost 0.1 % of PUTs or less", rows)


def _knee(by_point: dict[tuple[Series, float], Knee | None], series: Series, percent: float) -> str:
    if (series, percent) not in by_point:
        return ""
    knee = by_point[series, percent]
    if knee is None:
        return "below the slowest"
    return f"{'≥ ' if knee.fastest else ''}{words.amount(knee.reached)}"


def _published_servers() -> list[str]:
    return list(dict.fromkeys(row.server for row in published.loss()))


def _published(server: str, packets: int, percent: float) -> str:
    """`userspace / kernel`, in percent."""
    losses = {
        row.path: row.loss
        for row in published.loss()
        if (row.server, row.packets, row.percent) == (server, packets, percent)
    }
    if not losses:
        return "-"
    return " / ".join(f"{100 * losses[path]:.1f}" for path in ("userspace", "kernel"))


def _points(table: Table) -> list[tuple[int, float]]:
    return [(packets, percent) for packets in table.packets for percent in table.percents]


def _margin(estimate: Estimate, scale: float) -> str:
    digits = 2 if scale * estimate.value < 10 else 1
    margin = "" if estimate.margin is None else f" ±{scale * estimate.margin:.{digits}f}"
    return f"{scale * estimate.value:.{digits}f}{margin}"


def about(run: Run[FilterRun]) -> str:
    """What a reader has to know to read the tables."""
    settings = run.settings
    lengths = (
        "invalid packets as long as valid ones"
        if settings.get("equal_length")
        else "invalid packets of 259 bytes and valid ones of 15, as published"
    )
    return (
        f"{words.repetitions(run.measurements)} Differences are paired as "
        f"ratios are. Behaviour {settings.get('behaviour')}, filter {settings.get('filter')}, "
        f"{lengths}. A server that loses packets has less to do: read times together with the "
        "loss. The machine's CPU time includes the client's sending and other programs. "
        f"Published times are without their {published.START_UP:g} s of start-up; '-' "
        "where the rest is too short to compare. "
        f"{words.place(run.environment, run.client_environment)}"
    )
