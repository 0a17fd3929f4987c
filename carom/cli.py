# SPDX-License-Identifier: Apache-2.0
"""The command line: parse, call, print."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated, Any

import structlog
import typer

from carom import __version__
from carom.cli_cache import cache_app, status
from carom.cli_lab import lab_app, ping
from carom.errors import CaromError

app = typer.Typer(
    help="Answer UDP requests in the kernel, from a cache that fronts a userspace server.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cache_app, name="cache")
app.add_typer(lab_app, name="lab")
app.command()(status)
app.command()(ping)

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
    """What every command takes."""
    global _verbose
    _verbose = verbose
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty() and "NO_COLOR" not in os.environ,
                exception_formatter=structlog.dev.plain_traceback,  # no locals: they hold requests
            ),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.DEBUG if verbose else logging.INFO
        ),
    )


@app.command()
def serve(
    interface: Annotated[
        str | None, typer.Option("--interface", "-i", help="Interface to answer on.")
    ] = None,
    port: Annotated[int | None, typer.Option("--port", "-p", help="UDP port.")] = None,
    app_name: Annotated[
        str, typer.Option("--app", help="MODULE:SERVICE, or a service of carom.apps.")
    ] = "echo",
    bind: Annotated[str | None, typer.Option(help="IPv4 address; default: all.")] = None,
    protocol: Annotated[str | None, typer.Option(help="raw")] = None,
    hook: Annotated[str | None, typer.Option(help="xdp | none")] = None,
    mode: Annotated[str | None, typer.Option(help="auto | native | generic")] = None,
    fast: Annotated[str | None, typer.Option(help="cache | bounce | off")] = None,
    policy: Annotated[
        str | None, typer.Option(help="lru | fcfs (first come, first served)")
    ] = None,
    capacity: Annotated[int | None, typer.Option(help="Entries in the kernel's cache.")] = None,
    ttl: Annotated[
        str | None, typer.Option(help="How long a reply lives: 500ms, 60s, 10m.")
    ] = None,
    work: Annotated[
        str | None, typer.Option(help="CPU time that every miss costs, for experiments: 2ms.")
    ] = None,
    userspace_cache: Annotated[
        int | None, typer.Option(help="Entries of a cache in the server, for comparison.")
    ] = None,
    wait: Annotated[
        str | None, typer.Option(help="block | spin (burns a CPU, answers sooner)")
    ] = None,
    cpu: Annotated[int | None, typer.Option(help="Run on this CPU only.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the ready line as JSON.")] = False,
) -> None:
    """Run a Python service behind its cache in the kernel, until SIGINT or SIGTERM."""
    from carom.apps import load
    from carom.daemon.options import Options, options_of, seconds
    from carom.daemon.run import serve as run

    service = load(app_name)
    given: dict[str, Any] = {
        "port": port,
        "bind": bind,
        "protocol": protocol,
        "hook": hook,
        "mode": mode,
        "fast": fast,
        "policy": policy,
        "capacity": capacity,
        "ttl": seconds(ttl) if ttl is not None else None,
        "work": seconds(work) if work is not None else None,
        "userspace_cache": userspace_cache,
        "wait": wait,
        "cpu": cpu,
    }
    own = {name: getattr(service.options, name) for name in Options.__struct_fields__}
    given = {name: value for name, value in given.items() if value is not None}
    run(service, options_of({**own, **given}), interface, json=json)


def main() -> None:
    """Run the command line; every CaromError becomes one message and an exit code."""
    try:
        app()
    except CaromError as error:
        print(f"carom: {error}", file=sys.stderr)
        if error.hint:
            print(f"  hint: {error.hint}", file=sys.stderr)
        if error.details and _verbose:
            print(error.details, file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stdout = None
        sys.exit(1)
