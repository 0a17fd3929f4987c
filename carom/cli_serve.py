# SPDX-License-Identifier: Apache-2.0
"""`carom serve` and `carom front`: from options to services that run."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from carom.daemon.service import Service
from carom.errors import UsageError
from carom.protocols import SPECS, default, filled_by, words
from carom.protocols.spec import Filled


def _of(who: Filled) -> str:
    """The protocols that are served, or fronted, and which of them is the default."""
    return words(filled_by(who)).replace(default(who).name, f"{default(who).name} (default)", 1)


_WITH_COOKIES = words(one for one in SPECS.values() if one.cookies)
_WITH_FILTERS = words(one for one in SPECS.values() if one.filtered)
_WITH_ENDS = words(one for one in SPECS.values() if one.ending)
_WITH_TRUNCATION = words(one for one in SPECS.values() if one.truncates)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}", hint="see docs/operating.md") from error


def _from_file(path: Path, names: Collection[str]) -> tuple[list[str], list[dict[str, Any]]]:
    """Interfaces, and each service's options, of these names, with the file's common ones."""
    from carom.daemon.options import Options

    common = _read(path)
    interfaces = common.pop("interfaces", [])
    services = common.pop("service", [])
    if not isinstance(interfaces, list) or not all(isinstance(one, str) for one in interfaces):
        raise UsageError(f"{path}: interfaces is a list of names", hint='interfaces = ["eth0"]')
    listed = isinstance(services, list) and all(isinstance(one, dict) for one in services)
    if not listed or not services:
        raise UsageError(f"{path} names no service", hint="each has a [[service]] table")
    tables = [{**common, **one} for one in services]
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
    typer.Option("--interface", "-i", help="Interface to answer on; may be repeated."),
]
Port = Annotated[int | None, typer.Option("--port", "-p", help="UDP port.")]
Bind = Annotated[
    str | None,
    typer.Option(help="Address; 0.0.0.0 is all of IPv4 (default), :: all of both."),
]
HookName = Annotated[str | None, typer.Option(help="xdp (and tc for large replies) | tc | none")]
ModeName = Annotated[str | None, typer.Option(help="auto | native | generic")]
PolicyName = Annotated[str | None, typer.Option(help="lru | fcfs (first come, first served)")]
Admit = Annotated[
    str | None,
    typer.Option(help="What a full cache takes: always | second (keys missed before; lru's own)"),
]
Capacity = Annotated[
    int | None, typer.Option(help="Entries of each length class in the kernel's cache.")
]
Memory = Annotated[
    str | None, typer.Option(help="Instead of a capacity, what the cache takes: 64M, 1G.")
]
TTL = Annotated[str | None, typer.Option(help="How long a reply lives: 500ms, 60s, 10m.")]
Amplify = Annotated[
    int | None, typer.Option(help="Longest reply of the cache, in requests; 0: any.")
]
Allow = Annotated[
    list[str] | None,
    typer.Option(help="Prefix whose requests the cache answers; may be repeated."),
]
PrefixRate = Annotated[
    str | None,
    typer.Option(help="Bytes of replies a second to one /24 or IPv6 /64 (4M). 0: any."),
]
TotalRate = Annotated[str | None, typer.Option(help="The same to all sources (16M). 0: any.")]
MaxReply = Annotated[
    int | None,
    typer.Option(
        help="Longest reply of the cache in bytes; those over 1232 only where the route's MTU is "
        "known to take them (an interface that forwards)."
    ),
]
BypassFirewall = Annotated[
    bool,
    typer.Option(
        "--bypass-firewall",
        help="Start also where the firewall drops by default what the cache would answer.",
    ),
]
CookieSecretFile = Annotated[
    str | None,
    typer.Option(
        help=f"{_WITH_COOKIES}: file with the secret of the "
        "server's cookies, 32 hexadecimal digits a line: with it, queries that have a cookie are "
        "answered too."
    ),
]
FilterName = Annotated[
    str | None,
    typer.Option(
        "--filter",
        help=f"{_WITH_FILTERS}: a filter before the service; `carom filter ls` has their names.",
    ),
]
FilterAt = Annotated[str | None, typer.Option(help="auto (where the cache is) | xdp | tc | socket")]
Json = Annotated[bool, typer.Option("--json", help="Print the ready line as JSON.")]


def _asked(config: Path | None, **options: Any) -> tuple[list[str], list[dict[str, Any]]]:
    """Interfaces and each service's options: a file's, and over them those that were given."""
    interfaces, tables = _from_file(config, options) if config else ([], [{}])
    given = {name: value for name, value in options.items() if value is not None}
    return interfaces, [{**table, **given} for table in tables]


def serve(
    interface: Interfaces = None,
    port: Port = None,
    app_name: Annotated[
        str | None,
        typer.Option("--app", help="MODULE:SERVICE, or a service of carom.apps (default: echo)."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="TOML file with several services; options here override it."),
    ] = None,
    bind: Bind = None,
    protocol: Annotated[str | None, typer.Option(help=_of(Filled.DAEMON))] = None,
    hook: HookName = None,
    mode: ModeName = None,
    fast: Annotated[str | None, typer.Option(help="cache | bounce | off")] = None,
    policy: PolicyName = None,
    admit: Admit = None,
    capacity: Capacity = None,
    memory: Memory = None,
    ttl: TTL = None,
    amplify: Amplify = None,
    allow: Allow = None,
    prefix_rate: PrefixRate = None,
    total_rate: TotalRate = None,
    bypass_firewall: BypassFirewall = False,
    max_reply: MaxReply = None,
    echoes: Annotated[
        int | None,
        typer.Option(
            help="Of so many replies to a client that are requests too, and so may go in a loop, "
            "one is left out (1000). 0: none."
        ),
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
    filter: FilterName = None,
    filter_at: FilterAt = None,
    json: Json = False,
) -> None:
    """Run Python services behind their cache in the kernel, until SIGINT, SIGTERM or SIGHUP."""
    from carom.apps import load
    from carom.daemon.options import with_options, with_units
    from carom.daemon.run import serve as run

    interfaces, tables = _asked(
        config,
        port=port,
        app=app_name,
        bind=bind,
        protocol=protocol,
        hook=hook,
        mode=mode,
        fast=fast,
        policy=policy,
        admit=admit,
        capacity=capacity,
        memory=memory,
        ttl=ttl,
        amplify=amplify,
        allow=tuple(allow) if allow else None,
        prefix_rate=prefix_rate,
        total_rate=total_rate,
        bypass_firewall=bypass_firewall or None,
        max_reply=max_reply,
        echoes=echoes,
        work=work,
        userspace_cache=userspace_cache,
        wait=wait,
        cpu=cpu,
        filter=filter,
        filter_at=filter_at,
    )
    services: list[Service] = []
    for options in tables:
        name = str(options.pop("app", "echo"))
        service = load(name)
        if service in services:
            raise UsageError(f"{name} serves twice", hint="a service has one port")
        service.options = with_options(service.options, with_units(options))
        services.append(service)
    run(services, interface or interfaces, json=json)


def front(
    interface: Interfaces = None,
    port: Port = None,
    protocol: Annotated[str | None, typer.Option(help=_of(Filled.LEARNED))] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file with several services; options here override it."),
    ] = None,
    server_port: Annotated[
        int | None,
        typer.Option(help="The server's own port, where the host translates requests to another."),
    ] = None,
    writes_elsewhere: Annotated[
        str | None,
        typer.Option(
            help="refuse (default) | ttl: a server that can be written to unseen is refused, or "
            "its cache may be stale up to the TTL."
        ),
    ] = None,
    exptime: Annotated[
        str | None,
        typer.Option(
            help=f"{_WITH_ENDS}: auto (default) | ask | ttl: a server known to tell is asked how "
            "long replies hold (ask: any server, or it is refused), or a reply may outlive its "
            "item up to the TTL."
        ),
    ] = None,
    bind: Annotated[
        str | None,
        typer.Option(help="Address; 0.0.0.0 is all of IPv4, :: all that the server has (default)."),
    ] = None,
    hook: HookName = None,
    mode: ModeName = None,
    policy: PolicyName = None,
    admit: Admit = None,
    capacity: Capacity = None,
    memory: Memory = None,
    ttl: TTL = None,
    amplify: Amplify = None,
    allow: Allow = None,
    prefix_rate: PrefixRate = None,
    total_rate: TotalRate = None,
    bypass_firewall: BypassFirewall = False,
    max_reply: MaxReply = None,
    responses_per_second: Annotated[
        int | None,
        typer.Option(
            help=f"{_WITH_TRUNCATION}: replies a second to one /24 or IPv6 /56. 0: any (default)."
        ),
    ] = None,
    slip: Annotated[
        int | None,
        typer.Option(
            help=f"{_WITH_TRUNCATION}: of those beyond, every so manieth is truncated, the rest is "
            "the server's (2). 0: none."
        ),
    ] = None,
    cookie_secret_file: CookieSecretFile = None,
    wait: Annotated[
        str | None,
        typer.Option(
            help="Wait so long for the server, its interface and address, if they are not there "
            "yet: 60s."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Put the cache before servers that are already there, and learn their replies."""
    from carom.daemon.front import front_of
    from carom.daemon.options import seconds
    from carom.daemon.run import serve as run

    interfaces, tables = _asked(
        config,
        port=port,
        protocol=protocol,
        server_port=server_port,
        writes_elsewhere=writes_elsewhere,
        exptime=exptime,
        bind=bind,
        hook=hook,
        mode=mode,
        policy=policy,
        admit=admit,
        capacity=capacity,
        memory=memory,
        ttl=ttl,
        amplify=amplify,
        allow=tuple(allow) if allow else None,
        prefix_rate=prefix_rate,
        total_rate=total_rate,
        bypass_firewall=bypass_firewall or None,
        max_reply=max_reply,
        responses_per_second=responses_per_second,
        slip=slip,
        cookie_secret_file=cookie_secret_file,
    )
    services = [front_of(table) for table in tables]
    patience = seconds(wait) if wait else 0
    run(services, interface or interfaces, json=json, patience=patience)
