# SPDX-License-Identifier: Apache-2.0
"""What `carom doctor` says in a namespace."""

from __future__ import annotations

from typing import Any

import msgspec

from carom.daemon.doctor.examine import Report, Result
from carom.vm.namespace import Namespace
from netns.process import run

OURS_ALONE = ("--skip", "machine", "--skip", "kernel")
"""Leaves out what a test's machine is like."""


def doctor(namespace: Namespace, *arguments: str, **options: Any) -> tuple[int, Report]:
    """Its exit code, and what it says in JSON, which has to be just that."""
    ended = run(namespace, "doctor", *arguments, "--json", **options)
    assert "Traceback" not in ended.stderr, ended
    (text,) = ended.stdout.splitlines()
    return ended.code, msgspec.json.decode(text, type=Report, strict=True)


def found(report: Report) -> list[Result]:
    return [result for result in report.results if result.state == "found"]


def names(report: Report) -> list[str]:
    """What was found, by name."""
    return [result.name for result in found(report)]


def healthy(namespace: Namespace, *arguments: str) -> None:
    """Nothing is found, and nothing wrong."""
    code, report = doctor(namespace, *OURS_ALONE, *arguments)
    assert not found(report), found(report)
    assert (code, report.wrong) == (0, 0)
