# SPDX-License-Identifier: Apache-2.0
"""Each room imports what CONTRIBUTING's table says, and none knows a protocol by name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from carom.protocols import SPECS, headers
from carom.protocols.loaded import CONTRACT
from carom.protocols.spec import Spec

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"\| `(\w+)/` \|.*\| ([\w, ]*) ?\|")
TABLE = {
    room: set(allowed.replace(",", " ").split())
    for room, allowed in ROW.findall((ROOT / "CONTRIBUTING.md").read_text())
}
ROOMS = sorted(TABLE.keys() - {"carom", "tests"})
SHARED = {
    "carom.errors",
    "carom.converted",
    "carom.log",
    "carom.settings",
    "carom.__version__",
}
"""What every room may import of `carom/`."""
PUBLIC = {"carom.Service", "carom.apps"}
INSIDE = {
    room: set(allowed.replace(",", " ").split())
    for room, allowed in re.findall(
        r"\| `lab/(\w*)(?:/|\*\.py)` \|.*\| ([\w, ]*) ?\|", (ROOT / "CONTRIBUTING.md").read_text()
    )
}
"""The rooms inside the lab; `record` is the one file of its top that all of them know."""
HEADERS = {path.name: room for room in ROOMS for path in (ROOT / room).rglob("*.h")}
HEADERS |= dict.fromkeys(headers(), "protocols")
"""With those that the loader writes."""

KEY_VALUE = "the key-value experiments are about this protocol"
MAY_NAME = {
    "carom/apps.py": "its services have names: --app kv",
    "carom/cli_client.py": KEY_VALUE,
    "filters/": "filters read the commands of key-value requests",
    "lab/clients/behaviours.py": KEY_VALUE,
    "lab/clients/keyvalue.py": KEY_VALUE,
    "lab/experiments/filters/": KEY_VALUE,
    "lab/experiments/contests/": "a contest with memcached is about memcached",
    "lab/registry.py": "the list of experiments, of which that is one",
    "carom/cli_route.py": "programs ask for names, and a route leads their questions",
    "routes/": "the same",
    "daemon/firewall.py": "iptables has a table of this name",
}
"""Files and folders that may know a protocol by name, and why."""

NAMES = "|".join(SPECS.keys() - {"raw"})
NAMED = re.compile(rf"(?i)(?<![a-z0-9])({NAMES})(?![a-z0-9])")
RAW_NAMED = re.compile(
    r"""["'`]raw["'`]|\bRAW\b|\bRAW_MAX\b|\braw_[a-z]|\braw\.(h|py)|protocol raw"""
)
"""`raw` is a word of its own, too, so not every one is the protocol."""


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


def sources() -> Iterator[tuple[str, str]]:
    """Each file of code in a room, but for those of protocols' own folders."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.[pch]*")):
            name = str(path.relative_to(ROOT))
            own = room == "protocols" and path.parent != ROOT / room
            if path.suffix in (".py", ".c", ".h") and not own:
                yield name, path.read_text()
    for path in sorted((ROOT / "carom").glob("*.py")):
        yield f"carom/{path.name}", path.read_text()


def places() -> Iterator[str]:
    """The places that know a protocol by name, as `grep -n` tells them: comments count."""
    for name, text in sources():
        for number, line in enumerate(text.splitlines(), 1):
            if NAMED.search(line) or RAW_NAMED.search(line):
                yield f"{name}:{number}: {line.strip()}"


def test_only_its_folder_knows_a_protocol() -> None:
    found = [one for one in places() if not one.startswith(tuple(MAY_NAME))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", MAY_NAME)
def test_what_may_name_a_protocol_does(name: str) -> None:
    assert any(one.startswith(name) for one in places())


def test_the_pattern_finds_each_protocol() -> None:
    """In names of C and of Python, in words and in upper case."""
    for name in SPECS:
        for text in (f"{name}_request(text)", f'"{name}"', f"({name.upper()}, 1)"):
            assert NAMED.search(text) or RAW_NAMED.search(text), text
    assert not NAMED.search("backwards") and not RAW_NAMED.search("socket.SOCK_RAW, raw frames")


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_protocol_says_which_functions_it_has(spec: Spec) -> None:
    """Of the contract's functions its files define those that its SPEC names."""
    folder = ROOT / "protocols" / spec.name
    text = "".join(path.read_text() for path in folder.glob("*.h"))
    defined = set(re.findall(rf"^static __always_inline .*?\b{spec.name}_(\w+)\(", text, re.M))
    assert defined & CONTRACT == set(spec.functions)


def test_the_switches_go_through_the_contract() -> None:
    """protocols.h asks for each of its functions, and for none besides."""
    text = (ROOT / "protocols/protocols.h").read_text()
    asked = re.findall(r"^\tCHOOSE(?:_STREAM|_COOKIE)?\((\w+)", text, re.M)
    asked += re.findall(r"^\tHAVE_(slot_start)\(", text, re.M)
    assert sorted(asked) == sorted(CONTRACT)
