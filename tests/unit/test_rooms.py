# SPDX-License-Identifier: Apache-2.0
"""Each room imports what CONTRIBUTING's table says, no more and no less."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"\| `(\w+)/` \|.*\| ([\w, ]*) ?\|")
TABLE = {
    room: set(allowed.replace(",", " ").split())
    for room, allowed in ROW.findall((ROOT / "CONTRIBUTING.md").read_text())
}
ROOMS = sorted(TABLE.keys() - {"carom", "tests"})
SHARED = {"carom.errors", "carom.converted", "carom.settings"}
"""What every room may import of `carom/`."""
PUBLIC = {"carom.Service", "carom.__version__", "carom.apps"}
INSIDE = {
    room: set(allowed.replace(",", " ").split())
    for room, allowed in re.findall(
        r"\| `lab/(\w*)(?:/|\*\.py)` \|.*\| ([\w, ]*) ?\|", (ROOT / "CONTRIBUTING.md").read_text()
    )
}
"""The rooms inside the lab; `record` is the one file of its top that all of them know."""
HEADERS = {path.name: room for room in ROOMS for path in (ROOT / room).rglob("*.h")}


def modules(path: Path) -> Iterator[str]:
    """The names that a file imports of carom, in full."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def imported(room: str) -> set[str]:
    """The other rooms that a room's files import, or include, and what they want of `carom/`."""
    found = set()
    for path in (ROOT / room).rglob("*.py"):
        for name in modules(path):
            if name.split(".")[0] == "carom":
                inner = name.split(".")[1]
                found.add(inner if inner in TABLE else ".".join(name.split(".")[:2]))
    for path in (ROOT / room).rglob("*.[ch]"):
        included = re.findall(r'^#include "(.+)"', path.read_text(), re.MULTILINE)
        found |= {HEADERS[name] for name in included}
    return found - {room}


def test_the_table_has_every_room() -> None:
    packages = re.findall(r"^    carom\.(\w+) = ", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    assert set(packages) == set(ROOMS)


def inside(name: str) -> str:
    """The room inside the lab that a module of it belongs to; "lab" is its top."""
    first = name.split(".")[2]
    return first if first in INSIDE or first == "record" else "lab"


@pytest.mark.parametrize("room", INSIDE)
def test_a_room_of_the_lab(room: str) -> None:
    folder = ROOT / "lab" / room
    found = {
        inside(name)
        for path in (folder.rglob("*.py") if room else folder.glob("*.py"))
        for name in modules(path)
        if name.startswith("carom.lab.")
    }
    assert found - {room or "lab", *(() if room else ("record",))} == INSIDE[room]


def test_the_lab_has_no_other_rooms() -> None:
    folders = {path.parent.name for path in (ROOT / "lab").glob("*/__init__.py")}
    assert folders == set(INSIDE) - {""}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room(room: str) -> None:
    allowed = SHARED | (PUBLIC if room == "lab" else set())
    assert imported(room) - allowed == TABLE[room]


SETS_SIGNALS = re.compile(r"signal\.signal\(|pthread_sigmask\(|PDEATHSIG")
ALONE = {"kernel/signals.py", "vm/tether.py"}
"""The second is sent to hosts as a text, without the rest."""


def test_what_signals_do_is_in_one_file() -> None:
    files = [path for room in ("carom", *ROOMS) for path in (ROOT / room).rglob("*.py")]
    setting = {str(one.relative_to(ROOT)) for one in files if SETS_SIGNALS.search(one.read_text())}
    assert setting == ALONE
