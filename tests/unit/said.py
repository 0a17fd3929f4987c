# SPDX-License-Identifier: Apache-2.0
"""What carom's code says to whoever runs it: found in its source, so that none is forgotten."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = (
    *("carom", "kernel", "protocols", "xdp", "tc", "cgroup"),
    *("filters", "daemon", "routes", "lab", "vm"),
)
LEVELS = ("info", "warning", "error")
VARIES = "…"
"""Stands in a text for what differs from one time to the next."""

NOTES_FROM = {
    "daemon/assemble.py": "_notes",
    "daemon/firewall_check.py": "notes",
}
"""The functions that make up the notes of `ready` and `status`."""

TRAPS = {"said_at_start", "access_lists"}
"""Those of them whose notes are traps of `carom doctor`, which have a table of their own."""

_NOTE_TYPES = {"str", "Iterator[str]", "list[str]"}
_SHORTEST = 20
"""Of a note, in letters: what is shorter is a part of one."""

Function = ast.FunctionDef


def trees(rooms: tuple[str, ...] = ROOMS) -> Iterator[tuple[str, ast.Module]]:
    """Every Python file of the rooms: its path from the root, and its tree."""
    for room in rooms:
        for file in sorted((ROOT / room).rglob("*.py")):
            yield str(file.relative_to(ROOT)), ast.parse(file.read_text())


def text(node: ast.expr) -> str | None:
    """A text with VARIES for what is put into it; None for what is no text in the source."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if not isinstance(node, ast.JoinedStr):
        return None
    parts = (str(part.value) if isinstance(part, ast.Constant) else VARIES for part in node.values)
    return "".join(parts)


def functions(tree: ast.AST) -> Iterator[Function]:
    """All functions and methods."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def _calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and name == called(node):
            yield node


def called(call: ast.Call) -> str:
    """The name of what is called, without what is before its dot."""
    function = call.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _logging(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "log"
        and node.func.attr in LEVELS
    )


def events() -> tuple[dict[str, str], list[str]]:
    """The level of each event of the log; and where the text of one is not in its call.

    An event that a function is given is looked for in its calls in the same file.
    """
    found: dict[str, str] = {}
    elsewhere: list[str] = []
    for file, tree in trees():
        for function in functions(tree):
            given = [argument.arg for argument in function.args.args if argument.arg != "self"]
            for node in ast.walk(function):
                if not _logging(node):
                    continue
                assert isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
                first, level = node.args[0], node.func.attr
                if isinstance(first, ast.Name) and first.id in given:
                    at = given.index(first.id)
                    said = [text(one.args[at]) for one in _calls(tree, function.name)]
                else:
                    said = [text(first)]
                for one in said:
                    if one is None:
                        elsewhere.append(f"{file}: {ast.unparse(first)}")
                    else:
                        found[one] = level
    return found, elsewhere


def notes() -> set[str]:
    """The notes of `ready` and `status`: all texts that get there by calls and by `self.NAME`.

    A name that is called stands for every function of this name: which is meant is not known here.
    """
    rooms = dict(trees(("daemon", "protocols", "xdp", "tc", "kernel")))
    known: dict[str, list[tuple[ast.Module, Function]]] = {}
    for tree in rooms.values():
        for function in functions(tree):
            returns = ast.unparse(function.returns) if function.returns else ""
            if returns in _NOTE_TYPES:
                known.setdefault(function.name, []).append((tree, function))
    waiting: list[tuple[ast.Module, ast.AST]] = [
        (rooms[file], function)
        for file, name in NOTES_FROM.items()
        for function in functions(rooms[file])
        if function.name == name
    ]
    assert len(waiting) >= len(NOTES_FROM)
    found: set[str] = set()
    done: set[int] = set()
    while waiting:
        tree, part = waiting.pop()
        if id(part) in done:
            continue
        done.add(id(part))
        for node in _said(part):
            if isinstance(node, ast.Call):
                name = called(node)
                waiting += () if name in TRAPS else known.get(name, ())
            elif isinstance(node, ast.Attribute):
                waiting += ((tree, value) for value in _kept(tree, node.attr))
            elif (one := text(node)) and len(one) >= _SHORTEST:
                found.add(one)
    return found


def _kept(tree: ast.AST, name: str) -> Iterator[ast.expr]:
    """What a file puts into `self.NAME`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(_is_own(one, name) for one in node.targets):
            yield node.value


def _is_own(node: ast.AST, name: str = "") -> bool:
    return (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
        and name in ("", node.attr)
    )


def _said(part: ast.AST) -> Iterator[ast.expr]:
    """Texts, calls and `self.NAME` of a function or an expression.

    Without those that are put into a text, and without variables that are only put into texts.
    """
    whole = set(_read_whole(part))
    waiting: list[ast.AST] = [part]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Function):
            waiting += node.body[ast.get_docstring(node) is not None :]
            continue
        if (targets := _variables(node)) and not targets & whole:
            continue
        if isinstance(node, ast.JoinedStr | ast.Constant | ast.Call) or _is_own(node):
            assert isinstance(node, ast.expr)
            yield node
        if not isinstance(node, ast.JoinedStr):
            waiting += ast.iter_child_nodes(node)


def _read_whole(part: ast.AST) -> Iterator[str]:
    """The variables that are read other than to be put into a text."""
    waiting = [part]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        if not isinstance(node, ast.JoinedStr):
            waiting += ast.iter_child_nodes(node)


def _variables(node: ast.AST) -> set[str]:
    """The variables that a statement, or a comprehension, gives values to."""
    if not isinstance(node, ast.Assign | ast.comprehension):
        return set()
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {part.id for one in targets for part in ast.walk(one) if isinstance(part, ast.Name)} - {
        "self"
    }


def texts() -> set[str]:
    """Every text in the code, with VARIES."""
    nodes = (node for _, tree in trees() for node in ast.walk(tree))
    found = (text(node) for node in nodes if isinstance(node, ast.Constant | ast.JoinedStr))
    return {one for one in found if one}
