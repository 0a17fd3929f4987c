# SPDX-License-Identifier: Apache-2.0
"""Watches over services that get requests and have no hits, and says why, once."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec
import structlog

from carom.daemon.answered import Answered
from carom.daemon.fastpath import Attachment, FastPath, Stray
from carom.daemon.keeper import Thread
from carom.daemon.reasons import ANSWERED, Counts, Reason, lost, reason
from carom.include.abi import Event, Hook, Verdict
from carom.xdp.probe import sent

SILENT = 10.0
"""Seconds with requests and without a hit after which that is said."""

_LOOK = 0.5  # seconds between two looks at the time

_REPLIES = (
    *(Event.LEARNED, Event.UNASKED, Event.UNLEARNABLE, Event.FULL, Event.NOT_ADMITTED, Event.HELD),
    *(Event.NOT_ASKED, Event.ENDING),
)
"""What becomes of a read's reply that leaves a fronted server's socket."""

Key = TypeVar("Key")

log = structlog.get_logger()


class Silence(msgspec.Struct, kw_only=True, frozen=True):
    """A service without hits: how many requests there were in so many seconds, and why."""

    requests: int
    seconds: float
    what: str
    why: str


class _Sample(NamedTuple):
    """Counters of one service so far; `kept` and `events` are None where others' are in them."""

    verdicts: Mapping[Verdict, int]
    replies: int
    kept: int | None
    events: Mapping[Event, int] | None


class Watcher:
    """Looks at services' counters each SILENT seconds; `silences` has those that are silent."""

    def __init__(
        self,
        fastpath: FastPath,
        services: Sequence[Answered],
        attachments: Callable[[], Sequence[Attachment]],
    ):
        self._fastpath = fastpath
        self._attachments = attachments
        self._services = [one for one in services if one.options.fast != "off"]
        self._learning = sum(one.learns for one in services)
        self._said: dict[int, str] = {}
        self.silences: dict[int, Silence] = {}
        self._begin()
        self._thread = Thread("watcher", self._step)

    def _begin(self) -> None:
        self._since = time.monotonic()
        self._strays = self._fastpath.strays()
        self._before = {one.id: self._sample(one) for one in self._services}
        self._hits = self._hits_now()
        self._sent = self._sent_now()

    def _step(self) -> float:
        seconds = time.monotonic() - self._since
        if seconds >= SILENT:
            strays, astray = self._new_strays(), self._lost()
            for one in self._services:
                if astray:
                    self._say(one, seconds, astray)
                    continue
                self._look(
                    one, seconds, [stray for stray in strays if stray.port == one.options.port]
                )
            self._begin()
        return _LOOK

    def _look(self, service: Answered, seconds: float, strays: list[Stray]) -> None:
        counts = self._counts(service, strays)
        found = reason(counts, service.options, service.server_name())
        if found is None:
            if any(counts.verdicts.get(one) for one in ANSWERED):
                self.silences.pop(service.id, None)
            return  # too little to tell by changes nothing
        self._say(service, seconds, found)

    def _say(self, service: Answered, seconds: float, found: Reason) -> None:
        self.silences[service.id] = Silence(
            requests=found.requests, seconds=round(seconds, 1), what=found.what, why=found.why
        )
        if self._said.get(service.id) != found.what:
            self._said[service.id] = found.what
            log.warning(
                "requests come, and the kernel answers none",
                port=service.options.port,
                requests=found.requests,
                seconds=round(seconds),
                most=found.what,
                why=found.why,
            )

    def _counts(self, service: Answered, strays: list[Stray]) -> Counts:
        """What was counted since the last look."""
        before, now = self._before[service.id], self._sample(service)
        last = max(strays, key=lambda one: one.seen, default=None)
        return Counts(
            _less(now.verdicts, before.verdicts),
            sum(one.seen for one in strays),
            _words(last) if last else "",
            now.replies - before.replies,
            None if now.kept is None else now.kept - (before.kept or 0),
            now.events and _less(now.events, before.events or {}),
        )

    def _sample(self, service: Answered) -> _Sample:
        verdicts = self._fastpath.verdicts_of(service.id)
        if not service.learns:
            kept = service.cache.fills if service.cache else None
            return _Sample(verdicts, service.replies, kept, None)
        if self._learning > 1:
            return _Sample(verdicts, 0, None, None)
        events = self._fastpath.events()
        replies = sum(events[one] for one in _REPLIES)
        return _Sample(verdicts, replies, events[Event.LEARNED], events)

    def _new_strays(self) -> list[Stray]:
        """Those of each CPU since the last look."""
        before = {cpu: one.seen for cpu, one in self._strays.items()}
        return [
            one._replace(seen=one.seen - before.get(cpu, 0))
            for cpu, one in self._fastpath.strays().items()
            if one.seen > before.get(cpu, 0)
        ]

    def _lost(self) -> Reason | None:
        """Of the only interface, whether what native XDP sends gets to its other end."""
        now, hits = self._sent_now(), self._hits_now() - self._hits
        if len(now) != 1 or now.keys() != self._sent.keys() or len(self._attachments()) > 1:
            return None
        ((name, count),) = now.items()
        return lost(name, hits, count - self._sent[name])

    def _hits_now(self) -> int:
        verdicts = self._fastpath.verdicts(Hook.XDP)
        return sum(verdicts[one] for one in ANSWERED)

    def _sent_now(self) -> dict[str, int]:
        """By interface, where native XDP may lose what it sends: packets that got to the others."""
        found = {}
        for one in self._attachments():
            if one.mode == "native" and one.interface.driver == "veth" and one.interface.there:
                with contextlib.suppress(OSError):  # it is gone
                    found[one.interface.name] = sent(one.interface.name)
        return found

    def close(self) -> None:
        """Stop looking."""
        self._thread.close()


def _less(now: Mapping[Key, int], before: Mapping[Key, int]) -> dict[Key, int]:
    return {one: many - before.get(one, 0) for one, many in now.items()}


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
