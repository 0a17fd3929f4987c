# SPDX-License-Identifier: Apache-2.0
"""The command line: parse, call, print."""

from __future__ import annotations

import errno
import gc
import importlib
import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
from typer.main import get_group

from carom import __version__, streams
from carom.cli_options import App, Group
from carom.errors import CaromError

MODULES = {
    "serve": "cli_serve",
    "front": "cli_serve",
    "run": "cli_serve",
    "config": "cli_config",
    "status": "cli_cache",
    "reload": "cli_config",
    "unpin": "cli_unpin",
    "top": "cli_top",
    "why": "cli_why",
    "trace": "cli_trace",
    "replay": "cli_replay",
    "doctor": "cli_doctor",
    "metrics": "cli_metrics",
    "ping": "cli_ping",
    "load": "cli_load",
    "client": "cli_client",
    "cache": "cli_cache",
    "filter": "cli_filter",
    "route": "cli_route",
    "lab": "cli_lab",
    "vm": "cli_vm",
    "build": "cli_build",
    "programs": "cli_build",
    "pack": "cli_oci",
    "push": "cli_oci",
    "pull": "cli_oci",
}
"""The commands, in the order in which help shows them, and the modules whose `app` has them."""


class _Commands(Mapping[str, Any]):
    """The commands by name. A module is imported when one of its commands is looked up."""

    def __getitem__(self, name: str) -> Any:
        module = importlib.import_module(f"carom.{MODULES[name]}")
        return get_group(module.app).commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(MODULES)

    def __len__(self) -> int:
        return len(MODULES)


class _Carom(Group):
    def __init__(self, **options: Any):
        super().__init__(**options)
        self.commands = _Commands()  # type: ignore[assignment]

    def list_commands(self, ctx: Any) -> list[str]:
        return list(MODULES)


app = App(
    cls=_Carom,
    help="Answer UDP requests in the kernel, from a cache that fronts a userspace server.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_verbose = False


def _version(wanted: bool) -> None:
    if wanted:
        print(f"carom {__version__}")
        raise typer.Exit


@app.callback()
def options(
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Log more, and show clang's and verifier's logs."),
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of all commands."""
    global _verbose
    _verbose = verbose


_NO_THREAD = "can't start new thread"
"""Python's message when the kernel gave no thread, or no memory for its stack."""


def main() -> None:
    """Run the command line. An error that a user can act on becomes a message and an exit code."""
    gc.freeze()  # what was imported stays
    output = streams.prepare()
    refused: Exception | None = None
    code: int | str | None = 1
    try:
        app()
    except SystemExit as exit:  # click's own end
        code = exit.code
    except CaromError as error:
        _say(error)
        code = error.exit_code
    except Exception as error:
        if not _is_refusal(error):
            raise
        refused = error
    unwritten = output.finish()
    if unwritten:
        code = 1
        if unwritten.errno != errno.EPIPE:  # `carom ... | head` needs no words
            _say(CaromError(f"cannot write to standard output: {unwritten.strerror}"))
    elif refused:
        _say(_explained(refused))
    gc.freeze()  # to look for cycles in all of it would take a sixth of a short command's time
    sys.exit(code)


def _is_refusal(error: Exception) -> bool:
    """Was it the system that refused something? Its netlink errors are there only once they are
    imported, and that takes longer than most commands."""
    if isinstance(error, RuntimeError):
        return str(error) == _NO_THREAD
    netlink = sys.modules.get("pyroute2.netlink.exceptions")
    return isinstance(error, OSError | MemoryError) or (
        netlink is not None and isinstance(error, netlink.NetlinkError)
    )


def _explained(error: Exception) -> CaromError:
    """An error for what the system refused, where no other code has a better message."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        hint = "raise `ulimit -n`, or LimitNOFILE= of its unit"
    elif isinstance(error, RuntimeError | MemoryError):
        hint = "raise what limits tasks (`ulimit -u`, TasksMax=, pids.max) or memory (`ulimit -vd`)"
    else:
        hint = "-v shows where"
    where = "".join(traceback.format_exception(error))
    return CaromError(f"the system refused: {_said_by(error)}", hint=hint, details=where)


def _said_by(error: Exception) -> str:
    """The system's own words, with the file that they are about."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error) or "no memory"
    return f"{error.strerror}: {error.filename}" if error.filename else error.strerror


def _say(error: CaromError) -> None:
    print(f"carom: {error}", file=sys.stderr)
    if error.hint:
        print(f"  hint: {error.hint}", file=sys.stderr)
    if error.details and _verbose:
        print(error.details, file=sys.stderr)
