# SPDX-License-Identifier: Apache-2.0
"""Maps of a user's own filter as metrics: a name for each member of their values, labels by those
of their keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

ENTRIES = 1000
"""Entries of a map that become metrics: each is a series of its own in Prometheus."""


def of_maps(maps: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    """The metrics of what a carom says of the maps (`filter_maps`)."""
    left = GaugeMetricFamily(
        "carom_filter_left_out",
        f"Entries of a filter's map beyond the {ENTRIES:,} that are metrics.",
        labels=["map"],
    )
    for one in maps:
        yield from _of_map(one)
        if one["kind"] != "print":
            left.add_metric([one["name"]], one["left_out"])
    yield left


def _of_map(one: Mapping[str, Any]) -> Iterator[Metric]:
    kind = CounterMetricFamily if one["kind"] == "counter" else GaugeMetricFamily
    for name, member in zip(one["metrics"], one["values"], strict=False):
        what = f"{member} of map {one['name']} of the filter that runs."
        family = kind(f"carom_filter_{name}", what, labels=one["keys"])
        for entry in one["entries"]:
            family.add_metric([str(said) for said in entry["key"].values()], entry["value"][member])
        yield family
