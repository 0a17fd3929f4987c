# SPDX-License-Identifier: Apache-2.0
"""On which line of a TOML text each value is.

Python's own parser (tomllib) reads the values and knows no lines. This one finds the lines alone,
in a text that tomllib has taken, so it need not tell right from wrong. The language:
https://toml.io/en/v1.0.0
"""

from __future__ import annotations

import re
import tomllib
from typing import Any, NamedTuple

Path = tuple[str | int, ...]
"""The way to a value: names in tables, and numbers from 0 on in arrays."""


class Located(NamedTuple):
    """A text's values, and the line of each by its path."""

    values: dict[str, Any]
    lines: dict[Path, int]


class NotTOML(ValueError):
    """A text that is not TOML: what is wrong, and on which line."""

    def __init__(self, why: str, line: int):
        super().__init__(why)
        self.line = line


_WHERE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_INT_MAX = 2**63
"""TOML's integers have 64 bits, and Python's any number."""


def located(text: str) -> Located:
    """The values of a TOML text, and their lines. Raises NotTOML."""
    text = text.replace("\r\n", "\n")
    try:
        values = tomllib.loads(text)
        found = Located(values, _Lines(text).lines)
    except RecursionError as error:
        raise NotTOML("values are nested too deeply", 1) from error
    except tomllib.TOMLDecodeError as error:
        where = _WHERE.search(str(error))
        line = int(where[1]) if where and where[1] else 1 + text.rstrip().count("\n")
        raise NotTOML(_WHERE.sub("", str(error)), line) from error
    except ValueError as error:  # a date that is none, a number of thousands of digits
        raise NotTOML(str(error), 1) from error
    _check(found)
    return found


def _check(found: Located) -> None:
    """Refuse what TOML has and nothing here takes. Raises NotTOML."""
    left: list[tuple[Path, Any]] = [((), found.values)]
    while left:
        path, value = left.pop()
        if isinstance(value, dict):
            left += [((*path, name), inner) for name, inner in value.items()]
        elif isinstance(value, list):
            left += [((*path, number), inner) for number, inner in enumerate(value)]
        elif isinstance(value, int) and not -_INT_MAX <= value < _INT_MAX:
            raise NotTOML(f"{written(path)} is a number of more than 64 bits", found.lines[path])
        elif isinstance(value, str) and "\0" in value:
            raise NotTOML(f"{written(path)} has a NUL character", found.lines[path])


def written(path: Path) -> str:
    """A path as messages show it: `service[1].ttl`."""
    words = ""
    for part in path:
        if isinstance(part, int):
            words += f"[{part}]"
        else:
            plain = re.fullmatch(r"[A-Za-z0-9_-]{1,60}", part)
            name = part if plain else repr(part if len(part) <= 60 else f"{part[:60]}...")
            words += f".{name}" if words else name
    return words


_TOKEN = re.compile(
    r"""
      (?P<blank> [ \t]+ | \#[^\n]* )
    | (?P<text> \"{3} (?: \\. | [^\\] )*? \"{3,5} | '{3} .*? '{3,5}
              | \" (?: \\. | [^"\\] )* \" | '[^']*' )
    | (?P<mark> [\[\]{}=,.\n] )
    | (?P<bare> [^\s\[\]{}=,.\#"']+ )
    """,
    re.VERBOSE | re.DOTALL,
)


class _Lines:
    """Finds the lines in a text that is TOML."""

    def __init__(self, text: str):
        self.lines: dict[Path, int] = {}
        self._arrays: dict[Path, int] = {}
        """How many tables each array of tables has so far."""
        self._tokens: list[tuple[str, int]] = []
        line = 1
        for token in _TOKEN.finditer(text):
            if token.lastgroup != "blank":
                self._tokens.append((token[0], line))
            line += token[0].count("\n")
        self._tokens.append(("", line))
        self._at = 0
        table: Path = ()
        while self._skip("\n"):
            table = self._head() if self._next == "[" else self._pair(table)

    @property
    def _next(self) -> str:
        return self._tokens[self._at][0]

    def _take(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1][0]

    def _skip(self, marks: str) -> str:
        """Leave out what is one of these; what is next then: "" at the end."""
        while self._next and self._next in marks:
            self._at += 1
        return self._next

    def _key(self, end: str) -> list[str]:
        parts = list[str]()
        while (token := self._take()) != end:
            if token[0] in "\"'":
                parts += tomllib.loads(f"{token} = 0")
            elif token != ".":
                parts.append(token)
        return parts

    def _head(self) -> Path:
        """A table's, or that of one in an array of tables."""
        line = self._tokens[self._at][1]
        path: Path = ()
        self._skip("[")
        in_array = self._tokens[self._at - 2 : self._at] == [("[", line)] * 2
        *above, name = self._key("]")
        self._skip("]")
        for part in above:
            path = self._found((*path, part), line)
            if path in self._arrays:
                path = (*path, self._arrays[path] - 1)
        path = self._found((*path, name), line)
        if in_array:
            self._arrays[path] = self._arrays.get(path, 0) + 1
            path = self._found((*path, self._arrays[path] - 1), line)
        return path

    def _found(self, path: Path, line: int) -> Path:
        self.lines.setdefault(path, line)
        return path

    def _pair(self, table: Path) -> Path:
        line, path = self._tokens[self._at][1], table
        for part in self._key("="):
            path = self._found((*path, part), line)
        self._value(path)
        return table

    def _value(self, path: Path) -> None:
        if self._next == "[":
            self._take()
            number = 0
            while self._skip("\n,") != "]":
                self._found((*path, number), self._tokens[self._at][1])
                self._value((*path, number))
                number += 1
            self._take()
        elif self._next == "{":
            self._take()
            while self._skip(",") != "}":
                self._pair(path)
            self._take()
        else:
            self._take()
            while self._next and self._next not in ",]}\n":
                self._take()
