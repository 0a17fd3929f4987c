# SPDX-License-Identifier: Apache-2.0
"""Filter loss: PUTs lost against the share of invalid packets, and the knee of the rate."""

from __future__ import annotations

from carom.lab.experiments.filters.filtering import KNEE_SHORT, FilterExperiment, KneeSettings


class Loss(FilterExperiment[KneeSettings]):
    """Losses, as fast as possible and at rates."""

    name = "filter-loss"
    description = (
        "PUTs lost, rejecting at each hook, and the highest rate without loss "
        "(Kierkegaard and Willén 2025)"
    )
    of_times = False
    full = KneeSettings()
    short = KneeSettings(**KNEE_SHORT)


EXPERIMENT = Loss()
