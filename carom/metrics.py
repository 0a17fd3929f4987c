# SPDX-License-Identifier: Apache-2.0
"""What `carom status` says, as metrics of Prometheus.

Base units, counters that end in `_total`, and labels of which there are as many values as services,
interfaces and kinds of outcome.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from carom import __version__
from carom.errors import ControlError

Status = Mapping[str, Any]

_SERVER = ("replies", "handler_errors", "send_errors", "loops_ended")
_STATE = ("entries",)
"""What of a service's cache is no count of what happened."""


class Metrics(Collector):
    """The metrics of one carom. `ask` returns its status, and raises ControlError where there is
    none that answers: then `carom_up` is 0, and nothing else is said."""

    def __init__(self, ask: Callable[[], Status]):
        self._ask = ask

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("carom_up", "Whether a carom answers.")
        try:
            status = self._ask()
        except ControlError:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from _process(status)
        yield from _packets(status)
        yield from _services(status)
        yield from _caches(status)
        yield from _servers(status)


def _process(status: Status) -> Iterator[Metric]:
    build = InfoMetricFamily("carom_build", "This version of carom.")
    build.add_metric([], {"version": __version__})
    yield build
    started = time.time() - status["uptime_seconds"]
    yield GaugeMetricFamily("carom_start_time_seconds", "When it started, since 1970.", started)
    spent = status["cpu_seconds"]
    yield CounterMetricFamily("carom_cpu_seconds", "CPU time of its process.", spent)
    yield GaugeMetricFamily(
        "carom_not_followed",
        "Parts of this host that it fails to look at, and tries again.",
        len(status["not_followed"]),
    )
    attached = GaugeMetricFamily(
        "carom_interface_attached", "Where it is attached: 1.", labels=["interface", "hook", "mode"]
    )
    for interface in status["ready"]["interfaces"]:
        words = (interface["name"], interface["hook"], interface["mode"] or "")
        attached.add_metric(words, 1)
    yield attached


def _packets(status: Status) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "carom_max_hits_per_cpu",
        "Replies a second that one CPU gives at most; 0: any.",
        status["options"]["max_hits_per_cpu"],
    )
    packets = CounterMetricFamily(
        "carom_packets", "Packets by verdict (docs/counters.md).", labels=["hook", "verdict"]
    )
    for hook, verdicts in status["hooks"].items():
        for verdict, count in verdicts.items():
            packets.add_metric([hook, verdict], count)
    yield packets
    events = CounterMetricFamily(
        "carom_edge_events", "What was seen at fronted servers' sockets.", labels=["event"]
    )
    for event, count in status["edge"].items():
        events.add_metric([event], count)
    yield events
    filtered = CounterMetricFamily(
        "carom_filter_requests", "Requests to a filter by outcome.", labels=["outcome"]
    )
    for outcome, counts in (status["filter"]["tallies"] if status["filter"] else {}).items():
        filtered.add_metric([outcome], sum(counts))
    yield filtered


def _services(status: Status) -> Iterator[Metric]:
    service = GaugeMetricFamily(
        "carom_service_info", "Its services: 1.", labels=["port", "address", "protocol", "fast"]
    )
    for one in status["ready"]["services"]:
        words = (str(one["port"]), one["address"], one["protocol"], one["fast"])
        service.add_metric(words, 1)
    yield service
    answered = GaugeMetricFamily(
        "carom_service_answered",
        "Whether a service's requests can come in by an interface and be answered.",
        labels=["port", "interface"],
    )
    silent = GaugeMetricFamily(
        "carom_service_silent",
        "Whether a service has requests and no hits (`carom status` says why).",
        labels=["port"],
    )
    compared = CounterMetricFamily(
        "carom_shadow_replies",
        "Replies that were compared with the server's, by whether they were the same.",
        labels=["port", "outcome"],
    )
    off = GaugeMetricFamily(
        "carom_shadow_off", "Whether a differing reply has switched a cache off.", labels=["port"]
    )
    for one in status["services"]:
        port = str(one["port"])
        for reach in one["reach"]:
            answered.add_metric([port, reach["interface"]], reach["answered"])
        silent.add_metric([port], one["silence"] is not None)
        if one["shadow"]:
            differing = one["shadow"]["differing"]
            compared.add_metric([port, "same"], one["shadow"]["compared"] - differing)
            compared.add_metric([port, "differing"], differing)
            off.add_metric([port], one["shadow"]["off"])
    yield from (answered, silent, compared, off)


def _caches(status: Status) -> Iterator[Metric]:
    entries = GaugeMetricFamily(
        "carom_cache_entries", "Entries, void and expired ones too.", labels=["port"]
    )
    replies = CounterMetricFamily(
        "carom_cache_replies", "Replies by what became of them.", labels=["port", "outcome"]
    )
    for one in status["services"]:
        for name, count in (one["cache"] or {}).items():
            if name in _STATE:
                entries.add_metric([str(one["port"])], count)
            elif count is not None:  # None where the kernel counts several servers together
                replies.add_metric([str(one["port"]), name], count)
    yield from (entries, replies)
    if status["cache"]:
        cache = status["cache"]
        yield GaugeMetricFamily(
            "carom_cache_capacity", "Entries that there is room for.", cache["capacity"]
        )
        yield GaugeMetricFamily(
            "carom_cache_memory_bytes", "Memory of the cache.", cache["memory_bytes"]
        )
        yield CounterMetricFamily(
            "carom_cache_swept", "Dead entries that a sweep removed.", cache["swept"]
        )


def _servers(status: Status) -> Iterator[Metric]:
    replies = CounterMetricFamily(
        "carom_server_requests",
        "Requests to Python services by what became of them.",
        labels=["port", "outcome"],
    )
    userspace = CounterMetricFamily(
        "carom_userspace_cache_requests",
        "Requests to the cache inside a Python server.",
        labels=["port", "outcome"],
    )
    for one in status["services"]:
        for family, part in ((replies, "server"), (userspace, "userspace_cache")):
            for name, count in (one[part] or {}).items():
                family.add_metric([str(one["port"]), name], count)
    yield from (replies, userspace)
