# SPDX-License-Identifier: Apache-2.0
"""`carom lab`: experiments on a pair of hosts."""

from __future__ import annotations

import msgspec

from carom.cli_lab_bench import admission, bench
from carom.cli_lab_report import compare, report
from carom.cli_lab_run import lab_fields, lab_run
from carom.cli_options import App, Json, missing
from carom.cli_settings import command

app = App()
lab_app = App(help="Experiments on a pair of hosts.")
app.add_typer(lab_app, name="lab")


@lab_app.command("list")
def lab_list(json: Json = False) -> None:
    """List the experiments."""
    try:
        from carom.lab.registry import experiments
    except ImportError as error:
        missing(error)
    descriptions = {name: experiment.description for name, experiment in experiments().items()}
    if json:
        print(msgspec.json.encode(descriptions).decode())
        return
    for name, description in descriptions.items():
        print(f"{name:22} {description}")


@lab_app.command("clean")
def lab_clean() -> None:
    """Remove what a killed run left: namespaces, the processes in them, dead control sockets."""
    from carom.daemon import control
    from carom.vm.namespace import clean

    control.running()  # forgets the sockets that nobody answers on
    for name in clean():
        print(f"removed {name}")


lab_app.command("run", cls=command(lab_fields))(lab_run)
lab_app.command()(bench)
lab_app.command()(admission)
lab_app.command()(report)
lab_app.command()(compare)
