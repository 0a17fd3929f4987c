# SPDX-License-Identifier: Apache-2.0
"""Run services until a signal: check the options, assemble, report, and remove all again."""

from __future__ import annotations

import contextlib
import ipaddress
import sys
import time
from collections.abc import Sequence

import msgspec

from carom import log, protocols
from carom.daemon.assemble import assemble
from carom.daemon.front import Front
from carom.daemon.options import SHARED, Options
from carom.daemon.running import Running
from carom.daemon.service import Service
from carom.daemon.status import ready, status
from carom.errors import CaromError, UsageError
from carom.kernel.abi import SERVICES_MAX
from carom.kernel.signals import Stop, ending, held
from carom.protocols.spec import Filled

WAIT_STEP = 0.25
"""Seconds between two attempts while waiting at the start."""


def _check_service(service: Service) -> None:
    if service.handler is None:
        raise UsageError(
            f"the service on port {service.options.port} has no handler",
            hint="decorate one with @service.reply",
        )
    if protocols.spec(service.options.protocol).learned:
        ours = " or ".join(protocol.name for protocol in protocols.filled_by(Filled.DAEMON))
        raise UsageError(
            f"a Python service does not speak {service.options.protocol}",
            hint=f"it speaks {ours}; `carom front` goes before a server that does",
        )


def _check(services: Sequence[Service | Front], interfaces: Sequence[str]) -> None:
    """Check what spans several services' options. Raises UsageError."""
    first = services[0].options
    if len(services) > SERVICES_MAX:
        raise UsageError(f"{len(services)} services are too many", hint=f"up to {SERVICES_MAX}")
    for service in services:
        if isinstance(service, Service):
            _check_service(service)
        for name in SHARED:
            mine, theirs = getattr(first, name), getattr(service.options, name)
            if mine != theirs:
                raise UsageError(
                    f"services that run together share {name}: {mine!r} is not {theirs!r}",
                    hint="give it to all of them, or run them apart",
                )
    _check_apart([service.options for service in services if isinstance(service, Front)])
    fast = first.hook != "none" and any(service.options.fast != "off" for service in services)
    if fast and not interfaces:
        ours = all(isinstance(service, Service) for service in services)
        raise UsageError(
            "no interface to answer on",
            hint="name one with -i" + (", or say --hook none" if ours else ""),
        )
    if first.filter_place() in ("xdp", "tc") and not interfaces:
        raise UsageError(
            "no interface to filter on", hint="name one with -i, or say --filter-at socket"
        )


def _check_apart(fronts: Sequence[Options]) -> None:
    """Raises UsageError for two fronts at one address and port; own sockets fail by themselves."""
    for number, front in enumerate(fronts):
        for other in fronts[:number]:
            alike = front.bind == other.bind or any(
                ipaddress.ip_address(either.bind).is_unspecified for either in (front, other)
            )
            if front.port == other.port and alike:
                raise UsageError(
                    f"two services are to answer on port {front.port} at one address",
                    hint="give each an address of its own to bind, or leave one out",
                )


def _start(
    stack: contextlib.ExitStack,
    services: Sequence[Service | Front],
    interfaces: Sequence[str],
    patience: float,
) -> Running:
    """Start, to be closed with the stack; try for `patience` seconds while something is missing."""
    end, last = time.monotonic() + patience, ""
    while True:
        try:
            with held():
                running = contextlib.closing(assemble(services, interfaces))
                return stack.enter_context(running)
        except CaromError as error:
            if not error.passing or time.monotonic() >= end:
                raise
            if str(error) != last:
                log.info("waiting", why=str(error))
            last = str(error)
        time.sleep(WAIT_STEP)


def run_services(
    services: Sequence[Service | Front],
    interfaces: Sequence[str],
    *,
    json: bool = False,
    patience: float = 0,
) -> None:
    """Run services until SIGINT or SIGTERM; print one `ready` line once packets are answered.

    It waits for `patience` seconds for a server, an interface or an address that is not there yet.
    """
    _check(services, interfaces)
    with contextlib.suppress(Stop), ending(), contextlib.ExitStack() as stack:
        running = _start(stack, services, interfaces, patience)
        line = ready(running)
        for note in line.notes:
            log.warning(note)
        print(msgspec.json.encode(line).decode() if json else line, flush=True)
        try:
            running.run()
        except Stop:
            _summarise(running)


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
