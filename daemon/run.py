# SPDX-License-Identifier: Apache-2.0
"""Run services until a signal: check the options, assemble, report, and remove all again."""

from __future__ import annotations

import contextlib
import functools
import queue
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from carom import log
from carom.daemon.assemble import assemble
from carom.daemon.front import Front
from carom.daemon.lease import RENEWAL
from carom.daemon.manager import Manager
from carom.daemon.running import Running
from carom.daemon.service import Service
from carom.daemon.status import ready, status
from carom.daemon.thread import Thread
from carom.daemon.together import Member, conflicts
from carom.errors import CaromError, UsageError
from carom.kernel import capabilities
from carom.kernel.signals import Stop, ending, held

if TYPE_CHECKING:
    from carom.daemon.reload import Change

WAIT_STEP = 0.25
"""Seconds between two attempts while waiting at the start."""


MORE_TIME = "EXTEND_TIMEOUT_USEC=60000000"
"""Tells the manager, with each attempt, that the start takes a minute more: it is for `--wait` to
say when that ends."""


def _check(services: Sequence[Service | Front], interfaces: Sequence[str]) -> None:
    """Check what spans several services' options. Raises UsageError."""
    for service in services:
        if isinstance(service, Service) and service.handler is None:
            raise UsageError(
                f"the service on port {service.options.port} has no handler",
                hint="decorate one with @service.reply",
            )
    members = [Member(service.options, isinstance(service, Front)) for service in services]
    for _, conflict in conflicts(members, interfaces):
        raise conflict


def _start(
    stack: contextlib.ExitStack,
    services: Sequence[Service | Front],
    interfaces: Sequence[str],
    patience: float,
    manager: Manager,
    *,
    least: bool,
) -> Running:
    """Start, to be closed with the stack; try for `patience` seconds while something is missing."""
    end, last = time.monotonic() + patience, ""
    while True:
        try:
            with held():
                running = contextlib.closing(assemble(services, interfaces, manager, least=least))
                return stack.enter_context(running)
        except CaromError as error:
            if not error.passing or time.monotonic() >= end:
                raise
            if str(error) != last:
                log.info("waiting", why=str(error))
            manager.tell(f"STATUS=waiting: {error}", MORE_TIME)
            last = str(error)
        time.sleep(WAIT_STEP)


def run_services(
    services: Sequence[Service | Front],
    interfaces: Sequence[str],
    *,
    json: bool = False,
    patience: float = 0,
    reread: Callable[[], Change] | None = None,
    least: bool = False,
) -> None:
    """Run services until SIGINT or SIGTERM; print one `ready` line once packets are answered.

    For `patience` seconds (math.inf: for ever) it waits for a server, an interface or an address
    that is not there yet. With `reread` SIGHUP has it ask that what the options are to be, instead
    of ending it. With `least` this process gives up every capability that is not needed once
    packets are answered.
    """
    _check(services, interfaces)
    manager = Manager()
    asked = queue.SimpleQueue[bool]()
    hung_up = functools.partial(asked.put, True) if reread else None
    with contextlib.suppress(Stop), ending(hung_up), contextlib.ExitStack() as stack:
        running = _start(stack, services, interfaces, patience, manager, least=least)
        if reread:
            from carom.daemon.reload import Reloader  # few have a file that is read again

            running.reloader = stack.enter_context(Reloader(running, reread, asked, manager))
        capabilities.shed()
        line = ready(running)
        for note in line.notes:
            log.warning(note)
        print(msgspec.json.encode(line).decode() if json else line, flush=True)
        if manager.watches and not running.parts.attached:  # nothing renews a lease
            stack.callback(Thread("watchdog", lambda: _ping(manager)).close)
        manager.tell("READY=1", f"STATUS={line}")
        try:
            running.run()
        except Stop:
            manager.tell("STOPPING=1", "STATUS=stopping")
            _summarise(running)


def _ping(manager: Manager) -> float:
    manager.alive()
    return RENEWAL


def _summarise(running: Running) -> None:
    last = status(running)
    verdicts = last["verdicts"]
    log.info(
        "stopped",
        seconds=round(last["uptime_seconds"], 1),
        hits=verdicts.get("hit", 0),
        bounces=verdicts.get("bounce", 0),
        replies=last["server"]["replies"] if last["server"] else 0,
    )
    sys.stderr.flush()
