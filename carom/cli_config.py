# SPDX-License-Identifier: Apache-2.0
"""`carom config` looks at a configuration file without running it; `carom reload` has it heeded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from carom.cli_cache import Pid, print_json
from carom.cli_options import App, Json
from carom.cli_serve import File, Interfaces, of_file, run_fields
from carom.cli_settings import command

if TYPE_CHECKING:
    from carom.configuration import Origin, Plan

app = App()
config_app = App(help="Look at a configuration file. Nothing is started or changed.")
app.add_typer(config_app, name="config")


_PATIENCE = 90.0
"""Seconds for a reload: the firewall's rules may take long to read."""


@app.command()
def reload(pid: Pid = None, json: Json = False) -> None:
    """Have a running carom go by its configuration file as it is now: all of it, or nothing."""
    from carom.daemon import control

    changes = control.call("reload", pid, timeout=_PATIENCE)
    if json:
        print_json({"changes": changes})
    else:
        print("\n".join(changes or ["nothing in it has changed"]))


@config_app.command(cls=command(run_fields))
def check(context: typer.Context, file: File = None, interface: Interfaces = None) -> None:
    """Say all that is wrong with a file: exit code 2. It imports the modules of its apps."""
    plan = of_file(context, file, interface).read()
    count = len(plan.services)
    print(f"{plan.file}: {count} service{'s' if count > 1 else ''}, no errors")


@config_app.command(cls=command(run_fields))
def show(
    context: typer.Context, file: File = None, interface: Interfaces = None, json: Json = False
) -> None:
    """Show what a file says, with the command line and defaults, and where each option is from."""
    plan = of_file(context, file, interface).read()
    if json:
        print_json(_told(plan))
    else:
        _show(plan)


def _told(plan: Plan) -> dict[str, Any]:
    def one(value: Any, origin: Origin) -> dict[str, Any]:
        line = {} if origin.line is None else {"line": origin.line}
        return {"value": value, "from": origin.source, **line}

    return {
        "file": str(plan.file),
        "interfaces": one(plan.interfaces, plan.interfaces_from),
        "services": [
            {
                "kind": planned.kind,
                "app": planned.app,
                "options": {
                    name: one(value, planned.origins[name])
                    for name, value in planned.values().items()
                },
            }
            for planned in plan.services
        ],
    }


def _show(plan: Plan) -> None:
    def row(name: str, value: Any, origin: Origin) -> None:
        where = origin.source if origin.line is None else f"line {origin.line}"
        print(f"{name:24} {_written(value):24} {where}")

    row("interfaces", tuple(plan.interfaces), plan.interfaces_from)
    for number, planned in enumerate(plan.services):
        print(f"service[{number}] {planned.kind}{f' {planned.app}' if planned.app else ''}")
        for name, value in planned.values().items():
            row(f"  {name}", value, planned.origins[name])


def _written(value: Any) -> str:
    """A value as TOML has it; where there is none, nothing."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.15g}" if isinstance(value, float) else repr(value).replace("'", '"')
