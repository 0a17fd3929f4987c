# SPDX-License-Identifier: Apache-2.0
"""The log: a line for each message on standard error, with facts as `name=value`.

    14:05:09 [warning  ] requests cannot be answered    port=53 why='no route'

It imports next to nothing: carom logs where it starts, where it ends, and where it is out of
descriptors or memory.
"""

from __future__ import annotations

import os
import sys
import time

_EVENT_WIDTH = 30
_QUOTED = frozenset(" \t\r\n=\"'")
"""A text with one of these is shown in quotes; so is one that would command a terminal."""

_RESET, _BOLD, _DIM = "\x1b[0m", "\x1b[1m", "\x1b[2m"
_NAME, _VALUE = "\x1b[36m", "\x1b[35m"
_LEVELS = {"info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m"}


def info(event: str, **facts: object) -> None:
    """Log what a user may want to know."""
    _write("info", event, facts)


def warning(event: str, *, failure: BaseException | None = None, **facts: object) -> None:
    """Log what a user may have to act on; a `failure` is shown with its traceback."""
    _write("warning", event, facts, failure)


def error(event: str, *, failure: BaseException | None = None, **facts: object) -> None:
    """Log what went wrong; a `failure` is shown with its traceback."""
    _write("error", event, facts, failure)


def _write(
    level: str, event: str, facts: dict[str, object], failure: BaseException | None = None
) -> None:
    colours = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    text = line(level, event, facts, time.strftime("%H:%M:%S"), colours=colours) + "\n"
    if failure:
        import traceback

        text += "".join(traceback.format_exception(failure))
    sys.stderr.write(text)  # in one piece: threads log, too
    sys.stderr.flush()


def line(level: str, event: str, facts: dict[str, object], clock: str, *, colours: bool) -> str:
    """A message as it is shown, without the end of its line; facts are in order of their names."""

    def paint(text: str, *styles: str) -> str:
        return f"{''.join(styles)}{text}{_RESET}" if colours else text

    shown = [
        paint(clock, _DIM),
        f"[{paint(f'{level:9}', _LEVELS[level], _BOLD)}]",
        paint(f"{event:{_EVENT_WIDTH}}", _BOLD),
        *(f"{paint(name, _NAME)}={paint(_shown(facts[name]), _VALUE)}" for name in sorted(facts)),
    ]
    return " ".join(shown).rstrip()


def _shown(value: object) -> str:
    plain = isinstance(value, str) and value.isprintable() and not _QUOTED & set(value)
    return str(value) if plain else repr(value)
