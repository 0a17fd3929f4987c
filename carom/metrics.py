# SPDX-License-Identifier: Apache-2.0
"""What `carom status` says, as metrics of Prometheus.

Base units, counters that end in `_total`, and labels of which there are as many values as services,
interfaces and kinds of outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from carom.errors import ControlError
from carom.kernel.abi import SAMPLED
from carom.map_metrics import of_maps

Status = Mapping[str, Any]

_SERVER = ("replies", "handler_errors", "send_errors", "loops_ended")
_STATE = ("entries",)
"""What of a service's cache is no count of what happened."""

_SERVICE = ("address", "port")

_LONGEST = 24
"""A reply that takes more than 2^24 microseconds, 17 s, is in the last bucket."""


class Metrics(Collector):
    """The metrics of one carom. `ask` returns its status, with the maps of its filter as
    `filter_maps` if there are any, and raises ControlError where there is none that answers: then
    `carom_up` is 0, and nothing else is said."""

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
        yield from _programs(status)
        yield from _interfaces(status)
        yield from _services(status)
        yield from _reply_times(status)
        yield from _caches(status)
        yield from _servers(status)
        yield from of_maps(status.get("filter_maps", ()))


def _of(service: Mapping[str, Any]) -> list[str]:
    """What tells services apart: several may have a port, at an address each."""
    return [service["address"], str(service["port"])]


def _process(status: Status) -> Iterator[Metric]:
    build = InfoMetricFamily("carom_build", "Its version.")
    build.add_metric([], {"version": status["version"]})
    yield build
    started = status["started_seconds"]
    yield GaugeMetricFamily("carom_start_time_seconds", "When it started, since 1970.", started)
    if status["lease_age_seconds"] is not None:
        yield GaugeMetricFamily(
            "carom_lease_age_seconds",
            "How long ago the kernel's lease was renewed: it answers for 2 s.",
            status["lease_age_seconds"],
        )
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


def _programs(status: Status) -> Iterator[Metric]:
    """What is known only where the kernel takes programs' time."""
    runs = CounterMetricFamily(
        "carom_program_runs", "Runs of a program that were timed.", labels=["program"]
    )
    spent = CounterMetricFamily("carom_program_run_seconds", "Their time.", labels=["program"])
    for name, ran in status["programs"].items():
        runs.add_metric([name], ran["runs"])
        spent.add_metric([name], ran["run_seconds"])
    yield from (runs, spent)


def _interfaces(status: Status) -> Iterator[Metric]:
    """Drivers' own counts, where they are known."""
    received = CounterMetricFamily(
        "carom_interface_received_packets",
        "Packets that the driver gave to XDP.",
        labels=["interface"],
    )
    replies = CounterMetricFamily(
        "carom_interface_replies",
        "Replies that XDP gave to the driver: sent, or lost after the verdict.",
        labels=["interface", "outcome"],
    )
    for interface in status["interfaces"]:
        if not interface["unknown"]:
            received.add_metric([interface["name"]], interface["received"])
            for outcome in ("sent", "lost"):
                replies.add_metric([interface["name"], outcome], interface[outcome])
    yield from (received, replies)


def _reply_times(status: Status) -> Iterator[Metric]:
    times = HistogramMetricFamily(
        "carom_reply_time_seconds",
        f"How long servers take to reply, of one request in {SAMPLED} (docs/operating.md).",
        labels=_SERVICE,
    )
    for one in status["services"]:
        if one["reply_times"]:
            counts, total, buckets = one["reply_times"]["counts"], 0, []
            for bits, count in enumerate(counts):
                total += count
                if bits <= _LONGEST:
                    buckets.append((str(2**bits / 1e6), total))
            buckets.append(("+Inf", total))
            times.add_metric(_of(one), buckets, one["reply_times"]["sum_seconds"])
    yield times


def _services(status: Status) -> Iterator[Metric]:
    service = GaugeMetricFamily(
        "carom_service_info", "Its services: 1.", labels=[*_SERVICE, "protocol", "fast"]
    )
    for one in status["ready"]["services"]:
        words = (*_of(one), one["protocol"], one["fast"])
        service.add_metric(words, 1)
    yield service
    packets = CounterMetricFamily(
        "carom_service_packets",
        "A service's packets by what became of them.",
        labels=[*_SERVICE, "outcome"],
    )
    for one in status["services"]:
        for outcome, count in (one["packets"] or {}).items():
            packets.add_metric([*_of(one), outcome], count)
    yield packets
    answered = GaugeMetricFamily(
        "carom_service_answered",
        "Whether a service's requests can come in by an interface and be answered.",
        labels=[*_SERVICE, "interface"],
    )
    silent = GaugeMetricFamily(
        "carom_service_silent",
        "Whether a service has requests and no hits (`carom status` says why).",
        labels=_SERVICE,
    )
    compared = CounterMetricFamily(
        "carom_shadow_replies",
        "Replies that were compared with the server's, by whether they were the same.",
        labels=[*_SERVICE, "outcome"],
    )
    off = GaugeMetricFamily(
        "carom_shadow_off", "Whether a differing reply has switched a cache off.", labels=_SERVICE
    )
    for one in status["services"]:
        for reach in one["reach"]:
            answered.add_metric([*_of(one), reach["interface"]], reach["answered"])
        silent.add_metric(_of(one), one["silence"] is not None)
        if one["shadow"]:
            differing = one["shadow"]["differing"]
            compared.add_metric([*_of(one), "same"], one["shadow"]["compared"] - differing)
            compared.add_metric([*_of(one), "differing"], differing)
            off.add_metric(_of(one), one["shadow"]["off"])
    yield from (answered, silent, compared, off)


def _caches(status: Status) -> Iterator[Metric]:
    entries = GaugeMetricFamily(
        "carom_cache_entries", "Entries, void and expired ones too.", labels=_SERVICE
    )
    replies = CounterMetricFamily(
        "carom_cache_replies", "Replies by what became of them.", labels=[*_SERVICE, "outcome"]
    )
    for one in status["services"]:
        for name, count in (one["cache"] or {}).items():
            if name in _STATE:
                entries.add_metric(_of(one), count)
            elif count is not None:  # None where the kernel counts several servers together
                replies.add_metric([*_of(one), name], count)
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
        labels=[*_SERVICE, "outcome"],
    )
    userspace = CounterMetricFamily(
        "carom_userspace_cache_requests",
        "Requests to the cache inside a Python server.",
        labels=[*_SERVICE, "outcome"],
    )
    for one in status["services"]:
        for family, part in ((replies, "server"), (userspace, "userspace_cache")):
            for name, count in (one[part] or {}).items():
                family.add_metric([*_of(one), name], count)
    yield from (replies, userspace)
