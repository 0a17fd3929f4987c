# SPDX-License-Identifier: Apache-2.0
"""What the control socket answers of services that run: `carom status`, `cache` and `filter`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from carom import protocols
from carom.daemon.backend import Backend
from carom.daemon.edge import Edge
from carom.daemon.filtering import Filtering
from carom.daemon.fronted_backend import FrontedBackend
from carom.daemon.ready import Ready, ReadyFilter, ReadyInterface, ReadyService
from carom.daemon.running import Running
from carom.errors import UsageError
from carom.kernel.abi import Event, Hook, Verdict


def calls(running: Running) -> dict[str, Callable[..., Any]]:
    """The calls by name."""

    def of(port: int | None) -> Backend:
        return _find(running, port)

    def filtering() -> Filtering:
        return _need_filter(running)

    return {
        "status": lambda: status(running),
        "list": lambda limit, port=None: of(port).list(limit),
        "get": lambda key, port=None: of(port).get(key),
        "drop": lambda key, port=None: of(port).drop(key),
        "flush": lambda port=None: of(port).flush(),
        "filter": lambda: filtering().show(),
        "filter_use": lambda filter: filtering().use(filter),
        "filter_set": lambda setting, value: filtering().filter.set(setting, value),
        "filter_captures": lambda rate, limit: filtering().captures(rate, limit),
    }


def _need_filter(running: Running) -> Filtering:
    if not running.parts.filtering:
        apps = protocols.words(one for one in protocols.SPECS.values() if one.filtered)
        raise UsageError("no filter runs here", hint=f"`carom serve --app {apps} --filter NAME`")
    return running.parts.filtering


def _find(running: Running, port: int | None) -> Backend:
    """The service on a port; without one, the only one."""
    backends = running.parts.backends
    found = [one for one in backends if port in (None, one.options.port)]
    if len(found) != 1:
        ports = ", ".join(str(one.options.port) for one in backends)
        raise UsageError(
            f"no service on port {port}" if port else "several services run",
            hint=f"--port takes one of {ports}",
        )
    return found[0]


def ready(running: Running) -> Ready:
    """What is answered, and where."""
    parts, attachments = running.parts, running.attachments
    filter = parts.filtering.filter if parts.filtering else None
    return Ready(
        services=[
            ReadyService(
                address=one.options.bind,
                port=one.options.port,
                protocol=one.options.protocol,
                fast=one.options.fast if attachments else "off",
            )
            for one in parts.backends
        ],
        interfaces=[
            ReadyInterface(name=one.interface.name, hook=one.hook, mode=one.mode)
            for one in attachments
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
            **one.status(),
            "reach": attached.publisher.reaches(one.receiver) if attached else [],
            "silence": watcher and watcher.silences.get(one.id),
        }
        for one in parts.backends
    ]
    hooks = _hooks(running)
    edge = parts.fastpath.edge if parts.fastpath else None
    learned = [one for one in parts.backends if isinstance(one, FrontedBackend) and one.cache]
    kept = _learned(edge, learned) if edge and learned else {}
    for backend in learned:  # of several, the kernel does not count whose they are
        own = kept if len(learned) == 1 else dict.fromkeys(kept)
        services[parts.backends.index(backend)]["cache"] |= own
    cache = _total(services, "cache")
    if cache:
        if len(learned) > 1:
            cache |= {name: cache.get(name, 0) + count for name, count in kept.items()}
        cache["capacity"] = parts.options.entries()
        cache["swept"] = attached.sweeper.swept if attached and attached.sweeper else 0
    return {
        "ready": ready(running),
        "options": parts.options,
        "uptime_seconds": time.monotonic() - parts.started,
        "cpu_seconds": time.process_time(),
        "server": _total(services, "server"),
        "userspace_cache": _total(services, "userspace_cache"),
        "cache": cache,
        "verdicts": {
            verdict.name.lower(): sum(one[verdict.name.lower()] for one in hooks.values())
            for verdict in (Verdict if hooks else ())
        },
        "hooks": hooks,
        "edge": {event.name.lower(): count for event, count in edge.events().items()}
        if edge
        else {},
        "services": services,
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


def _learned(edge: Edge, backends: Sequence[FrontedBackend]) -> dict[str, int]:
    """What became of the replies of all fronted servers together, as the kernel counted them."""
    events = edge.events()
    return {
        "fills": max(0, events[Event.LEARNED] - sum(one.not_given for one in backends)),
        "refused": events[Event.FULL],
        "not_admitted": events[Event.NOT_ADMITTED],
        "held": events[Event.HELD],
        "unfit": events[Event.UNLEARNABLE],
    }


def _total(services: list[dict[str, Any]], part: str) -> dict[str, int] | None:
    """The sum of a part over the services that have it."""
    parts = [one[part] for one in services if one[part]]
    if not parts:
        return None
    names = dict.fromkeys(name for one in parts for name in one)
    return {name: sum(one.get(name) or 0 for one in parts) for name in names}
