# SPDX-License-Identifier: Apache-2.0
"""`carom route`: programs whose packets leave by one interface, or not at all."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from carom.cli_cache import print_json
from carom.cli_options import App, Json, new_table, show_table
from carom.errors import BusyError, CaromError, PrivilegeError, UsageError

if TYPE_CHECKING:
    from carom.routes.child import Program
    from carom.routes.route import Mark, Route

app = App()
route_app = App(
    help="Lead programs by an interface: their packets leave by it, or not at all.",
)
app.add_typer(route_app, name="route")

Via = Annotated[
    str | None,
    typer.Option("--via", metavar="INTERFACE", help="The interface that packets leave by."),
]
Gateway = Annotated[
    list[str] | None,
    typer.Option(
        "--gateway", metavar="ADDRESS", help="Its router, for one like an Ethernet; one a family."
    ),
]
Dns = Annotated[
    list[str] | None,
    typer.Option(
        "--dns", metavar="ADDRESS", help="Where questions of DNS go, whatever programs mean."
    ),
]
Policy = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The file that names routes. [default: /etc/carom/routes.toml]",
    ),
]
Name = Annotated[str, typer.Argument(help="The route.", metavar="NAME")]


def _root() -> None:
    if os.geteuid():
        raise PrivilegeError("routes are root's alone", hint="run it with sudo")


def _policy(path: Path | None) -> Any:
    """The routes of the file, and the bits of marks; none where there is no file."""
    from carom.route_file import STANDARD, Routes, read

    if path is None and not STANDARD.exists():
        return Routes({})
    return read(path or STANDARD)


def _named(name: str, path: Path | None) -> tuple[Route, Mark]:
    from carom.route_file import STANDARD

    policy = _policy(path)
    if name not in policy.routes:
        known = ", ".join(policy.routes) or "none"
        raise UsageError(
            f"{path or STANDARD} has no route {name}", hint=f"it has: {known}; or say --via"
        )
    return policy.routes[name], policy.marks


def _said(via: str, **said: Any) -> Route:
    import msgspec

    from carom.routes.route import Route, checked

    try:
        return checked(
            msgspec.convert({"via": via, **{k: v or () for k, v in said.items()}}, Route)
        )
    except msgspec.ValidationError as error:
        raise UsageError(f"this route cannot be: {error}") from error


@route_app.command("run", context_settings={"ignore_unknown_options": False})
def run(
    words: Annotated[
        list[str],
        typer.Argument(metavar="[NAME] -- COMMAND...", help="A route of the file; what to run."),
    ],
    via: Via = None,
    gateway: Gateway = None,
    dns: Dns = None,
    ipv6: Annotated[
        str, typer.Option("--ipv6", metavar="auto|lead|refuse", help="What becomes of IPv6.")
    ] = "auto",
    other_netns: Annotated[
        str,
        typer.Option(
            "--other-netns",
            metavar="refuse|allow",
            help="Sockets that programs make in other network namespaces.",
        ),
    ] = "refuse",
    lan: Annotated[
        str,
        typer.Option(
            "--lan", metavar="refuse|direct", help="What is for this host's own private networks."
        ),
    ] = "refuse",
    resolver_sockets: Annotated[
        str,
        typer.Option(
            "--resolver-sockets",
            metavar="leave|hide",
            help="Resolvers behind Unix sockets, which ask from outside.",
        ),
    ] = "leave",
    user: Annotated[
        str | None,
        typer.Option("--user", metavar="USER", help="Who runs it. [default: who called sudo]"),
    ] = None,
    keep_rights: Annotated[
        bool,
        typer.Option("--keep-rights", help="Leave it rights that it could get out by."),
    ] = False,
    detach: Annotated[
        bool,
        typer.Option("--detach", help="End with the command; the route stays for what it started."),
    ] = False,
    config: Policy = None,
) -> None:
    """Run a program whose packets leave by one interface, or not at all.

    It ends with the command's exit status, once all that the command has started has ended. A route
    of the file that is up (`start`) is joined.
    """
    from carom.routes import child, keeper

    _root()
    name, command = _words(words, via)
    runs_as = child.user_of(user) if user else child.caller()
    program = child.Program(command, runs_as, keep_rights)
    if name and _is_up(name):
        raise typer.Exit(_joined(name, program))
    if name:
        route, mark = _named(name, config)
    else:
        assert via is not None
        said = {"gateway": gateway, "dns": dns, "ipv6": ipv6, "other_netns": other_netns}
        said |= {"lan": lan, "resolver_sockets": resolver_sockets}
        route, mark = _said(via, **said), _policy(config).marks
        name = f"{via}-{os.getpid()}"
    with keeper.up(name, route, mark, leave=detach) as led:
        status = keeper.run(led, child.of_route(program, route), detach=detach)
    raise typer.Exit(status)


def _words(words: list[str], via: str | None) -> tuple[str, list[str]]:
    """The name of a route, if there is one, and the command."""
    name = "" if via else words[0]
    command = words if via else words[1:]
    if not command:
        raise UsageError(
            "there is nothing to run", hint="carom route run --via INTERFACE -- COMMAND"
        )
    return name, command


def _is_up(name: str) -> bool:
    from carom.routes import group, records

    return records.find(name) is not None and group.is_kept(name)


def _joined(name: str, program: Program) -> int:
    """Run a program in a route that another process keeps."""
    from carom.routes import child, records
    from carom.routes.leading import Leading

    record = records.find(name)
    route = record.route if record else None
    with Leading(name) as led:
        return child.Child(led.group, child.of_route(program, route)).wait()


@route_app.command("start")
def start(name: Name, config: Policy = None) -> None:
    """Keep a route of the file up, until a signal comes: `run NAME` joins it."""
    from carom.kernel import signals
    from carom.routes import keeper

    _root()
    route, mark = _named(name, config)
    with (
        contextlib.suppress(signals.Stop),
        signals.ending(),
        keeper.up(name, route, mark),
    ):
        print(f"ready: {name} leads by {route.via}", flush=True)
        keeper.Keeper(name).keep()


@route_app.command("stop")
def stop(
    name: Annotated[str | None, typer.Argument(help="The route.", metavar="NAME")] = None,
    kill: Annotated[bool, typer.Option("--kill", help="End the programs that run in it.")] = False,
) -> None:
    """Take a route away; without a name, those that nobody keeps and nothing runs in."""
    from carom.routes import group, leading, records

    _root()
    if name is None:
        gone = leading.sweep()
        print(f"taken away: {', '.join(gone)}" if gone else "there was nothing to take away")
        return
    record = records.find(name)
    pid = record.keeper if record and group.is_kept(name) else 0
    with contextlib.suppress(FileNotFoundError), group.Group(name) as found:
        if kill:
            found.kill()
        elif pid and not found.is_empty():
            raise BusyError(f"programs run in route {name}", hint="end them first, or with --kill")
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        _wait_for(name)
    with contextlib.suppress(*[UsageError] if pid else []):  # its keeper has taken it away
        leading.take_down(name, kill=kill)


def _wait_for(name: str) -> None:
    from carom.routes import group

    until = time.monotonic() + 10
    while group.is_kept(name):
        if time.monotonic() > until:
            raise CaromError(f"who keeps route {name} does not end")
        time.sleep(0.02)


@route_app.command("use")
def use(
    name: Name,
    via: Annotated[str, typer.Option("--via", metavar="INTERFACE", help="The other interface.")],
    gateway: Gateway = None,
) -> None:
    """Lead a route's programs by another interface, at once.

    Connections keep their source, so theirs end; programs open others.
    """
    import msgspec

    from carom.routes import leading, records
    from carom.routes.route import checked

    _root()
    record = records.find(name)
    if record is None:
        raise UsageError(f"there is no route {name}", hint="carom route ls shows those there are")
    changed = msgspec.structs.replace(record.route, via=via, gateway=tuple(gateway or ()))
    leading.change(name, checked(changed))
    print(f"{name} leads by {via}")


@route_app.command("ls")
def list_routes(json: Json = False) -> None:
    """List the routes that are up, and those that were left."""
    from carom.routes import report

    _root()
    rows = report.routes()
    if json:
        print_json([row._asdict() for row in rows])
        return
    table = new_table("route", "via", "state", "keeper", "processes", "dns", "refused")
    for row in rows:
        table.add_row(
            row.name,
            row.via,
            row.state,
            str(row.keeper or "-"),
            str(row.processes),
            " ".join(row.dns) or "-",
            f"{sum(row.refused.values()):,}",
        )
    show_table(table)


@route_app.command("sockets")
def list_sockets(
    name: Annotated[str | None, typer.Argument(help="The route.", metavar="NAME")] = None,
    not_led: Annotated[
        bool, typer.Option("--not-led", help="Only those that are not led as others are.")
    ] = False,
    json: Json = False,
) -> None:
    """List the sockets of routes' programs, and how each is led."""
    from carom.routes import report

    _root()
    rows = [row for row in report.sockets_of(name) if not not_led or row.how != "led"]
    if json:
        print_json([row._asdict() for row in rows])
        return
    table = new_table("route", "socket", "led", "processes")
    for row in rows:
        who = ", ".join(f"{pid} {process}" for pid, process in row.held.items())
        table.add_row(row.route, row.socket, row.how, who or "-")
    show_table(table)


@route_app.command("top")
def top(
    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            metavar="INTERFACE",
            help="What every process of this host sends by it, led or not.",
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print one table, and end.")] = False,
    interval: Annotated[
        float, typer.Option("--interval", help="Seconds.", min=0.1, max=3600)
    ] = 1.0,
    json: Json = False,
) -> None:
    """Watch what each process' sockets do: where they leave, how much, and what is refused."""
    from carom.routes import account, report

    _root()
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        watch = report.Watch() if on is None else stack.enter_context(account.Account(on))
        while True:
            time.sleep(interval)
            rows = watch.look()
            if json:
                print_json([row._asdict() for row in rows])
            else:
                (_show if on is None else _show_senders)(rows if once else _on_terminal(rows))
            if once:
                return


def _on_terminal(rows: list[Any]) -> list[Any]:
    """Clear the terminal for the rows that fit on it; elsewhere all follow the last ones."""
    if not sys.stdout.isatty():
        print()
        return rows
    print("\x1b[H\x1b[J", end="")
    lines = os.get_terminal_size(sys.stdout.fileno()).lines or len(rows)  # 0: it does not say
    return rows[: max(lines - 2, 1)]  # the head, and where the cursor is


def _show_senders(rows: list[Any]) -> None:
    table = new_table("pid", "program", "uid", "route", "sockets", "packets/s", "out/s", "out")
    for row in rows:
        table.add_row(
            *(str(row.pid or "-"), row.program, str(row.uid) if row.pid else "-", row.route or "-"),
            *(f"{row.sockets:,}", f"{row.out_packets_s:,.0f}", f"{row.out_bytes_s:,.0f}"),
            f"{row.out_bytes:,}",
        )
    show_table(table)


def _show(rows: list[Any]) -> None:
    table = new_table(
        "route", "pid", "program", "open", "by", "out/s", "in/s", "out", "in", "refused"
    )
    for row in rows:
        why = " ".join(f"{name}={count:,}" for name, count in row.why.items())
        table.add_row(
            *(row.route, str(row.pid), row.program, str(row.sockets), row.by or "-"),
            *(f"{row.out_bytes_s:,.0f}", f"{row.in_bytes_s:,.0f}"),
            *(f"{row.out_bytes:,}", f"{row.in_bytes:,}", why or "0"),
        )
    show_table(table)


@route_app.command("why")
def why(
    what: Annotated[
        str,
        typer.Argument(
            help="A process, or a socket's own end as `sockets` shows it.",
            metavar="PID|ADDRESS:PORT",
        ),
    ],
    json: Json = False,
) -> None:
    """Say how a process or a socket is led, check by check, and what would change it."""
    from carom.routes import why

    _root()
    found = [why.of_process(int(what))] if _is_pid(what) else why.of_sockets(what)
    if json:
        print_json([one._asdict() for one in found])
        return
    for one in found:
        print("\n  ".join([one.subject, *one.checks]))


def _is_pid(what: str) -> bool:
    return what.isascii() and what.isdigit() and len(what) < 20


@route_app.command("adopt")
def adopt(
    name: Name,
    pid: Annotated[int, typer.Argument(help="A process.", metavar="PID")],
    destroy: Annotated[
        bool,
        typer.Option("--destroy", help="End its connections, which cannot go another way."),
    ] = False,
    json: Json = False,
) -> None:
    """Bring a running process into a route, with its sockets as far as that goes."""
    from carom.routes import sockets
    from carom.routes.leading import Leading

    _root()
    try:
        with Leading(name) as led:
            done = sockets.adopt(led, pid, destroy=destroy)
    except ProcessLookupError as error:
        raise UsageError(f"there is no process {pid}") from error
    if json:
        print_json([one._asdict() for one in done])
        return
    table = new_table("socket", "now")
    for one in done:
        table.add_row(one.socket, one.how)
    show_table(table)
    if left := sum(one.how == "still direct" for one in done):
        print(f"{left} connections leave as before: --destroy ends them")
