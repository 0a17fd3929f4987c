# SPDX-License-Identifier: Apache-2.0
"""Full load: replies a second and a CPU-second, by userspace, hits and bare swaps."""

from __future__ import annotations

import functools
from typing import Any, Literal

from carom.errors import ExperimentError
from carom.lab.experiments.contests.contest import Contest
from carom.lab.experiments.contests.judging import Bar, Subject
from carom.lab.experiments.contests.ways import (
    HITS,
    PER_CPU,
    RATE,
    WAYS,
    each_way,
    full_load,
    keyed,
    load_all,
    serving,
)
from carom.lab.testbed import PORT, Bed, attached
from carom.xdp.link import Mode


def _userspace(bed: Bed[Any], wait: Literal["block", "spin"]) -> dict[str, float]:
    plan = keyed(bed, HITS)
    with serving(bed, "-p", str(PORT), "--hook", "none", "--wait", wait) as ready:
        return full_load(bed, plan, "echo", PORT, [ready["pid"]])


def _swap(bed: Bed[Any], mode: Mode) -> dict[str, float]:
    with attached(bed.server, bed.pair.server.interface, "swap", mode):
        return full_load(bed, keyed(bed, HITS), "echo", PORT, [])


def _hits(bed: Bed[Any], *arguments: str) -> dict[str, float]:
    plan = keyed(bed, HITS)
    with serving(bed, "-p", str(PORT), *arguments) as ready:
        load_all(bed, plan, "echo", PORT, warm=True)
        before = bed.server.call("status", pid=ready["pid"])["verdicts"]["hit"]
        figures = full_load(bed, plan, "echo", PORT, [ready["pid"]])
        hits = bed.server.call("status", pid=ready["pid"])["verdicts"]["hit"] - before
    if hits < figures[RATE] * bed.settings.seconds * 0.999:
        raise ExperimentError(f"only {hits} replies were hits")
    return figures


class Load(Contest):
    """Servers in userspace, hits at each hook, and programs that only swap a packet's ends."""

    name = "load"
    description = "replies a second and a CPU-second under full load: userspace, hits, bare swaps"
    subjects = (
        Subject("userspace, blocking", functools.partial(_userspace, wait="block")),
        Subject("userspace, spinning", functools.partial(_userspace, wait="spin")),
        Subject("bare swap, native", functools.partial(_swap, mode="native")),
        Subject("bare swap, generic", functools.partial(_swap, mode="generic")),
        *each_way("hits, ", _hits),
    )
    bars = (
        *(
            Bar(
                f"hits, {mode}: a CPU-second, by the fastest userspace",
                PER_CPU,
                f"hits, {mode}",
                ("userspace, blocking", "userspace, spinning"),
                at_least=None if mode == "TC" else 8,
            )
            for mode in WAYS
        ),
        *(
            Bar(
                f"hits, {mode}: a second, by bare swaps",
                RATE,
                f"hits, {mode}",
                (f"bare swap, {mode}",),
                at_least=0.8,
            )
            for mode in ("native", "generic")
        ),
    )


EXPERIMENT = Load()
