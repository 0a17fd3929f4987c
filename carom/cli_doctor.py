# SPDX-License-Identifier: Apache-2.0
"""`carom doctor`: what makes the fast path useless or slow here, and what to do about it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from carom.cli_cache import Pid, print_json
from carom.cli_options import App, Json
from carom.daemon import control
from carom.errors import CaromError, ControlError, UsageError

if TYPE_CHECKING:
    from carom.daemon.doctor.examine import Report, Result
    from carom.daemon.doctor.look import Asked, Look, Running

app = App()

_PATIENCE = 5.0
"""Seconds for a running carom to answer."""


@app.command()
def doctor(
    interface: Annotated[
        list[str] | None,
        typer.Option("--interface", "-i", metavar="NAME", help="Look at this; may be repeated."),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Of the service that is, or would be, there.")
    ] = None,
    port: Annotated[int | None, typer.Option("--port", "-p", help="Its UDP port.")] = None,
    bind: Annotated[str | None, typer.Option(help="Its address.")] = None,
    hook: Annotated[str, typer.Option(metavar="xdp|tc", help="Where it is answered.")] = "xdp",
    mode: Annotated[
        str, typer.Option(metavar="auto|native|generic", help="XDP's mode there.")
    ] = "auto",
    skip: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Leave out this check, or group; may be repeated."),
    ] = None,
    tries: Annotated[
        bool,
        typer.Option(
            "--try", help="Attach a program for a moment, to try how much room the driver leaves."
        ),
    ] = False,
    fix: Annotated[
        bool, typer.Option("--fix", help="Mend what can be mended, and taken back, while all runs.")
    ] = False,
    pid: Pid = None,
    json: Json = False,
) -> None:
    """Find what makes the fast path useless or slow, and does not say so.

    Looked at are interfaces, a service on them, and their host; without -i those of the running
    carom. The exit code is 1 where something makes it useless or slow.
    """
    from carom.daemon.doctor.examine import check_names, examine

    check_names(skip or ())
    service = {"protocol": protocol, "port": port, "bind": bind}
    look = _look(interface or [], service, (hook, mode), pid, tries=tries)
    report = examine(look, skip or (), mend=fix)
    if json:
        print_json(report)
    else:
        _show(report)
    if report.wrong:
        raise typer.Exit(1)


def _look(
    names: list[str], service: dict[str, Any], how: tuple[str, str], pid: int | None, *, tries: bool
) -> Look:
    """What is to be looked at. Raises CaromError."""
    from carom.daemon.doctor.look import Look, bound_addresses
    from carom.kernel import devices, links

    hook, mode = how
    if hook not in ("xdp", "tc") or mode not in ("auto", "native", "generic"):
        raise UsageError(
            f"--hook {hook} --mode {mode} is no way to answer",
            hint="--hook xdp or tc; --mode auto, native or generic",
        )
    running = _running(pid, names)
    status = running.status if running else None
    services = _asked({**service, "hook": hook, "mode": mode}) or _services(status, service["port"])
    if status and not service["protocol"]:
        hook, mode = status["options"]["hook"], status["options"]["mode"]
    if status and not names:
        known = {device.name for device in devices.devices()}  # one may be gone: that is found
        names = [link["name"] for link in status["ready"]["interfaces"] if link["name"] in known]
    return Look(
        links.interfaces(names, bound_addresses(services)),
        services,
        hook=hook,  # type: ignore[arg-type]
        mode=mode,  # type: ignore[arg-type]
        running=running,
        tries=tries,
    )


def _running(pid: int | None, names: list[str]) -> Running | None:
    """The carom that is looked at: the one of this pid, or the one here, on these interfaces."""
    if pid is not None:
        found = _told(pid)
        _enter(pid)
        return found
    pids = control.running()
    here = [_told(one) for one in pids if _namespace(one) == _namespace(os.getpid())]
    if names:
        here = [one for one in here if one.status is None or set(names) & set(one.modes())]
    if len(here) > 1:
        raise ControlError(
            f"{len(here)} caroms are running",
            hint="choose one with --pid: " + ", ".join(str(one.pid) for one in here),
        )
    if not here and (os.geteuid() or not control.seen()):
        print("carom: root's caroms are not looked at: root alone sees them", file=sys.stderr)
    elif not here and not names:
        others = f"; of {', '.join(map(str, pids))} by --pid" if pids else ""
        print(f"carom: the host alone is looked at: -i names an interface{others}", file=sys.stderr)
    return here[0] if here else None


def _told(pid: int) -> Running:
    """What a carom says of itself. Raises ControlError where there is none of this pid."""
    from carom.daemon.doctor.look import Running

    try:
        status = control.call("status", pid, _PATIENCE)
    except ControlError as error:
        if pid not in control.running():
            raise
        return Running(pid, None, str(error))
    with _of_this_version():
        running = Running(pid, status)
        running.modes(), status["options"]["hook"], status["options"]["mode"]
    return running


@contextlib.contextmanager
def _of_this_version() -> Iterator[None]:
    """Raises ControlError where a running carom says other things than this one would."""
    import msgspec

    try:
        yield
    except (KeyError, TypeError, AttributeError, msgspec.ValidationError) as error:
        raise ControlError(
            "the running carom is of another version, which this one cannot read",
            hint="use its own doctor",
        ) from error


def _namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:  # it has ended, or is another user's
        return ""


def _enter(pid: int) -> None:
    """Look from the network namespace of a process."""
    from carom.kernel import netns

    if _namespace(pid) == _namespace(os.getpid()):
        return
    try:
        netns.enter(Path(f"/proc/{pid}"))
    except OSError as error:
        raise CaromError(
            f"the network namespace of carom {pid} cannot be entered: {error.strerror}",
            hint="run it as root",
        ) from error


def _asked(service: dict[str, Any]) -> list[Asked]:
    """The service that the options name; none if they name none. Raises UsageError."""
    from carom import protocols
    from carom.daemon.doctor.look import Asked
    from carom.daemon.front import STANDING, Front
    from carom.daemon.options import options_of

    given = {name: value for name, value in service.items() if value is not None}
    if "protocol" not in given:
        if "bind" in given:
            raise UsageError(
                "no service is named that is bound to an address", hint="--protocol says which"
            )
        return []
    given["protocol"] = given["protocol"].lower()
    one = protocols.spec(given["protocol"])
    if one.learned:
        front = Front(options_of({**STANDING, "port": one.port, **given}))
        return [Asked(front.options, front)]
    if "port" not in given:
        raise UsageError(
            f"no port is named for a service of {given['protocol']}", hint="--port, or -p"
        )
    return [Asked(options_of(given))]


def _services(status: Mapping[str, Any] | None, port: int | None) -> list[Asked]:
    """The running carom's services, or the one on a port. Raises UsageError."""
    import msgspec

    from carom.daemon.doctor.look import Asked
    from carom.daemon.front import Front, Wishes
    from carom.daemon.options import Options

    found = []
    with _of_this_version():
        for service in status["services"] if status else ():
            options = msgspec.convert(service["options"], Options)
            wishes = service.get("wishes")
            front = Front(options, msgspec.convert(wishes, Wishes)) if wishes else None
            found.append(Asked(options, front))
    chosen = [asked for asked in found if port in (None, asked.options.port)]
    if port is not None and not chosen:
        raise UsageError(
            f"nothing is known of port {port}",
            hint="--protocol says what is, or would be, there"
            + (
                f"; services run on {', '.join(str(one.options.port) for one in found)}"
                if found
                else ""
            ),
        )
    return chosen


def _show(report: Report) -> None:
    """A line for each finding, with what to do."""
    count = sum(result.state == "not known" for result in report.results)
    for result in report.results:
        if result.state == "found":
            print(
                _printable(f"{result.severity:8} {result.name}: {result.what}; {_remedy(result)}")
            )
    for result in report.results:
        if result.state == "not known":
            print(_printable(f"{'?':8} {result.name}: not known: {result.what}"))
    checks = f"{len(report.results)} looks, of which {count} could not tell"
    print(f"{report.wrong or 'nothing'} wrong ({checks})")


def _remedy(result: Result) -> str:
    """What to do, or what was done."""
    change = result.change
    if not change:
        return result.remedy
    if change.made:
        return f"mended by `{change.command}`, which `{change.undo}` takes back"
    if change.why:
        return f"`{change.command}` failed: {change.why}"
    return f"{result.remedy} (--fix does that)"


def _printable(text: str) -> str:
    """Names that programs gave themselves may command a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
