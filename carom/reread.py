# SPDX-License-Identifier: Apache-2.0
"""What a running carom's configuration says now: what may change, and what needs a restart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from carom.configuration import Configuration, Kind, Origin, Plan, Planned, Problem, refusal
from carom.daemon.options import LIVE
from carom.daemon.reload import Change
from carom.errors import UsageError


class Reread:
    """Has a running carom's configuration read again: what may change, and what may not."""

    def __init__(self, configuration: Configuration, plan: Plan):
        """`plan` is in force, with its services in the order in which they run."""
        self._from = configuration
        self._plan = plan

    def __call__(self) -> Change:
        """The services' options as they are to be.

        Raises ConfigurationError for a file that is wrong, or that asks for what needs a restart.
        """
        plan = self._from.read()
        assert plan.file
        problems = list[Problem]()
        if plan.interfaces != self._plan.interfaces:
            problems.append(_restart(plan.interfaces_from, self._plan.interfaces, plan.interfaces))
        pairs = list(_pairs(self._plan.services, plan.services))
        said = list[str]()
        for before, after in pairs:
            if not before or not after:
                problems.append(_come_or_gone(before, after))
                continue
            for name, origin, old, new in _differences(before, after):
                if name not in LIVE:
                    problems.append(_restart(origin, old, new))
                said.append(f"{origin.name}: {old!r} -> {new!r}")
        if problems:
            raise refusal(problems, plan.file)
        services = [after for _, after in pairs if after]

        def accepted() -> None:
            self._plan = plan._replace(services=services)

        return Change([planned.options for planned in services], said, accepted)


_RESTART = "nothing has changed: start carom again for this, or take it back"


def _restart(origin: Origin, before: Any, after: Any) -> Problem:
    said = f"needs a restart: {after!r}, and {before!r} is in force"
    return Problem(origin, UsageError(said, hint=_RESTART))


def _come_or_gone(before: Planned | None, after: Planned | None) -> Problem:
    if after:
        said = f"needs a restart: a service on port {after.options.port} has come"
        return Problem(after.at, UsageError(said, hint=_RESTART))
    assert before
    said = f"needs a restart: the service on port {before.options.port} has gone"
    return Problem(Origin("file"), UsageError(said, hint=_RESTART))


def _pairs(
    running: Sequence[Planned], wanted: Sequence[Planned]
) -> Iterator[tuple[Planned | None, Planned | None]]:
    """Each service that runs with what it is to be, in the order of those that run.

    It is known by where it is bound, or else by its place among the others.
    """

    def known(planned: Planned) -> tuple[Kind, str, int]:
        return planned.kind, planned.options.bind, planned.options.port

    by_place = {known(planned): planned for planned in wanted}
    there = {known(planned) for planned in running}
    others = [planned for planned in wanted if known(planned) not in there]
    for planned in running:
        same = by_place.get(known(planned))
        yield planned, same or (others.pop(0) if others else None)
    for planned in others:
        yield None, planned


def _differences(before: Planned, after: Planned) -> Iterator[tuple[str, Origin, Any, Any]]:
    old, new = before.values(), after.values()
    if before.kind != after.kind or before.app != after.app:
        yield "app", after.at._replace(name=f"{after.at.name}.app"), before.app, after.app
        return
    for name, value in new.items():
        if value != old[name]:
            yield name, after.origins[name], old[name], value
