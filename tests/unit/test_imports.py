# SPDX-License-Identifier: Apache-2.0
"""What a command imports: each start waits for it, and a service keeps its memory.

A child runs the command, and looks at what it has imported when it ends.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_group

from carom import cli_client
from carom.cli import MODULES
from carom.protocols import kv

HEAVY = ("asyncio", "bcc", "logging", "numpy", "pydantic", "pyroute2", "rich", "scapy")
"""No command needs one of these before it does what it was asked."""

RUN = """
import sys
from carom.cli import main

_, heavy, *sys.argv[1:] = sys.argv
try:
    main()
finally:
    print("imported:", *(name for name in heavy.split(",") if name in sys.modules), file=sys.stderr)
"""


def imported(*argv: str, of: tuple[str, ...] = HEAVY, says: str = "") -> list[str]:
    """Which modules `of` these a command imports; it `says` this among its errors."""
    command = [sys.executable, "-P", "-c", RUN, ",".join(of), *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    name, *found = done.stderr.splitlines()[-1].split()
    assert name == "imported:" and says in done.stderr, done.stderr
    return found


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_what_is_asked_of_carom_itself(option: str) -> None:
    assert (
        imported(option, of=(*HEAVY, "carom.daemon.options", "carom.lab", "carom.protocols")) == []
    )


@pytest.mark.parametrize("command", [name for name in MODULES if name not in ("ping", "load")])
def test_help(command: str) -> None:
    """The options of `ping` and `load` are the lab's, which measures with numpy."""
    assert imported(command, "--help") == []


@pytest.mark.parametrize("command", ["serve", "front"])
def test_a_service(command: str) -> None:
    """Up to the interface that it would load programs for."""
    assert imported(command, "-i", "lo", "-p", "9", says="lo is not an Ethernet interface") == []


@pytest.mark.parametrize("command", ["serve", "front"])
def test_a_service_of_a_file(command: str) -> None:
    assert imported(command, "--config", "/dev/null", says="names no service") == []


@pytest.mark.parametrize("command", ["serve", "front"])
def test_a_service_of_other_programs(command: str, tmp_path: Path) -> None:
    assert imported(command, "--programs", str(tmp_path), says="there is no object file") == []


def test_what_talks_to_a_carom() -> None:
    assert imported("cache", "ls") == []
    assert imported("filter", "show") == []


def test_a_command_imports_no_other() -> None:
    assert imported("status", of=("carom.cli_serve", "carom.cli_lab", "carom.cli_vm")) == []


def test_the_port_that_is_written_twice() -> None:
    assert cli_client.PORT == kv.PORT


def test_every_module_has_the_commands_of_the_table() -> None:
    for module in set(MODULES.values()):
        commands = get_group(importlib.import_module(f"carom.{module}").app).commands
        assert set(commands) == {name for name, its in MODULES.items() if its == module}
