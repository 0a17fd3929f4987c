# SPDX-License-Identifier: Apache-2.0
"""`carom vm`: the pair of VMs."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import msgspec
import typer

from carom.cli_options import App, Json, new_table, show_table
from carom.errors import UsageError

app = App()
vm_app = App(
    help="The pair of VMs that experiments run on (docs/vm.md).",
)
app.add_typer(vm_app, name="vm")


@vm_app.command("up")
def up(
    box: Annotated[
        str | None, typer.Option(help="A box that Vagrant knows or finds: debian/bookworm64.")
    ] = None,
    build: Annotated[
        str | None,
        typer.Option(metavar="bookworm|trixie", help="Take the box that vm/box.sh builds as root."),
    ] = None,
    provider: Annotated[
        str, typer.Option(metavar="libvirt|virtualbox", help="What runs the machines.")
    ] = "libvirt",
    emulate: Annotated[
        bool, typer.Option("--emulate", help="Without KVM: QEMU emulates the CPUs, slowly.")
    ] = False,
    cpus: Annotated[int | None, typer.Option(min=1, help="Each machine's; 1.")] = None,
    memory: Annotated[int | None, typer.Option(min=512, help="Each machine's MB; 4096.")] = None,
) -> None:
    """Bring both machines up, with all that carom needs."""
    from carom.vm import vagrant

    if provider not in vagrant.PROVIDERS:
        raise UsageError(f"there is no provider {provider!r}", hint="libvirt or virtualbox")
    if box and build:
        raise UsageError("--box and --build exclude each other", hint="give one of them")
    if (build or emulate) and provider != "libvirt":
        raise UsageError("--build and --emulate are for libvirt", hint="--provider libvirt")
    vagrant.check(provider, emulated=emulate)
    settings = {
        "CAROM_BOX": vagrant.build(build) if build else box,
        "CAROM_EMULATED": "1" if emulate else None,
        "CAROM_CPUS": cpus,
        "CAROM_MEMORY": memory,
    }
    vagrant.up(provider, {name: str(value) for name, value in settings.items() if value})
    if provider == "virtualbox":
        print(f"warning: {vagrant.NO_NATIVE_XDP}", file=sys.stderr)


@vm_app.command("status")
def status(json: Json = False) -> None:
    """Show the machines: addresses, kernels, interfaces, and whether ssh reaches them."""
    from carom.vm import vagrant

    machines = vagrant.status()
    if json:
        print(msgspec.json.encode(machines).decode())
        return
    heads = ("machine", "state", "provider", "ssh", "address", "interface", "driver", "kernel")
    table = new_table(*heads)  # fits 80 columns
    for machine in machines:
        facts = machine.facts
        cells = (facts.address, facts.interface, facts.driver, facts.kernel) if facts else ()
        table.add_row(
            machine.name, machine.state, machine.provider, "yes" if facts else "no", *cells
        )
    show_table(table)
    for machine in machines:
        if machine.trouble:
            print(f"{machine.name}: {machine.trouble}", file=sys.stderr)


@vm_app.command(
    "run",
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,  # what follows is the experiment's or the command's
    },
)
def run(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME|client|server", help="An experiment, or a machine.")
    ],
) -> None:
    """Run experiments on the machines, with `carom lab run`'s options; or a command on one."""
    from carom.vm import vagrant

    if name not in vagrant.NAMES:
        lab = [sys.executable, "-P", "-m", "carom", "lab", "run", name, *context.args]
        os.execv(sys.executable, [*lab, "--on", "vagrant"])
    if not context.args:
        raise UsageError(f"no command for the {name}", hint=f"carom vm run {name} uname -a")
    raise typer.Exit(vagrant.run(name, context.args))


@vm_app.command("down")
def down() -> None:
    """Destroy both machines, with their disks."""
    from carom.vm import vagrant

    vagrant.down()
