# SPDX-License-Identifier: Apache-2.0
"""Filter throughput and filter loss, from one run."""

from __future__ import annotations

from carom.lab.experiments.filters.filtering import KNEE_SHORT, FilterExperiment, KneeSettings


class Both(FilterExperiment[KneeSettings]):
    """Times and losses, as fast as possible and at rates."""

    name = "filter-throughput-loss"
    description = "filter-throughput and filter-loss at once, from the same measurements"
    replaces = frozenset({"filter-throughput", "filter-loss"})
    full = KneeSettings()
    short = KneeSettings(**KNEE_SHORT)


EXPERIMENT = Both()
