# SPDX-License-Identifier: Apache-2.0
"""Filter throughput and loss at once."""

from __future__ import annotations

from carom.lab.experiments.filters.filtering import KNEE_SHORT, FilterExperiment, KneeSettings


class Both(FilterExperiment[KneeSettings]):
    """Times and losses."""

    name = "filter-throughput-loss"
    description = "both, by one set of runs"
    replaces = frozenset({"filter-throughput", "filter-loss"})
    full = KneeSettings()
    short = KneeSettings(**KNEE_SHORT)


EXPERIMENT = Both()
