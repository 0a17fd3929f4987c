# SPDX-License-Identifier: Apache-2.0
"""The control socket's calls on running services: `carom status`, `cache` and `filter`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from carom import __version__, protocols
from carom.daemon.backend import Backend
from carom.daemon.edge import Edge
from carom.daemon.filtering import Filtering
from carom.daemon.fronted_backend import FrontedBackend
from carom.daemon.outcomes import outcomes
from carom.daemon.ready import Ready, ReadyFilter, ReadyInterface, ReadyService
from carom.daemon.running import Reloading, Running
from carom.errors import UsageError
from carom.kernel import libbpf
from carom.kernel.abi import Event, Hook, Verdict


def calls(running: Running) -> dict[str, Callable[..., Any]]:
    """The calls by name."""

    def backend(port: int | None) -> Backend:
        return _find(running, port)

    def filtering() -> Filtering:
        return _need_filter(running)

    return {
        "status": lambda: status(running),
        "list": lambda limit, port=None: backend(port).list(limit),
        "get": lambda key, port=None: backend(port).get(key),
        "drop": lambda key, port=None: backend(port).drop(key),
        "page": lambda page, port=None: backend(port).page(page),
        "restore": lambda protocol, entries, port=None: backend(port).restore(protocol, entries),
        "flush": lambda port=None: backend(port).flush(),
        "hot": lambda most, port=None: hot(running, most, port),
        "places": lambda source=None: _why().places(_why().Asked.of(running), source),
        "why": lambda frames, interface: _why().why(_why().Asked.of(running), frames, interface),
        "trace": lambda wanted: _tracing().trace(running, wanted),
        "reload": lambda: _need_file(running).reload(),
        "filter": lambda: filtering().show(),
        "filter_use": lambda filter, object=None: (
            filtering().use(filter) if object is None else filtering().use_own(filter, object)
        ),
        "filter_maps": lambda most: filtering().tables(most),
        "filter_events": lambda most: filtering().events(most),
        "filter_set": lambda setting, value: filtering().filter.set(setting, value),
        "filter_captures": lambda rate, limit: filtering().captures(rate, limit),
    }


def hot(running: Running, most: int, port: int | None) -> list[dict[str, Any]]:
    """The keys that are hit most, of a service or of all; of those that were hit in a moment."""
    from carom.daemon.hot_keys import hottest

    fastpath, backends = running.parts.fastpath, running.parts.backends
    ports = {
        backend.id: backend.options.port
        for backend in ([_find(running, port)] if port else backends)
        if backend.cache
    }
    return [
        {
            "port": ports[one.entry.service],
            "key": one.entry.key.hex(),
            "hits_per_second": one.hits,
        }
        for one in (hottest(fastpath.store, set(ports), most) if fastpath and ports else ())
    ]


def _why() -> ModuleType:
    """Imported when somebody asks: no start needs it."""
    from carom.daemon import why

    return why


def _tracing() -> ModuleType:
    """The same."""
    from carom.daemon import tracing

    return tracing


def _need_file(running: Running) -> Reloading:
    if not running.reloader:
        raise UsageError(
            "this carom has no configuration file",
            hint="`carom run`, and `carom serve` or `front` with --config, have one",
        )
    return running.reloader


def _need_filter(running: Running) -> Filtering:
    if not running.parts.filtering:
        apps = protocols.words(
            protocol for protocol in protocols.SPECS.values() if protocol.filtered
        )
        raise UsageError("no filter runs here", hint=f"`carom serve --app {apps} --filter NAME`")
    return running.parts.filtering


def _find(running: Running, port: int | None) -> Backend:
    """The service on a port; without a port, the only one. Raises UsageError."""
    backends = running.parts.backends
    matching = [backend for backend in backends if port in (None, backend.options.port)]
    if len(matching) != 1:
        ports = ", ".join(str(backend.options.port) for backend in backends)
        raise UsageError(
            f"no service on port {port}" if port else "several services run",
            hint=f"--port takes one of {ports}",
        )
    return matching[0]


def ready(running: Running) -> Ready:
    """What is answered, and where."""
    parts, attachments = running.parts, running.attachments
    filter = parts.filtering.filter if parts.filtering else None
    return Ready(
        services=[
            ReadyService(
                address=backend.options.bind,
                port=backend.options.port,
                protocol=backend.options.protocol,
                fast=backend.options.fast if attachments else "off",
            )
            for backend in parts.backends
        ],
        interfaces=[
            ReadyInterface(
                name=attachment.interface.name, hook=attachment.hook, mode=attachment.mode
            )
            for attachment in attachments
        ],
        filter=ReadyFilter(name=filter.name, place=filter.place) if filter else None,
        notes=[*parts.notes, *(parts.firewall.notes() if parts.firewall else ())],
        pid=os.getpid(),
    )


def status(running: Running) -> dict[str, Any]:
    """Everything that `carom status` shows: totals, and each service's own."""
    parts, attached = running.parts, running.parts.attached
    watcher = attached.watcher if attached else None
    services = [
        {
            **backend.status(),
            **_decided(parts.fastpath.verdicts_of(backend.id) if parts.fastpath else {}),
            "options": backend.options,
            "reach": attached.publisher.reaches(backend.receiver) if attached else [],
            "silence": watcher and watcher.silences.get(backend.id),
        }
        for backend in parts.backends
    ]
    hooks = _hooks(running)
    verdicts = {
        verdict: sum(counts[verdict.name.lower()] for counts in hooks.values())
        for verdict in (Verdict if hooks else ())
    }
    edge = parts.fastpath.edge if parts.fastpath else None
    learned = [
        backend
        for backend in parts.backends
        if isinstance(backend, FrontedBackend) and backend.cache
    ]
    kept = _learned(edge, learned) if edge and learned else {}
    for backend in learned:  # the kernel counts those of several servers together
        own = kept if len(learned) == 1 else dict.fromkeys(kept)
        services[parts.backends.index(backend)]["cache"] |= own
    cache = _total(services, "cache")
    if cache:
        if len(learned) > 1:
            cache |= {name: cache.get(name, 0) + count for name, count in kept.items()}
        cache["capacity"] = parts.options.entries()
        cache["memory_bytes"] = parts.fastpath.store.memory if parts.fastpath else 0
        cache["swept"] = attached.sweeper.swept if attached and attached.sweeper else 0
    return {
        "ready": ready(running),
        "options": parts.options,
        "version": __version__,
        "started_seconds": parts.began,
        "uptime_seconds": time.monotonic() - parts.started,
        "cpu_seconds": time.process_time(),
        "server": _total(services, "server"),
        "userspace_cache": _total(services, "userspace_cache"),
        "cache": cache,
        **_decided(verdicts),
        "hooks": hooks,
        "interfaces": attached.attachments.status() if attached else [],
        "lease_age_seconds": attached.keeper.age() if attached else None,
        "programs": _programs(running),
        "edge": {event.name.lower(): count for event, count in edge.events().items()}
        if edge
        else {},
        "services": services,
        "pinned": str(parts.pinned.folder) if parts.pinned else None,
        "not_followed": parts.followers.failing(),
        "filter": parts.filtering and parts.filtering.show(),
    }


def _hooks(running: Running) -> dict[str, dict[str, int]]:
    """Verdicts by hook, where there is a fast path."""
    fastpath = running.parts.fastpath
    if not fastpath:
        return {}
    return {
        hook.name.lower(): {
            verdict.name.lower(): count for verdict, count in fastpath.verdicts(hook).items()
        }
        for hook in Hook
    }


def _decided(verdicts: Mapping[Verdict, int]) -> dict[str, Any]:
    """Verdicts by name, and what became of their packets."""
    return {
        "verdicts": {verdict.name.lower(): count for verdict, count in verdicts.items()},
        "packets": outcomes(verdicts) if verdicts else None,
    }


def _programs(running: Running) -> dict[str, dict[str, float]]:
    """How often programs ran, and how long in all, while the kernel took their time.

    It does for `carom top --cost`, or where kernel.bpf_stats_enabled is 1. What one calls by a tail
    call is counted as its own.
    """
    filtering, fastpath = running.parts.filtering, running.parts.fastpath
    told = {"filter": filtering.filter.runs()} if filtering else {}
    if fastpath:
        told |= {name: libbpf.runs(program) for name, program in fastpath.entered().items()}
    return {
        name: {"runs": ran.times, "run_seconds": ran.nanoseconds / 1e9}
        for name, ran in told.items()
    }


def _learned(edge: Edge, backends: Sequence[FrontedBackend]) -> dict[str, int]:
    """What happened to the replies of all fronted servers together, as the kernel counts it."""
    events = edge.events()
    return {
        "fills": max(0, events[Event.LEARNED] - sum(backend.not_given for backend in backends)),
        "refused": events[Event.FULL],
        "not_admitted": events[Event.NOT_ADMITTED],
        "held": events[Event.HELD],
        "unfit": events[Event.UNLEARNABLE],
    }


def _total(services: list[dict[str, Any]], part: str) -> dict[str, int] | None:
    """The sum of a part over the services that have it."""
    parts = [service[part] for service in services if service[part]]
    if not parts:
        return None
    names = dict.fromkeys(name for counts in parts for name in counts)
    return {name: sum(counts.get(name) or 0 for counts in parts) for name in names}
