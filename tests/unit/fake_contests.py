# SPDX-License-Identifier: Apache-2.0
"""Made-up contests."""

from __future__ import annotations

from carom.lab.record import Figures, Run
from unit.fake_results import ENVIRONMENT


def held(*rows: tuple[str, int, dict[str, float]], experiment: str = "load") -> Run[Figures]:
    """A contest with these measurements."""
    return Run(
        experiment=experiment,
        measured=Figures.MEASURED,
        started="2026-01-02T03:04:05Z",
        seed=1,
        command=f"carom lab run {experiment}",
        settings={},
        environment=ENVIRONMENT,
        complete=True,
        measurements=[
            Figures(subject=subject, index=index, figures=values) for subject, index, values in rows
        ],
    )


def load(repetitions: int = 6, factor: float = 1.0) -> Run[Figures]:
    """A contest of full load, in which a hit takes `factor` times as long."""
    return held(
        *(
            (
                name,
                index,
                {
                    "replies/s": rate * (1 + index / 100) / factor,
                    "replies/CPU-s": 3 * rate / factor,
                    "p50 blocking, µs": 1e6 / rate * (1 + index / 100) * factor,
                },
            )
            for index in range(repetitions)
            for name, rate in (("hits, native", 2e5), ("userspace, blocking", 2e4))
        )
    )
