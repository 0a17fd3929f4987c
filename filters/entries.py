# SPDX-License-Identifier: Apache-2.0
"""What is in the maps of a user's own filter: entries in words and numbers."""

from __future__ import annotations

import collections
import heapq
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from carom.filters.declared import Declared, metrics
from carom.kernel import libbpf
from carom.kernel.values import Shown, bounded, summed

WALK_MAX = 50_000
"""Entries that are looked at in one go, of all maps together: they take a quarter of a second, in
which a Python server has half of its CPU."""

_ZEROS = 20
"""Elements of an array that are zero, and looked at in the time of one that is not."""

_SHORT = 64
"""An array of so many elements is shown with those that are zero, too."""


class Row(NamedTuple):
    """An entry: what its members say, in the order of `Declared.columns`."""

    key: list[Shown]
    value: list[Shown]


class Table(NamedTuple):
    """Entries of a map; `left_out` more are not shown, or at least so many if not `all_seen`."""

    map: Declared
    rows: list[Row]
    left_out: int
    all_seen: bool

    def words(self) -> dict[str, Any]:
        """The same for whoever asks over the control socket."""
        keys, values = self.map.columns
        return {
            **self.map.words(),
            "metrics": metrics(self.map),
            "entries": [
                {
                    "key": dict(zip(keys, row.key, strict=True)),
                    "value": dict(zip(values, row.value, strict=True)),
                }
                for row in self.rows
            ],
            "left_out": self.left_out,
            "all_seen": self.all_seen,
        }


def read(descriptor: int, one: Declared, most: int, looks: int = WALK_MAX) -> Table:
    """Up to `most` entries of a map: of a counter or gauge those with the largest first numbers.

    Those whose keys are shown alike are one, with the sum. About `looks` entries are looked at.
    Raises OSError.
    """
    walk = _Walk(descriptor, one, looks)
    if one.kind == "print":
        chosen = list(itertools.islice(walk, most))
        collections.deque(walk, maxlen=0)  # the rest is counted
    else:
        first = one.values[:1]
        chosen = heapq.nlargest(most, walk, key=lambda entry: summed(first, entry.copies)[0])
    if one.is_array:
        chosen.sort(key=lambda entry: int.from_bytes(entry.key, "little"))
    rows = [row for entry in chosen for row in _rows(one, entry)]
    if one.kind != "print":
        rows = _merged(rows)
    return Table(one, rows, walk.count - len(chosen), walk.whole)


class _Entry(NamedTuple):
    """A key, and its value on each CPU that has its own, or its one value."""

    key: bytes
    copies: list[bytes]


class _Walk:
    """The entries of a map, once, how many came, and whether that were all; of a long array those
    that are not zero.

    Reading may raise OSError.
    """

    def __init__(self, descriptor: int, one: Declared, looks: int):
        self.count, self.whole = 0, True
        self._left = looks * _ZEROS
        self._entries = self._read(descriptor, one)

    def __iter__(self) -> Iterator[_Entry]:
        return self._entries

    def _read(self, descriptor: int, one: Declared) -> Iterator[_Entry]:
        shape, cpus = one.shape, libbpf.possible_cpus() if one.per_cpu else 1
        size = shape.value_size
        step = (size + 7) // 8 * 8 if one.per_cpu else size
        every = not one.is_array or shape.max_entries <= _SHORT
        for count, keys, values in libbpf.batches(descriptor, shape.key_size, step * cpus):
            if self._left <= 0:
                self.whole = not count
                return
            self._left -= count
            for at in range(count) if every or any(values) else ():
                begins = range(at * step * cpus, (at + 1) * step * cpus, step)
                copies = [bytes(values[begin : begin + size]) for begin in begins]
                if every or any(map(any, copies)):
                    self.count += 1
                    self._left -= _ZEROS - 1
                    yield _Entry(bytes(keys[at * shape.key_size :][: shape.key_size]), copies)


def _rows(one: Declared, entry: _Entry) -> Iterator[Row]:
    key = [leaf.read(entry.key) for leaf in one.keys]
    if one.per_cpu and one.kind == "print":
        for cpu, copy in enumerate(entry.copies):
            yield Row([*key, cpu], [leaf.read(copy) for leaf in one.values])
    else:
        yield Row(key, summed(one.values, entry.copies))


def _merged(rows: Iterable[Row]) -> list[Row]:
    found = dict[tuple[Shown, ...], Row]()
    for row in rows:
        before = found.get(tuple(row.key))
        if before:
            pairs = zip(before.value, row.value, strict=True)
            row = Row(row.key, [bounded(int(one) + int(two)) for one, two in pairs])
        found[tuple(row.key)] = row
    return list(found.values())


def record(one: Declared, data: bytes) -> dict[str, Shown]:
    """What a ring buffer's record says; one shorter than its type, in hexadecimal digits."""
    if not one.values or any(leaf.offset + leaf.size > len(data) for leaf in one.values):
        return {"value": f"0x{data.hex()}"}
    return {leaf.name or "value": leaf.read(data) for leaf in one.values}
