# SPDX-License-Identifier: Apache-2.0
"""`carom serve`, `carom front` and `carom run`: from options to services that run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from carom.cli_options import App, Programs
from carom.cli_settings import GIVEN, command
from carom.settings import Field, fields, seconds

if TYPE_CHECKING:
    from carom.configuration import Configuration, Kind
    from carom.protocols.spec import Filled


app = App()


Interfaces = Annotated[
    list[str] | None,
    typer.Option(
        "--interface", "-i", metavar="NAME", help="Interface to answer on; may be repeated."
    ),
]
Config = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="TOML file with several services; options here override it.",
    ),
]
File = Annotated[
    str | None, typer.Argument(metavar="FILE", help="[default: /etc/carom/carom.toml]")
]
Patience = Annotated[
    str | None,
    typer.Option(
        "--wait",
        metavar="TIME",
        help="Wait so long for the server, its interface and address, if they are not there "
        "yet: 60s, or forever.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the ready line as JSON.")]


def _patience(wait: str | None) -> float:
    """The seconds that `--wait` says. Raises UsageError."""
    if wait is None:
        return 0.0
    return math.inf if wait == "forever" else seconds(wait)


def _of(who: Filled) -> Field:
    """The option that chooses a protocol, of those that are served, or fronted."""
    from carom.daemon.options import Options
    from carom.protocols import default, filled_by

    names = "|".join(spec.name for spec in filled_by(who))
    return fields(Options)["protocol"].told(metavar=names, default=default(who).name)


def serve_fields(_: Sequence[str]) -> dict[str, tuple[Field, str]]:
    """The options of `carom serve`."""
    from carom.daemon.options import Options
    from carom.protocols.spec import Filled

    options = {**fields(Options), "protocol": _of(Filled.DAEMON)}
    return {
        name: (field, field.option.group)
        for name, field in options.items()
        if field.option.only in ("", "serve")
    }


def front_fields(_: Sequence[str]) -> dict[str, tuple[Field, str]]:
    """The options of `carom front`."""
    from carom.daemon.front import STANDING, Wishes, check_learned
    from carom.daemon.options import Options
    from carom.protocols import filled_by
    from carom.protocols.spec import Filled

    options = fields(Options) | fields(Wishes)
    for name, value in STANDING.items():
        options[name] = options[name].told(default=value)
    ports = (f"{spec.port} for {spec.name}" for spec in filled_by(Filled.LEARNED))
    options["port"] = options["port"].told(standing=", ".join(ports))
    options["protocol"] = _of(Filled.LEARNED).told(valid=check_learned)
    options["bind"] = options["bind"].told(standing=":: (all that the server has)")
    return {
        name: (field, field.option.group)
        for name, field in options.items()
        if field.option.only in ("", "front")
    }


def run_fields(_: Sequence[str]) -> dict[str, tuple[Field, str]]:
    """The options of `carom run`: those of both kinds of services that make sense for all.

    On the command line, as with `front`, `wait` is for what is not there yet.
    """
    served, fronted = serve_fields(()), front_fields(())
    both = served | fronted
    for name in served.keys() & fronted.keys():
        one, other = served[name][0], fronted[name][0]
        if one.default != other.default:
            told = f"{one.default}, fronted: {other.option.standing or other.default}"
            both[name] = one.told(standing=told), both[name][1]
    return {name: both[name] for name in both if name not in ("wait", "port", "protocol")}


def known() -> dict[Kind, dict[str, Field]]:
    """The options of each kind of service."""
    return {
        "serve": {name: field for name, (field, _) in serve_fields(()).items()},
        "front": {name: field for name, (field, _) in front_fields(()).items()},
    }


def given(context: typer.Context) -> dict[str, Any]:
    """The values of the command line's options. Raises UsageError."""
    fields = {name: field for all in known().values() for name, field in all.items()}
    return {
        name: fields[name].read(value) if isinstance(value, str) else value
        for name, value in context.meta[GIVEN].items()
    }


def _run(configuration: Configuration, *, json: bool, patience: float = 0) -> None:
    from carom.daemon.run import run_services
    from carom.kernel import capabilities

    capabilities.gain_no_more()
    plan = configuration.read()
    # Python services first: the options that they alone share are the first service's.
    plan.services.sort(key=lambda planned: planned.kind == "front")
    services = [planned.made() for planned in plan.services]
    reread = None
    if plan.file:
        from carom.reread import Reread

        reread = Reread(configuration, plan)
    run_services(services, plan.interfaces, json=json, patience=patience, reread=reread, least=True)


@app.command(cls=command(serve_fields))
def serve(
    context: typer.Context,
    interface: Interfaces = None,
    app_name: Annotated[
        str | None,
        typer.Option(
            "--app", metavar="MODULE:SERVICE", help="Or a service of carom.apps. [default: echo]"
        ),
    ] = None,
    config: Config = None,
    programs: Programs = None,
    json: Json = False,
) -> None:
    """Run Python services behind their cache in the kernel, until SIGINT, SIGTERM or SIGHUP.

    With --config SIGHUP has the file read again.
    """
    from carom.configuration import Configuration

    configuration = Configuration(
        known(),
        Path(config) if config is not None else None,
        kind="serve",
        given=given(context),
        app=app_name,
        interfaces=interface or (),
    )
    _run(configuration, json=json)


@app.command(cls=command(front_fields))
def front(
    context: typer.Context,
    interface: Interfaces = None,
    config: Config = None,
    wait: Patience = None,
    programs: Programs = None,
    json: Json = False,
) -> None:
    """Put the cache before servers that are already there, and learn their replies.

    With --config SIGHUP has the file read again.
    """
    from carom.configuration import Configuration

    configuration = Configuration(
        known(),
        Path(config) if config is not None else None,
        kind="front",
        given=given(context),
        interfaces=interface or (),
    )
    _run(configuration, json=json, patience=_patience(wait))


@app.command(cls=command(run_fields))
def run(
    context: typer.Context,
    file: File = None,
    interface: Interfaces = None,
    wait: Patience = None,
    programs: Programs = None,
    json: Json = False,
) -> None:
    """Run what a file says: Python services (those with an `app`), and servers that are fronted.

    SIGHUP has it read again.
    """
    _run(of_file(context, file, interface), json=json, patience=_patience(wait))


def of_file(
    context: typer.Context, file: str | None, interface: Sequence[str] | None
) -> Configuration:
    """A file's configuration: the standard one, if none is named."""
    from carom.configuration import STANDARD, Configuration

    return Configuration(
        known(), Path(file or STANDARD), given=given(context), interfaces=interface or ()
    )
