# SPDX-License-Identifier: Apache-2.0
"""Types in the kernel's format: what an object file says of its maps and variables.

The format is the kernel's Documentation/bpf/btf.rst. How maps are described is a convention of
libbpf's: each is a struct in `.maps`, whose members are pointers. One that stands for a number
points to an array of so many elements.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from carom.kernel.libbpf import MAP_TYPE_ARRAY_OF_MAPS, MapShape

_HEADER = struct.Struct("<HBBIIIII")
"""Magic, version, flags, length of this; where types begin and their length, the same of names."""
_MAGIC, _VERSION = 0xEB9F, 1
_TYPE = struct.Struct("<III")
"""Name, kind with the number of parts, size or another type."""
_INT, _PTR, _ARRAY, _STRUCT, _TYPEDEF, _VOLATILE, _CONST, _RESTRICT = 1, 2, 3, 4, 8, 9, 10, 11
_VAR, _DATASEC, _TAG = 14, 15, 18
_STRUCTS = (_STRUCT, 5)
"""Struct and union."""
_PARTS = {_STRUCT: 12, 5: 12, 6: 8, 13: 8, _DATASEC: 12, 19: 12}
_FIXED = {_INT: 4, _ARRAY: 12, _VAR: 4, 17: 4}
"""Bytes behind a type of each kind: for each of its parts, or once."""
_GLOBAL = 1  # the linkage of a variable

_NUMBERS = ("type", "key_size", "value_size", "max_entries", "map_flags")
"""The members of a map's struct that are numbers, in the order of a shape's fields."""


class Variable(NamedTuple):
    """Something in a section: where it is, and its size in bytes."""

    name: str
    offset: int
    size: int


class Type(NamedTuple):
    """One type: `other` is its size, or the type that it is made of; `rest` are its parts."""

    name: str
    kind: int
    other: int
    rest: bytes

    def parts(self) -> Iterator[tuple[int, int, int]]:
        """Three numbers for each part of a struct, an array or a section."""
        return _TYPE.iter_unpack(self.rest)


def complete(
    types: bytes, maps: Mapping[str, MapShape], cells: Sequence[str], names: Iterable[str] = ()
) -> bytes:
    """BTF that describes maps in `.maps`, and constants of 8 bytes each in `.rodata`, if any.

    `types` is BTF with types that the maps have, whose numbers stay; it is empty for none. What
    maps of maps hold is like the map by inner_name(). `names` are put in for place() to find.
    """
    writer = _Writer(types)
    for name in names:
        writer.name(name)
    writer.maps(maps)
    if cells:
        writer.cells(cells)
    return writer.written()


class _Writer:
    """Adds types to those that are there, by number from 1 on."""

    def __init__(self, before: bytes):
        self._types, self._names = bytearray(), bytearray(b"\0")
        self._count = 0
        if before:
            types, names = halves(before)
            self._types, self._names = bytearray(types), bytearray(names)
            self._count = sum(1 for _ in _walk(types))
        self._numbers = dict[int, int]()
        self._int = self._add("int", _INT, 4, struct.pack("<I", 1 << 24 | 32))  # signed, 32 bits
        self._index = self._add("__ARRAY_SIZE_TYPE__", _INT, 4, struct.pack("<I", 32))
        long = self._add("unsigned long long", _INT, 8, struct.pack("<I", 64))
        self._cell = self._add("", _CONST, self._add("", _VOLATILE, long))

    def _add(self, name: str, kind: int, other: int, rest: bytes = b"", parts: int = 0) -> int:
        self._types += _TYPE.pack(self.name(name), kind << 24 | parts, other) + rest
        self._count += 1
        return self._count

    def name(self, name: str) -> int:
        """Where a name is, which is put in."""
        if not name:
            return 0
        at = len(self._names)
        self._names += name.encode() + b"\0"
        return at

    def _array(self, element: int, count: int) -> int:
        return self._add("", _ARRAY, 0, _TYPE.pack(element, self._index, count))

    def _number(self, number: int) -> int:
        if number not in self._numbers:
            pointer = self._add("", _PTR, self._array(self._int, number))
            self._numbers[number] = pointer
        return self._numbers[number]

    def _struct(self, shape: MapShape, inner: MapShape | None) -> tuple[int, int]:
        """A map's struct: its number and its size in bytes."""
        members = {
            name: self._number(number)
            for name, number in zip(_NUMBERS, shape, strict=False)
            if number
        }
        for name, number in (("key", shape.key_type), ("value", shape.value_type)):
            if number:
                members[name] = self._add("", _PTR, number)
        size = 8 * len(members)
        if inner:
            pointer = self._add("", _PTR, self._struct(inner, None)[0])
            members["values"] = self._array(pointer, 0)  # takes no room
        rest = b"".join(
            _TYPE.pack(self.name(name), kind, 64 * at)
            for at, (name, kind) in enumerate(members.items())
        )
        return self._add("", _STRUCT, size, rest, len(members)), size

    def maps(self, maps: Mapping[str, MapShape]) -> None:
        variables, offset = list[tuple[int, Variable]](), 0
        for name, shape in maps.items():
            inner = maps[inner_name(name)] if shape.kind == MAP_TYPE_ARRAY_OF_MAPS else None
            kind, size = self._struct(shape, inner)
            variables.append((kind, Variable(name, offset, size)))
            offset += size
        self._section(".maps", variables)

    def cells(self, names: Sequence[str]) -> None:
        cells = (Variable(name, 8 * at, 8) for at, name in enumerate(names))
        self._section(".rodata", [(self._cell, cell) for cell in cells])

    def _section(self, name: str, variables: list[tuple[int, Variable]]) -> None:
        rest = b""
        for kind, variable in variables:
            number = self._add(variable.name, _VAR, kind, struct.pack("<I", _GLOBAL))
            rest += _TYPE.pack(number, variable.offset, variable.size)
        size = sum(variable.size for _, variable in variables)
        self._add(name, _DATASEC, size, rest, len(variables))

    def written(self) -> bytes:
        return joined(bytes(self._types), bytes(self._names))


def without_sections(btf: bytes) -> bytes:
    """The same types by the same numbers, but nothing in place of sections.

    Raises ValueError or struct.error.
    """
    types, names = halves(btf)
    kept, at = bytearray(), 0
    for _, (kind, _, rest) in _walk(types):
        size = _TYPE.size + len(rest)
        nothing = _TYPE.pack(0, _CONST << 24, 0)
        kept += nothing if kind == _DATASEC else types[at : at + size]
        at += size
    return joined(bytes(kept), names)


def inner_name(name: str) -> str:
    """The map that a map of maps' own are like: `chunks` holds such as `chunk`."""
    return name.removesuffix("s")


def variables(btf: bytes, section: str) -> list[Variable]:
    """What is in a section. Raises ValueError, IndexError or struct.error."""
    types = all_types(btf)
    return [
        Variable(types[number].name, offset, size)
        for number, offset, size in _section(types, section)
    ]


def maps(btf: bytes) -> dict[str, MapShape]:
    """The maps that BTF describes. Raises ValueError, IndexError or struct.error."""
    types = all_types(btf)
    _, names = halves(btf)
    maps = dict[str, MapShape]()
    for number, _, _ in _section(types, ".maps"):
        variable = types[number]
        members = {
            _string(names, name): types[kind] for name, kind, _ in types[variable.other].parts()
        }
        numbers = {name: _number(types, members.get(name)) for name in _NUMBERS}
        kinds = [members[name].other if name in members else 0 for name in ("key", "value")]
        for name, kind in zip(("key_size", "value_size"), kinds, strict=True):
            numbers[name] = numbers[name] or size(types, kind)
        maps[variable.name] = MapShape(*numbers.values(), *kinds)
    return maps


class Layouts:
    """How values of types lie in memory: two types with the same layout hold the same."""

    def __init__(self, btf: bytes):
        """Raises ValueError, IndexError or struct.error."""
        self._types = all_types(btf)
        _, self._names = halves(btf)

    def of(self, number: int, deep: int = 16) -> str:
        """A type's layout in words: `{u64 sequence@0, ...}64`; empty for no type."""
        one = self._types[number]
        if not number or one.kind == _PTR or not deep:
            return "" if not number else "pointer"
        if one.kind == _ARRAY:
            ((element, _, count),) = one.parts()
            return f"{self.of(element, deep - 1)}[{count}]"
        if one.kind in (_TYPEDEF, _VOLATILE, _CONST, _RESTRICT):
            return self.of(one.other, deep - 1)
        members = (
            f"{self.of(kind, deep - 1)} {_string(self._names, name)}@{offset}"
            for name, kind, offset in (one.parts() if one.kind in _STRUCTS else ())
        )
        return f"{one.name}{{{', '.join(members)}}}{one.other}"


def place(btf: bytes, name: str) -> int:
    """Where a name is among the names. Raises ValueError."""
    _, names = halves(btf)
    return names.index(b"\0" + name.encode() + b"\0") + 1


def name(btf: bytes, place: int) -> str:
    """The name in a place. Raises ValueError, UnicodeDecodeError."""
    return _string(halves(btf)[1], place)


def _section(types: Sequence[Type], name: str) -> Iterator[tuple[int, int, int]]:
    """The variables in a section: type, offset and size."""
    for one in types:
        if one.kind == _DATASEC and one.name == name:
            yield from one.parts()


def _number(types: Sequence[Type], pointer: Type | None) -> int:
    if pointer is None:
        return 0
    ((_, _, number),) = types[pointer.other].parts()
    return number


def size(types: Sequence[Type], number: int) -> int:
    """The bytes that a value of a type takes; 0 for no type. Raises LookupError, ValueError."""
    one = types[number]
    if one.kind == _PTR:
        return 8
    if one.kind == _ARRAY:
        ((element, _, count),) = one.parts()
        return count * size(types, element)
    if one.kind in (_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TAG):
        return size(types, one.other)
    return one.other


def halves(btf: bytes) -> tuple[bytes, bytes]:
    """The bytes of types and of names, or of the two parts of `.BTF.ext`.

    Raises ValueError or struct.error.
    """
    magic, version, _, size, types_at, types, names_at, names = _HEADER.unpack_from(btf)
    most = size + max(types_at + types, names_at + names)
    if (magic, version) != (_MAGIC, _VERSION) or most > len(btf):
        raise ValueError("these are no types")
    return btf[size + types_at :][:types], btf[size + names_at :][:names]


def joined(types: bytes, names: bytes) -> bytes:
    """The opposite of halves()."""
    sizes = len(types), len(names)
    header = _HEADER.pack(_MAGIC, _VERSION, 0, _HEADER.size, 0, sizes[0], sizes[0], sizes[1])
    return header + types + names


def _walk(types: bytes) -> Iterator[tuple[int, tuple[int, int, bytes]]]:
    """Each type: where its name is, and the rest of a Type."""
    at = 0
    while at < len(types):
        name, what, other = _TYPE.unpack_from(types, at)
        kind, parts = what >> 24 & 0x1F, what & 0xFFFF
        size = _FIXED.get(kind, 0) + _PARTS.get(kind, 0) * parts
        at += _TYPE.size
        yield name, (kind, other, types[at : at + size])
        at += size


def all_types(btf: bytes) -> list[Type]:
    """All types by number; the first stands for none. Raises what elf.BROKEN lists."""
    types, names = halves(btf)
    walked = (Type(_string(names, name), *rest) for name, rest in _walk(types))
    return [Type("", 0, 0, b""), *walked]


def _string(names: bytes, at: int) -> str:
    return names[at : names.index(b"\0", at)].decode()
