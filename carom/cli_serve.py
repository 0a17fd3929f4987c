# SPDX-License-Identifier: Apache-2.0
"""`carom serve`: options from the command line and a file, to services that run."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from carom.daemon.service import Service
from carom.errors import UsageError


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}", hint="see docs/operating.md") from error


def _from_file(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Interfaces, and each service's options with the file's common ones under them."""
    common = _read(path)
    interfaces = common.pop("interfaces", [])
    services = common.pop("service", [])
    if not isinstance(interfaces, list) or not all(isinstance(one, str) for one in interfaces):
        raise UsageError(f"{path}: interfaces is a list of names", hint='interfaces = ["eth0"]')
    tables = isinstance(services, list) and all(isinstance(one, dict) for one in services)
    if not tables or not services:
        raise UsageError(f"{path} names no service", hint="a [[service]] table has a port, an app")
    return interfaces, [{**common, **one} for one in services]


def serve(
    interface: Annotated[
        list[str] | None,
        typer.Option("--interface", "-i", help="Interface to answer on; may be repeated."),
    ] = None,
    port: Annotated[int | None, typer.Option("--port", "-p", help="UDP port.")] = None,
    app_name: Annotated[
        str | None,
        typer.Option("--app", help="MODULE:SERVICE, or a service of carom.apps (default: echo)."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="TOML file with several services; options here override it."),
    ] = None,
    bind: Annotated[
        str | None,
        typer.Option(help="Address; 0.0.0.0 is all of IPv4 (default), :: all of both."),
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="raw")] = None,
    hook: Annotated[
        str | None, typer.Option(help="xdp (and tc for large replies) | tc | none")
    ] = None,
    mode: Annotated[str | None, typer.Option(help="auto | native | generic")] = None,
    fast: Annotated[str | None, typer.Option(help="cache | bounce | off")] = None,
    policy: Annotated[
        str | None, typer.Option(help="lru | fcfs (first come, first served)")
    ] = None,
    capacity: Annotated[
        int | None, typer.Option(help="Entries of each length class in the kernel's cache.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="Instead of a capacity, what the cache takes: 64M, 1G.")
    ] = None,
    ttl: Annotated[
        str | None, typer.Option(help="How long a reply lives: 500ms, 60s, 10m.")
    ] = None,
    amplify: Annotated[
        int | None, typer.Option(help="Longest reply of the cache, in requests; 0: any.")
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="Prefix whose requests the cache answers; may be repeated."),
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
    """Run Python services behind their cache in the kernel, until SIGINT or SIGTERM."""
    from carom.apps import load
    from carom.daemon.options import with_options, with_units
    from carom.daemon.run import serve as run

    given = {
        "port": port,
        "app": app_name,
        "bind": bind,
        "protocol": protocol,
        "hook": hook,
        "mode": mode,
        "fast": fast,
        "policy": policy,
        "capacity": capacity,
        "memory": memory,
        "ttl": ttl,
        "amplify": amplify,
        "allow": tuple(allow) if allow else None,
        "work": work,
        "userspace_cache": userspace_cache,
        "wait": wait,
        "cpu": cpu,
    }
    given = {name: value for name, value in given.items() if value is not None}
    interfaces, tables = _from_file(config) if config else ([], [{}])
    services: list[Service] = []
    for table in tables:
        options = {**table, **given}
        name = str(options.pop("app", "echo"))
        service = load(name)
        if service in services:
            raise UsageError(f"{name} serves twice", hint="a service has one port")
        service.options = with_options(service.options, with_units(options))
        services.append(service)
    run(services, interface or interfaces, json=json)
