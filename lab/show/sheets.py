# SPDX-License-Identifier: Apache-2.0
"""Tables before they are drawn, for the terminal and for the report."""

from __future__ import annotations

from typing import NamedTuple

from rich import box
from rich.table import Table
from rich.text import Text

from carom.lab.show import words

Row = dict[str, str]
"""A row: texts by heading."""


class Sheet(NamedTuple):
    """A table's title and rows; all rows have the same headings, in the same order."""

    title: str
    rows: list[Row]
    names: int = 1
    """How many of the first columns name what a row is about; the others have figures."""
    grouped: bool = False
    """Whether rows with the same first column are one group, which names it once."""

    @property
    def headings(self) -> list[str]:
        """The columns' names."""
        return list(self.rows[0]) if self.rows else []

    def groups(self) -> list[list[Row]]:
        """The rows, group by group, without names that are the same in the row above."""
        first = [next(iter(row.values())) for row in self.rows]
        if not self.grouped or len(set(first)) == len(first):
            return [self.rows] if self.rows else []
        groups: list[list[Row]] = []
        above: Row = {}
        for row, name in zip(self.rows, first, strict=True):
            if not groups or name != next(iter(above.values())):
                groups.append([])
            groups[-1].append(self._unlike(above if groups[-1] else {}, row))
            above = row
        return groups

    def _unlike(self, above: Row, row: Row) -> Row:
        shown, same = dict(row), True
        for name in self.headings[: self.names]:
            same = same and row[name] == above.get(name)
            if same:
                shown[name] = ""
        return shown


def drawn(sheet: Sheet, width: int | None = None) -> Table:
    """A sheet for a terminal `width` columns wide, without its title; long cells are folded."""
    needed = sum(
        2 + max(len(name), *(len(row[name]) for row in sheet.rows)) for name in sheet.headings
    )
    apart = width is None or needed <= width
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1 if apart else 0, 0, 0))
    for number, name in enumerate(sheet.headings):
        table.add_column(
            text(name), justify="left" if number < sheet.names else "right", overflow="fold"
        )
    for number, rows in enumerate(sheet.groups()):
        if number:
            table.add_section()
        for row in rows:
            table.add_row(*(text(value) for value in row.values()))
    return table


def text(value: str) -> Text:
    """A string as plain text, without markup or control sequences."""
    return Text(words.plain(value))
