# SPDX-License-Identifier: Apache-2.0
"""Runs the checks, and mends what can be mended."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import ModuleType
from typing import Any, Literal

import msgspec

from carom.daemon.doctor import caroms, interfaces, kernel, machine, services
from carom.daemon.doctor.check import CHECKS as MADE
from carom.daemon.doctor.check import Check, Fix, Found, Group, Severity, looked
from carom.daemon.doctor.look import Look
from carom.errors import UsageError

FILES: Mapping[Group, ModuleType] = {
    "interface": interfaces,
    "service": services,
    "carom": caroms,
    "kernel": kernel,
    "machine": machine,
}
"""The files that have each group's checks."""

GROUPS = tuple(FILES)
CHECKS = {check.name: check for group in GROUPS for check in MADE.values() if check.group == group}
"""All checks by name, in the order in which they are made."""


class Change(msgspec.Struct, kw_only=True):
    """What would mend a trap, and was done if it is `made`; `why` says why it could not be."""

    command: str
    undo: str
    made: bool = False
    why: str = ""


class Result(msgspec.Struct, kw_only=True):
    """What one check says of one thing: that it is fine, what it found, or that it cannot know.

    `at` is the interface, or the service's port; "" for the host, and for a carom.
    """

    name: str
    group: Group
    state: Literal["fine", "found", "not known"]
    severity: Severity
    at: str = ""
    what: str = ""
    remedy: str = ""
    change: Change | None = None

    @property
    def wrong(self) -> bool:
        """Whether it makes the fast path useless or slow, and was not mended."""
        mended = self.change is not None and self.change.made
        return self.state == "found" and self.severity != "note" and not mended


class Report(msgspec.Struct, kw_only=True):
    """What all checks say; `pid` is that of the running carom that was looked at, if one was."""

    interfaces: list[str]
    pid: int | None
    wrong: int
    results: list[Result]


def check_names(names: Collection[str]) -> None:
    """Raises UsageError for what is neither a check's name nor a group's."""
    for name in names:
        if name not in CHECKS and name not in GROUPS:
            raise UsageError(
                f"there is no check {name!r}",
                hint=f"groups: {', '.join(GROUPS)}; checks: {', '.join(CHECKS)}",
            )


def examine(look: Look, skip: Collection[str] = (), *, mend: bool = False) -> Report:
    """Make all checks, but those whose name or group is to be skipped.

    With `mend` what can be mended is: each change is made, and its check made again.
    """
    results = [
        result
        for check in CHECKS.values()
        if not {check.name, check.group} & set(skip)
        for at, subject in _subjects(look, check.group)
        for result in _results(check, look, at, subject, mend=mend)
    ]
    return Report(
        interfaces=[interface.name for interface in look.interfaces],
        pid=look.pid,
        wrong=sum(result.wrong for result in results),
        results=results,
    )


def _subjects(look: Look, group: Group) -> Sequence[tuple[str, tuple[Any, ...]]]:
    """What the checks of a group look at, each with a name."""
    if group == "interface":
        return [(interface.name, (interface,)) for interface in look.interfaces]
    if group == "service":
        return [(f"port {asked.options.port}", (asked,)) for asked in look.services]
    if group == "carom":
        return [("", (look.running,))] if look.running else []
    return [("", ())]


def _results(
    check: Check, look: Look, at: str, subject: tuple[Any, ...], *, mend: bool
) -> list[Result]:
    found, unknown = looked(check, look, subject)
    results = [_found(check, at, one) for one in found]
    if mend and any(one.fix for one in found):
        for result, one in zip(results, found, strict=True):
            if one.fix and result.change:
                _make(result.change, one.fix)
        left = {one.what for one in looked(check, look, subject)[0]}
        for result in results:
            if result.change and result.change.made and result.what in left:
                result.change.made, result.change.why = False, "it was done, and changed nothing"
    if unknown:
        results.append(_result(check, at, state="not known", what=unknown))
    return results or [_result(check, at, state="fine")]


def _result(check: Check, at: str, **facts: Any) -> Result:
    return Result(
        **{"name": check.name, "group": check.group, "severity": check.severity} | facts, at=at
    )


def _found(check: Check, at: str, found: Found) -> Result:
    fix = found.fix
    return _result(
        check,
        at,
        state="found",
        severity=found.severity or check.severity,
        what=found.what,
        remedy=found.remedy or check.remedy,
        change=Change(command=fix.command, undo=fix.undo) if fix else None,
    )


def _make(change: Change, fix: Fix) -> None:
    try:
        fix.apply()
        change.made = True
    except OSError as error:
        change.why = error.strerror or str(error)
