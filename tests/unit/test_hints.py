# SPDX-License-Identifier: Apache-2.0
"""Messages and hints name options that there are, of the command whose user reads them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer import Context
from typer.main import get_command

from carom.cli import app

ROOT = Path(__file__).parents[2]
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")

OTHERS = ("protocols/dns/access.py", "daemon/firewall.py", "daemon/iptables.py")
"""What reads options of programs that are not carom's."""

FRONT = (
    *("front", "fronted_server", "fronted_backend", "finder", "no_server", "targets"),
    *("translated", "lifetimes"),
)
SERVE = (
    *("own_socket", "python_backend", "service", "udp_server", "transport", "loops"),
    "filtering",
)
ROOMS = ("carom", "daemon", "include", "xdp", "tc", "cgroup", "filters", "protocols")


def options_of(command: str) -> set[str]:
    """All options of a command."""
    known = get_command(app).commands[command]  # type: ignore[attr-defined]
    return {name for each in known.get_params(Context(known)) for name in each.opts}


def every_option() -> set[str]:
    """Those of all commands, and of theirs."""

    def walk(command: Any) -> Iterator[str]:
        for each in command.get_params(Context(command)):
            yield from each.opts
            yield from each.secondary_opts
        for each in getattr(command, "commands", {}).values():
            yield from walk(each)

    return {"--help", *walk(get_command(app))}


def named_in(path: Path) -> Iterator[tuple[int, str]]:
    """Options in the text that a file's code has for its users, docstrings and comments apart."""
    tree = ast.parse(path.read_text())
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            for found in OPTION.findall(node.value):
                yield node.lineno, found


@pytest.mark.parametrize(("modules", "command"), [(FRONT, "front"), (SERVE, "serve")])
def test_what_one_command_says(modules: tuple[str, ...], command: str) -> None:
    """It has every option that it names."""
    known = options_of(command)
    for module in modules:
        for line, option in named_in(ROOT / "daemon" / f"{module}.py"):
            assert option in known, f"daemon/{module}.py:{line}"


@pytest.mark.parametrize("room", ROOMS)
def test_what_anything_says(room: str) -> None:
    """Some command has it."""
    known = every_option()
    for path in sorted((ROOT / room).rglob("*.py")):
        name = str(path.relative_to(ROOT))
        for line, option in () if name in OTHERS else named_in(path):
            assert option in known, f"{name}:{line}"
