# SPDX-License-Identifier: Apache-2.0
"""A check: one trap that it looks for, what it finds, and how that is mended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from carom.errors import CaromError

Severity = Literal["useless", "slow", "note"]
"""What a trap does to the fast path: it does not answer, it costs time, or neither."""

Group = Literal["interface", "service", "carom", "kernel", "machine"]
"""What a check looks at: each interface, each service, the running carom, or the host once."""


class NotKnown(Exception):
    """Raised by a check that cannot look: why."""


class Fix(NamedTuple):
    """A change that is safe while all goes on: the command for it, and for taking it back.

    `apply` makes it, and raises OSError.
    """

    command: str
    undo: str
    apply: Callable[[], None]


class Found(NamedTuple):
    """What a check has found: what it is, and what to do. `severity` is its check's if None."""

    what: str
    remedy: str = ""
    fix: Fix | None = None
    severity: Severity | None = None

    @classmethod
    def said(cls, words: str) -> Found:
        """From words that have the remedy behind their first colon."""
        what, _, remedy = words.partition(": ")
        return cls(what, remedy)


class Check(NamedTuple):
    """A check. `means` and `remedy` say in general what each finding says of the case.

    `looks` takes a Look, and what the group says; it raises NotKnown. `at_start` is True if a
    service says at its start what it finds: it is cheap, and nothing else says it.
    """

    name: str
    group: Group
    severity: Severity
    means: str
    remedy: str
    looks: Callable[..., Iterator[Found]]
    at_start: bool


CHECKS: dict[str, Check] = {}
"""All checks by name, once their files are imported (examine.py, which puts them in order)."""


def check(
    name: str,
    group: Group,
    severity: Severity,
    *,
    means: str,
    remedy: str,
    at_start: bool = False,
) -> Callable[[Callable[..., Iterator[Found]]], Callable[..., Iterator[Found]]]:
    """Make a check of a function."""

    def put(looks: Callable[..., Iterator[Found]]) -> Callable[..., Iterator[Found]]:
        assert name not in CHECKS
        CHECKS[name] = Check(name, group, severity, means, remedy, looks, at_start)
        return looks

    return put


def setting(path: Path, now: str, wanted: str, command: str) -> Fix:
    """The fix that writes a value into a file of the kernel's; `command` has the value's place."""
    return Fix(command.format(wanted), command.format(now), lambda: _write(path, wanted))


def _write(path: Path, value: str) -> None:
    path.write_text(value)


def read(path: Path) -> str:
    """A file's text. Raises NotKnown."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError as error:
        raise NotKnown(f"{path} cannot be read: {error.strerror}") from error


def looked(check: Check, look: object, subject: tuple[Any, ...]) -> tuple[list[Found], str]:
    """What a check finds, and why it cannot know; "" if it can."""
    found: list[Found] = []
    try:
        found += check.looks(look, *subject)
    except NotKnown as why:
        return found, str(why)
    except CaromError as error:
        return found, f"{error}: {error.hint}" if error.hint else str(error)
    except (OSError, ValueError, KeyError) as error:
        return found, str(error) or type(error).__name__
    return found, ""
