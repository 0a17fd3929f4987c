# SPDX-License-Identifier: Apache-2.0
"""Silence: notices services that get requests and have no hits, and logs the reason once."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from carom import log
from carom.daemon.backend import Backend
from carom.daemon.fastpath import Attachment, FastPath, Stray
from carom.daemon.outcomes import ANSWERED
from carom.daemon.reasons import Counts, Reason, lost, reason
from carom.daemon.thread import Thread
from carom.kernel.abi import Event, Hook, Verdict
from carom.xdp.probe import sent

SILENT = 10.0
"""Seconds with requests and without a hit after which that is reported."""

PATIENCE = 600.0
"""Seconds within which few requests are counted together."""

_LOOK = 0.5  # seconds between two looks at the time

_REPLIES = (
    *(Event.LEARNED, Event.UNASKED, Event.UNLEARNABLE, Event.FULL, Event.NOT_ADMITTED, Event.HELD),
    *(Event.NOT_ASKED, Event.ENDING),
)
"""What may happen to a read's reply that leaves a fronted server's socket."""

Key = TypeVar("Key")


class Silence(msgspec.Struct, kw_only=True, frozen=True):
    """A service without hits: how many requests there were, in how many seconds, and why."""

    requests: int
    seconds: float
    what: str
    why: str


class _Sample(NamedTuple):
    """Counters of one service so far, as in Counts."""

    verdicts: Mapping[Verdict, int]
    replies: int
    kept: int
    events: Mapping[Event, int] | None
    own: Mapping[str, int]


class _Look(NamedTuple):
    """All counters at a moment.

    `sent` are packets that got to the other end, by interface, for those where native XDP may lose
    what it sends. `hits` are those that it sent, counted if there is such an interface. `entries`
    are in the cache, and `removed` were in it before they were dead.
    """

    at: float
    strays: Mapping[int, Stray]
    services: Mapping[int, _Sample]
    sent: Mapping[str, int]
    hits: int
    entries: int
    removed: int


class SilenceWatcher:
    """Looks at services' counters every SILENT seconds; `silences` has the silent services.

    Where too few requests came to tell anything, it looks at a longer time, up to PATIENCE.
    """

    def __init__(
        self,
        fastpath: FastPath,
        services: Sequence[Backend],
        attachments: Callable[[], Sequence[Attachment]],
    ):
        self._fastpath = fastpath
        self._attachments = attachments
        self._services = [service for service in services if service.options.fast != "off"]
        self._learning = sum(service.receiver.learns for service in services)
        self._said: dict[int, str] = {}
        self.silences: dict[int, Silence] = {}
        self._caches = sum(service.cache is not None for service in self._services)
        self._before = self._look()
        self._since = {service.id: self._before for service in self._services}
        self._thread = Thread("silence", self._step)

    def _look(self) -> _Look:
        sent = self._sent()
        return _Look(
            time.monotonic(),
            self._fastpath.strays(),
            {service.id: self._sample(service) for service in self._services},
            sent,
            self._hits() if sent else 0,
            len(self._fastpath.store),
            self._fastpath.store.removed,
        )

    def _step(self) -> float:
        if time.monotonic() - self._before.at >= SILENT:
            before, now = self._before, self._look()
            self._before = now
            astray = self._lost(before, now)
            for service in self._services:
                if astray:
                    self._say(service, now.at - before.at, astray)
                    self._since[service.id] = now
                else:
                    self._judge(service, now)
        return _LOOK

    def _judge(self, service: Backend, now: _Look) -> None:
        before = self._since[service.id]
        counts = self._counts(service, before, now)
        cause = reason(counts, service.options, service.receiver.server_name())
        answered = any(counts.verdicts.get(verdict) for verdict in ANSWERED)
        if cause:
            self._say(service, now.at - before.at, cause)
        elif answered:
            self.silences.pop(service.id, None)
        few = not cause and not answered and (any(counts.verdicts.values()) or counts.strays)
        if not few or now.at - before.at >= PATIENCE:
            self._since[service.id] = now

    def _say(self, service: Backend, seconds: float, cause: Reason) -> None:
        self.silences[service.id] = Silence(
            requests=cause.requests, seconds=round(seconds, 1), what=cause.what, why=cause.why
        )
        if self._said.get(service.id) != cause.what:
            self._said[service.id] = cause.what
            log.warning(
                "requests come, and the kernel answers none",
                port=service.options.port,
                requests=cause.requests,
                seconds=round(seconds),
                most=cause.what,
                why=cause.why,
            )

    def _sample(self, service: Backend) -> _Sample:
        verdicts, own = self._fastpath.verdicts_of(service.id), service.tallies()
        if not service.receiver.learns or not self._fastpath.edge:
            kept = service.cache.fills if service.cache else 0
            return _Sample(verdicts, service.replies, kept, None, own)
        events = self._fastpath.edge.events()
        replies = 0 if self._learning > 1 else sum(events[event] for event in _REPLIES)
        return _Sample(verdicts, replies, events[Event.LEARNED], events, own)

    def _counts(self, service: Backend, before: _Look, now: _Look) -> Counts:
        """What was counted of a service from one look to another."""
        counts = _counts(service, before, now)
        if self._caches > 1:
            return counts._replace(shared=service.receiver.learns and self._learning > 1)
        swept = now.removed - before.removed
        evicted = counts.kept - swept - (now.entries - before.entries)
        return counts._replace(swept=swept, evicted=max(0, evicted))

    def _lost(self, before: _Look, now: _Look) -> Reason | None:
        """The reason if native XDP's replies by the only interface do not get to its other end."""
        if len(now.sent) != 1 or now.sent.keys() != before.sent.keys():
            return None
        if len(self._attachments()) > 1:
            return None
        ((name, count),) = now.sent.items()
        return lost(name, now.hits - before.hits, count - before.sent[name])

    def _hits(self) -> int:
        verdicts = self._fastpath.verdicts(Hook.XDP)
        return sum(verdicts[verdict] for verdict in ANSWERED)

    def _sent(self) -> dict[str, int]:
        counts = {}
        for attachment in self._attachments():
            if (
                attachment.mode == "native"
                and attachment.interface.driver == "veth"
                and attachment.interface.there
            ):
                with contextlib.suppress(OSError):  # it is gone
                    counts[attachment.interface.name] = sent(attachment.interface.name)
        return counts

    def close(self) -> None:
        """Stop looking."""
        self._thread.close()


def _counts(service: Backend, before: _Look, now: _Look) -> Counts:
    """What was counted of a service from one look to the next."""
    then, sample = before.services[service.id], now.services[service.id]
    strays = [
        stray._replace(seen=stray.seen - (before.strays[cpu].seen if cpu in before.strays else 0))
        for cpu, stray in now.strays.items()
        if stray.port == service.options.port
    ]
    strays = [stray for stray in strays if stray.seen]
    last = max(strays, key=lambda stray: stray.seen, default=None)
    return Counts(
        _less(sample.verdicts, then.verdicts),
        sum(stray.seen for stray in strays),
        _words(last) if last else "",
        sample.replies - then.replies,
        sample.kept - then.kept,
        sample.events and _less(sample.events, then.events or {}),
        own=_less(sample.own, then.own),
    )


def _less(now: Mapping[Key, int], before: Mapping[Key, int]) -> dict[Key, int]:
    return {key: count - before.get(key, 0) for key, count in now.items()}


def _words(stray: Stray) -> str:
    try:
        name = socket.if_indextoname(stray.ifindex)
    except OSError:  # it is gone
        name = f"interface {stray.ifindex}"
    tags = "".join(f" behind VLAN tag {tag}" for tag in (stray.outer, stray.inner) if tag)
    return (
        f"they come to {stray.address} port {stray.port} by {name}{tags}, where it is not answered "
        "(`reach` in carom status --json says where it is)"
    )
