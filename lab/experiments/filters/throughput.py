# SPDX-License-Identifier: Apache-2.0
"""Filter throughput: time and CPU time against the share of invalid packets."""

from __future__ import annotations

from carom.lab.experiments.filters.filtering import SHORT, FilterExperiment, Settings


class Throughput(FilterExperiment[Settings]):
    """Times, as fast as possible."""

    name = "filter-throughput"
    description = (
        "time and CPU time against invalid packets, rejected at each hook "
        "(Kierkegaard and Willén 2025)"
    )
    of_losses = False
    full = Settings()
    short = Settings(**SHORT)


EXPERIMENT = Throughput()
