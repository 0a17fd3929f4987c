# SPDX-License-Identifier: Apache-2.0
"""The log's lines, letter by letter."""

from __future__ import annotations

import re

import pytest

from carom import log

CLOCK = "14:05:09"
PORTS: dict[str, object] = {"port": 53, "ip": [4, 6], "do": "start it", "by": "eth0"}


@pytest.mark.parametrize(
    ("level", "event", "facts", "shown"),
    [
        ("info", "stopped", {}, "14:05:09 [info     ] stopped"),
        (
            "warning",
            "is not answered",
            PORTS,
            "14:05:09 [warning  ] is not answered                "
            "by=eth0 do='start it' ip=[4, 6] port=53",
        ),
        (
            "error",
            "an event of more than thirty letters",
            {"none": None, "empty": "", "line": "a\nb", "equals": "a=b", "quote": "it's"},
            "14:05:09 [error    ] an event of more than thirty letters "
            "empty= equals='a=b' line='a\\nb' none=None quote=\"it's\"",
        ),
    ],
)
def test_a_line(level: str, event: str, facts: dict[str, object], shown: str) -> None:
    assert log.line(level, event, facts, CLOCK, colours=False) == shown


def test_a_line_in_colours() -> None:
    shown = log.line("warning", "stopped", PORTS, CLOCK, colours=True)
    plain = log.line("warning", "stopped", PORTS, CLOCK, colours=False)
    assert re.sub(r"\x1b\[\d+m", "", shown) == plain
    assert "\x1b[33m\x1b[1mwarning  \x1b[0m" in shown


def test_a_failure_has_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError("no such thing")
    except ValueError as error:
        log.error("failed", failure=error, port=53)
    out, err = capsys.readouterr()
    first, *rest = err.splitlines()
    assert not out
    assert re.fullmatch(r"\d\d:\d\d:\d\d \[error    \] failed {25}port=53", first)
    assert (rest[0], rest[-1]) == (
        "Traceback (most recent call last):",
        "ValueError: no such thing",
    )


def test_nothing_is_painted_for_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    log.info("stopped", hits=3)
    assert "\x1b" not in capsys.readouterr().err
