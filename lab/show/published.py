# SPDX-License-Identifier: Apache-2.0
"""The published figures, for tables beside ours; each experiment reads its own."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from carom.lab.record import Run
from carom.lab.show import words
from carom.lab.show.sheets import Row, Sheet

SICKLER = {
    "authors": "Sickler 2022",
    "hosts": "two virtual machines (VirtualBox) on one host",
    "CPUs": "1 for each machine",
    "memory": "4 GB for each machine",
    "distribution": "Ubuntu 20.04",
    "kernel": "5.13",
    "userspace": "blocks for its packet",
    "time": "means over whole runs (time / packets)",
}
"""How and on what Sickler (2022) measured, as far as is known.

Compare ratios within these tables with ratios within our runs, but not times: they are from two
VirtualBox machines with one CPU each.
"""


def rows(name: str) -> list[dict[str, str]]:
    """The lines of a published table, each by the table's headings."""
    text = files("carom.lab").joinpath("published", name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def where(run: Run[Any], theirs: Mapping[str, str], **ours: str) -> Sheet:
    """How and on what a run and the published figures were measured, fact by fact of `theirs`."""
    on = run.environment
    facts = {
        "authors": f"carom {on.carom}",
        "hosts": f"pair {on.pair} ({on.driver}), {on.mode or 'no'} XDP",
        "CPUs": f"{on.cpus}, {on.cpu}",
        "memory": f"{on.memory_bytes / 2**30:.1f} GiB",
        "distribution": on.distribution,
        "kernel": on.kernel,
        "repetitions": str(run.settings.get("repetitions", "-")),
        **ours,
    }
    lines: list[Row] = [
        {"": name, "this run": facts.get(name, "-"), "published": fact}
        for name, fact in theirs.items()
    ]
    return Sheet("Where: this run, and what was published", lines, names=3)


def ratio(value: float) -> str:
    """Our figure over the published one, as text."""
    return words.times(value) if value >= 0.1 else f"{value:.3g}"
