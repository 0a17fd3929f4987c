# SPDX-License-Identifier: Apache-2.0
"""A process that has imported the command line once, and runs commands in forks of itself.

For commands by the dozen whose imports would take longer than they do. Each has its own process,
standard streams and end, as from a shell.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import NamedTuple


class Done(NamedTuple):
    """How a command ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


class Commands:
    """Runs `carom ARGUMENT...`; what it says goes by files in `folder`."""

    def __init__(self, folder: Path):
        self._said = [folder / name for name in ("stdout", "stderr")]
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, *map(str, self._said)],
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *argv: str) -> Done:
        """Run one to its end."""
        asks, answers = self._process.stdin, self._process.stdout
        assert asks and answers
        print(json.dumps(argv), file=asks, flush=True)
        code = int(answers.readline())
        return Done(code, *(path.read_text() for path in self._said))

    def __enter__(self) -> Commands:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()
        assert self._process.returncode == 0


def _become(argv: list[str], said: list[str]) -> None:
    """A fork's part: its own streams, and then what the program `carom` does."""
    from carom.cli import main

    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
    for number, name in enumerate((os.devnull, *said)):
        opened = os.open(name, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = ["carom", *argv]
    try:
        main()
    except SystemExit as end:
        sys.stderr.flush()
        os._exit(int(end.code or 0))  # to take all apart that was imported takes longer
    raise AssertionError("a command ends by SystemExit")


def _import() -> None:
    """What commands import, also while they are parsed: one that does nothing is."""
    import typer

    from carom.cli import app
    from carom.daemon import run  # noqa: F401

    with contextlib.redirect_stdout(io.StringIO()):
        typer.main.get_command(app).main(["lab", "list"], standalone_mode=False)


def _serve(said: list[str]) -> None:
    _import()
    for line in iter(sys.stdin.readline, ""):
        child = os.fork()
        if not child:
            _become(json.loads(line), said)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1:])
