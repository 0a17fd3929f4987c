# SPDX-License-Identifier: Apache-2.0
"""The file that names routes: read and checked as a whole, before anything is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from carom import toml_lines
from carom.errors import ConfigurationError, UsageError
from carom.routes.route import MASK, Mark, Route, check_name
from carom.toml_lines import NotTOML

STANDARD = Path("/etc/carom/routes.toml")
"""The file that is read unless another one is named."""


class Routes(msgspec.Struct, frozen=True):
    """What a file says."""

    routes: dict[str, Route]
    marks: Mark = Mark()


def read(path: Path) -> Routes:
    """The routes of a TOML file.

    Raises ConfigurationError, with file, line and key of each thing that is wrong, and UsageError
    for a file that cannot be read.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"{path} cannot be read: {said}") from error
    try:
        found = toml_lines.located(text)
    except NotTOML as error:
        raise ConfigurationError(f"{path}:{error.line}: it is not TOML: {error}") from error
    reading = _Reading(path, found.lines)
    routes = reading.routes(dict(found.values))
    if reading.wrong:
        said = "\n".join(line for _, line in sorted(reading.wrong))
        raise ConfigurationError(said, hint="docs/routes.md shows such a file")
    return routes


class _Reading:
    """Collects what is wrong with a file."""

    def __init__(self, file: Path, lines: dict[toml_lines.Path, int]):
        self._file, self._lines = file, lines
        self.wrong: list[tuple[int, str]] = []

    def _is_wrong(self, path: toml_lines.Path, why: str) -> None:
        line = self._lines.get(path, 1)
        name = toml_lines.written(path)
        self.wrong.append((line, f"{self._file}:{line}: {name}: {why}"))

    def routes(self, values: dict[str, Any]) -> Routes:
        """What the values say; only what is right of them, if anything is wrong."""
        tables = self._table(("route",), values.pop("route", {}))
        marks = self._marks(self._table(("marks",), values.pop("marks", {})))
        for key in values:
            self._is_wrong((key,), "there is no such table; there are route.NAME and marks")
        found = {name: self._route(name, value) for name, value in tables.items()}
        return Routes({name: route for name, route in found.items() if route}, marks)

    def _table(self, at: toml_lines.Path, value: Any) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        self._is_wrong(at, "a table is needed")
        return {}

    def _route(self, name: str, value: Any) -> Route | None:
        before = len(self.wrong)
        at = ("route", name)
        try:
            check_name(name)
        except UsageError as error:
            self._is_wrong(at, str(error))
        values = self._table(at, value)
        fields = Route.__struct_fields__
        for key in values.keys() - {*fields}:
            self._is_wrong((*at, key), f"there is no such key; there are {', '.join(fields)}")
        if "via" not in values:
            self._is_wrong(at, 'it has no interface, via = "wg0"')
        route = self._converted(at, {key: one for key, one in values.items() if key in fields})
        return route if len(self.wrong) == before else None

    def _converted(self, at: toml_lines.Path, values: dict[str, Any]) -> Route:
        """Key by key, so that all that is wrong is told."""
        right = {"via": "none"}
        for key, value in values.items():
            try:
                msgspec.convert({"via": "none", key: value}, Route)
            except msgspec.ValidationError as error:
                self._is_wrong((*at, key), str(error).partition(" - at `$.")[0])
            else:
                right[key] = value
        route = msgspec.convert(right, Route)
        for said in route.wrong():
            key, _, why = said.partition(": ")
            self._is_wrong((*at, key), why)
        return route

    def _marks(self, values: dict[str, Any]) -> Mark:
        mask = values.get("mask", MASK)
        for key in values.keys() - {"mask"}:
            self._is_wrong(("marks", key), "there is no such key; there is mask")
        low = mask & -mask if type(mask) is int else 0
        if not low or not 0 < mask < 2**32 or mask // low & (mask // low + 1):
            self._is_wrong(("marks", "mask"), f"{mask!r} is no run of bits, as 0x3f000000 is one")
            return Mark()
        return Mark(mask)
