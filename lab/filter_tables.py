# SPDX-License-Identifier: Apache-2.0
"""The filter experiments as tables for the terminal: the gain foremost, the claims last."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table as Rich

from carom.lab import filter_stats, filter_verdict, published_tables, words
from carom.lab.filter_model import KERNEL, SERIES, FilterResults, Series
from carom.lab.filter_stats import Figure, Knee, Table, knees
from carom.lab.filter_verdict import NAMES, TIMES
from carom.lab.stats import Estimate

TITLES: dict[str, str] = {
    "wall time": "Wall time",
    "the server's CPU time": "The server's CPU time",
    "the machine's CPU time": "The whole machine's CPU time",
}


def show(results: FilterResults, console: Console) -> None:
    """Print what was measured: both experiments, or the one that was run."""
    table = filter_stats.grid(results)
    if not table.packets:
        console.print("nothing of the grid was measured", highlight=False)
        return
    share = filter_verdict.most_invalid(table)
    console.print(f"At {share:g} % invalid, {table.packets[-1]:,} packets, as fast as it goes:")
    console.print(foremost(table, *TIMES), "")
    paced = filter_stats.slowest(results)
    if paced:
        share = filter_verdict.most_invalid(paced[1])
        console.print(f"At {share:g} % invalid, {paced[0]:,.0f} packets/s, where all get the same:")
        console.print(foremost(paced[1], *list(TIMES)[1:]), "")
    if results.experiment != "filter-loss":
        for name, title in TITLES.items():
            console.print(f"{title}: µs a packet in userspace, and userspace's over each filter's")
            console.print(times(table, TIMES[name], published=name == "wall time"), "")
    if results.experiment != "filter-throughput":
        console.print("PUTs lost, %")
        console.print(losses(table), "")
        if knees(results):
            console.print("Knee: the highest rate, packets/s, that lost 0.1 % of PUTs or less")
            console.print(rates(results), "")
    for line in filter_verdict.sentences(table):
        console.print(line, highlight=False, soft_wrap=True)
    console.print("\n" + _about(results), highlight=False)


def foremost(table: Table, *names: str) -> Rich:
    """What filtering gains in these times where almost all is invalid."""
    at = table.packets[-1], filter_verdict.most_invalid(table)
    found = _table("userspace / kernel", *names, "points fewer lost")
    for series in (one for one in KERNEL if one in table.series):
        found.add_row(
            NAMES[series],
            *(
                words.bracket(table.gain(figure, (series, *at)))
                for figure in map(TIMES.__getitem__, names)
            ),
            filter_verdict.points(table.saved(filter_stats.loss, (series, *at))),
        )
    return found


def times(table: Table, figure: Figure, *, published: bool) -> Rich:
    """Userspace's time a packet, and each place's gain; beside it the published one if any."""
    kernel = [one for one in KERNEL if one in table.series]
    names = [*(NAMES[one] for one in kernel), *(["published (socket)"] if published else [])]
    found = _table("packets", "invalid", "userspace", *names)
    for packets, percent in _rows(table):
        theirs = table.mean(figure, ("userspace", packets, percent))
        row = [words.bracket(table.gain(figure, (one, packets, percent))) for one in kernel]
        if published:
            ratio = published_tables.filter_ratio(packets, percent)
            row.append("-" if ratio is None else words.times(ratio))
        found.add_row(f"{packets:,}", f"{percent:g} %", _margin(theirs, 1e6), *row)
    return found


def losses(table: Table) -> Rich:
    """The share of PUTs lost in each series, beside the published ones."""
    series = [one for one in SERIES if one in table.series]
    heads = [f"published {server}" for server in _published_servers()]
    found = _table("packets", "invalid", *(NAMES[one] for one in series), *heads)
    for packets, percent in _rows(table):
        if percent < 100:
            ours = (
                _margin(table.mean(filter_stats.loss, (one, packets, percent)), 100)
                for one in series
            )
            theirs = (_published(server, packets, percent) for server in _published_servers())
            found.add_row(f"{packets:,}", f"{percent:g} %", *ours, *theirs)
    return found


def rates(results: FilterResults) -> Rich:
    """The knee of each series and share of invalid packets."""
    found = knees(results)
    percents = sorted({percent for _, percent in found})
    table = _table("invalid", *(f"{one:g} %" for one in percents))
    for series in SERIES:
        row = [_knee(found, series, percent) for percent in percents]
        if any(row):
            table.add_row(NAMES[series], *row)
    return table


def _knee(found: dict[tuple[Series, float], Knee | None], series: Series, percent: float) -> str:
    if (series, percent) not in found:
        return ""
    knee = found[series, percent]
    if knee is None:
        return "below the slowest"
    return f"{'≥ ' if knee.fastest else ''}{words.amount(knee.reached)}"


def _published_servers() -> list[str]:
    return list(dict.fromkeys(row.server for row in published_tables.filter_loss()))


def _published(server: str, packets: int, percent: float) -> str:
    """`userspace / kernel`, in percent."""
    found = {
        row.path: row.loss
        for row in published_tables.filter_loss()
        if (row.server, row.packets, row.percent) == (server, packets, percent)
    }
    if not found:
        return "-"
    return " / ".join(f"{100 * found[path]:.1f}" for path in ("userspace", "kernel"))


def _rows(table: Table) -> list[tuple[int, float]]:
    return [(packets, percent) for packets in table.packets for percent in table.percents]


def _margin(of: Estimate, scale: float) -> str:
    digits = 2 if scale * of.value < 10 else 1
    margin = "" if of.margin is None else f" ±{scale * of.margin:.{digits}f}"
    return f"{scale * of.value:.{digits}f}{margin}"


def _about(results: FilterResults) -> str:
    settings = results.settings
    where = results.environment
    rounds = len({one.index for one in results.runs})
    lengths = (
        "invalid packets as long as valid ones"
        if settings.get("equal_length")
        else "invalid packets of 259 bytes and valid ones of 15, as published"
    )
    return (
        f"{rounds} interleaved rounds, 95 % intervals (Student's t; ratios and differences paired "
        f"by round). Behaviour {settings.get('behaviour')}, filter {settings.get('filter')}, "
        f"{lengths}. A loaded server that loses packets has less to do: read times beside the "
        "loss. The machine's CPU time has the client's sending in it, and other programs. "
        f"Published times without their {published_tables.FILTER_START_UP:g} s of start-up, '-' "
        "where what is left is too short to compare. "
        f"Pair {where.pair}: {where.driver}; Linux {where.kernel}; {where.cpus} CPUs, {where.cpu}."
        f"{words.client(results.client_environment)}"
    )


def _table(*headings: str) -> Rich:
    table = Rich(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for number, name in enumerate(headings):
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    return table
