# SPDX-License-Identifier: Apache-2.0
"""The published experiments with four ports (Sickler 2022)."""

from __future__ import annotations

from functools import cache

from carom.lab.show.published import rows

_PORT_PATHS = {
    "userspace": "userspace",
    "xdp": "xdp",
    "userspace_alone": "alone",
    "userspace_concurrent": "processes",
    "xdp_queue_daemon_threads": "queue",
}
"""Our series, by their names in the published experiments with four ports."""


@cache
def means(experiment: str) -> dict[tuple[str, int], float]:
    """Mean round trips (ms) of concurrency or demux, by our series and the socket."""
    return {
        (_PORT_PATHS[row["path"]], int(row["socket"])): float(row["rtt_mean_ms"])
        for row in rows(f"{experiment}.csv")
    }


def ratio(experiment: str, over: tuple[str, int], under: tuple[str, int]) -> float | None:
    """The mean of one series and socket over another's; None where one is not published."""
    published = means(experiment)
    return published[over] / published[under] if over in published and under in published else None
