# SPDX-License-Identifier: Apache-2.0
"""`carom serve` and `carom front`: from options to services that run."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from carom.cli_options import App, Programs
from carom.cli_settings import GIVEN, command
from carom.errors import UsageError
from carom.settings import Field, fields, seconds

if TYPE_CHECKING:
    from carom.daemon.service import Service
    from carom.protocols.spec import Filled


app = App()


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}", hint="see docs/operating.md") from error


def _from_file(path: Path, names: Collection[str]) -> tuple[list[str], list[dict[str, Any]]]:
    """A file's interfaces, and each service's options, which may have these names.

    The options that all services share are in each. Raises UsageError.
    """
    from carom.daemon.options import Options

    common = _read(path)
    interfaces = common.pop("interfaces", [])
    services = common.pop("service", [])
    if not isinstance(interfaces, list) or not all(isinstance(name, str) for name in interfaces):
        raise UsageError(f"{path}: interfaces is a list of names", hint='interfaces = ["eth0"]')
    listed = isinstance(services, list) and all(isinstance(table, dict) for table in services)
    if not listed or not services:
        raise UsageError(f"{path} names no service", hint="each has a [[service]] table")
    tables = [{**common, **table} for table in services]
    unknown = sorted(
        {name for table in tables for name in table} - {*names, *Options.__struct_fields__}
    )
    if unknown:
        raise UsageError(
            f"{path}: unknown option {unknown[0]!r}",
            hint=f"a service's are {', '.join(names)}; beside them the file has interfaces",
        )
    return interfaces, tables


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
Json = Annotated[bool, typer.Option("--json", help="Print the ready line as JSON.")]


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
    from carom.daemon.front import STANDING, Wishes
    from carom.daemon.options import Options
    from carom.protocols import filled_by
    from carom.protocols.spec import Filled

    options = fields(Options) | fields(Wishes)
    for name, value in STANDING.items():
        options[name] = options[name].told(default=value)
    ports = (f"{spec.port} for {spec.name}" for spec in filled_by(Filled.LEARNED))
    options["port"] = options["port"].told(standing=", ".join(ports))
    options["protocol"] = _of(Filled.LEARNED)
    options["bind"] = options["bind"].told(standing=":: (all that the server has)")
    return {
        name: (field, field.option.group)
        for name, field in options.items()
        if field.option.only in ("", "front")
    }


def _asked(
    config: str | None, known: Mapping[str, tuple[Field, str]], given: Mapping[str, Any], *own: str
) -> tuple[list[str], list[dict[str, Any]]]:
    """Interfaces and each service's options: those of a file, overridden by those given."""
    interfaces, tables = (
        _from_file(Path(config), [*known, *own]) if config is not None else ([], [{}])
    )
    values = {
        name: known[name][0].read(value) if isinstance(value, str) else value
        for name, value in given.items()
    }
    return interfaces, [{**table, **values} for table in tables]


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
    """Run Python services behind their cache in the kernel, until SIGINT, SIGTERM or SIGHUP."""
    from carom.apps import load
    from carom.daemon.options import with_options, with_units
    from carom.daemon.run import run_services

    interfaces, tables = _asked(config, serve_fields(()), context.meta[GIVEN], "app")
    services: list[Service] = []
    for options in tables:
        name = app_name or str(options.pop("app", "echo"))
        options.pop("app", None)
        service = load(name)
        if service in services:
            raise UsageError(f"{name} serves twice", hint="a service has one port")
        service.options = with_options(service.options, with_units(options))
        services.append(service)
    run_services(services, interface or interfaces, json=json)


@app.command(cls=command(front_fields))
def front(
    context: typer.Context,
    interface: Interfaces = None,
    config: Config = None,
    wait: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Wait so long for the server, its interface and address, if they are not there "
            "yet: 60s.",
        ),
    ] = None,
    programs: Programs = None,
    json: Json = False,
) -> None:
    """Put the cache before servers that are already there, and learn their replies."""
    from carom.daemon.front import front_of
    from carom.daemon.run import run_services

    interfaces, tables = _asked(config, front_fields(()), context.meta[GIVEN])
    services = [front_of(table) for table in tables]
    patience = seconds(wait) if wait else 0
    run_services(services, interface or interfaces, json=json, patience=patience)
