# SPDX-License-Identifier: Apache-2.0
"""Values of maps by their types: bytes in, numbers and words out, one for each member.

A type is BTF's (btf.py; the kernel's Documentation/bpf/btf.rst). Members of structs inside others
are named as `outer_inner`. What is not understood is shown in hexadecimal digits.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from carom.kernel import btf

Shown = int | str

LEAVES_MAX = 64
"""A type with more members than this is shown whole, in hexadecimal digits."""

_DEPTH_MAX, _STEPS_MAX = 16, 1000
_INT, _ARRAY, _STRUCT, _ENUM, _TYPEDEF, _ENUM64 = 1, 3, 4, 6, 8, 19
_ALIASES = (_TYPEDEF, 9, 10, 11, 18)  # and volatile, const, restrict, tags
_SIGNED, _BOOL = 1, 4  # encodings of an integer
_NOT_READ = (LookupError, ValueError, RecursionError, struct.error)
"""What reading types may raise that no compiler has made."""


class Leaf(NamedTuple):
    """A member that has no members: its name ("" for a value without members) and its place."""

    name: str
    offset: int
    size: int
    kind: Literal["unsigned", "signed", "word"]
    shown: Callable[[bytes], Shown]
    """What its bytes say."""

    def read(self, value: bytes) -> Shown:
        """What it is in a whole value."""
        return self.shown(value[self.offset : self.offset + self.size])


def text(data: bytes) -> str:
    """The text before the first NUL. No two texts are shown alike, and none commands a terminal.

    What is not printable, or not UTF-8, is an escape; a backslash is two.
    """
    letters = data.partition(b"\0")[0].decode(errors="surrogateescape")
    return "".join(map(_letter, letters))


def _letter(letter: str) -> str:
    code = ord(letter)
    if letter == "\\":
        return "\\\\"
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no part of a letter (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    if letter.isprintable():
        return letter
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _hex(data: bytes) -> str:
    return f"0x{data.hex()}"


def _unsigned(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _signed(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _big_endian(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _bool(data: bytes) -> str:
    return "true" if any(data) else "false"


def _ipv4(data: bytes) -> str:
    return str(ipaddress.IPv4Address(data))


def _ipv6(data: bytes) -> str:
    """An address; an IPv4 address that is mapped into IPv6 is shown as IPv4."""
    address = ipaddress.IPv6Address(data)
    return str(address.ipv4_mapped or address)


def _mac(data: bytes) -> str:
    return data.hex(":")


_BY_NAME: dict[str, tuple[int, Literal["unsigned", "word"], Callable[[bytes], Shown]]] = {
    "__be16": (2, "unsigned", _big_endian),
    "__be32": (4, "unsigned", _big_endian),
    "__be64": (8, "unsigned", _big_endian),
    "ipv4_addr": (4, "word", _ipv4),
    "in_addr": (4, "word", _ipv4),
    "ipv6_addr": (16, "word", _ipv6),
    "in6_addr": (16, "word", _ipv6),
    "address": (16, "word", _ipv6),
    "mac_addr": (6, "word", _mac),
}
"""Types that mean more than their bytes: size, kind, how they are shown."""


def number(size: int) -> Leaf | None:
    """A value of which only the size is known, as an unsigned number; None for other sizes."""
    return Leaf("", 0, size, "unsigned", _unsigned) if size in (1, 2, 4, 8) else None


def whole(size: int) -> list[Leaf]:
    """A value of which only the size is known."""
    return [Leaf("", 0, size, "word", _hex)]


class Types:
    """All types of an object file."""

    def __init__(self, data: bytes):
        """Raises what elf.BROKEN lists."""
        self._types = btf.all_types(data)
        self._names = btf.halves(data)[1]
        self._steps = 0

    def annotated(self, map_name: str) -> tuple[int, int]:
        """The types of a map's key and value, where the map itself has none (0: not known).

        They are members of a struct ____btf_map_NAME: BCC's annotation, and that of EVENTS in
        filter.h.
        """
        for one in self._types:
            if (one.kind, one.name) == (_STRUCT, f"____btf_map_{map_name}"):
                members = {self._name(name): kind for name, kind, _ in one.parts()}
                return members.get("key", 0), members.get("value", 0)
        return 0, 0

    def size(self, kind: int) -> int:
        """The bytes that a value of a type takes; 0 for no type, or one that is not understood."""
        try:
            return btf.size(self._types, kind)
        except _NOT_READ:
            return 0

    def leaves(self, kind: int, size: int) -> list[Leaf]:
        """The members of a type whose values have `size` bytes; without a type it is one.

        Members whose names begin with `pad` or an underscore fill gaps, and are left out.
        """
        self._steps = 0
        try:
            found = list(self._leaves(kind, "", 0, 0)) if kind else []
        except _NOT_READ:
            found = []
        fit = all(leaf.offset + leaf.size <= size for leaf in found)
        return found if found and fit and len(found) <= LEAVES_MAX else whole(size)

    def _leaves(self, number: int, name: str, at: int, depth: int) -> Iterator[Leaf]:
        """Raises what _NOT_READ lists."""
        self._steps += 1
        if depth > _DEPTH_MAX or self._steps > _STEPS_MAX:
            raise ValueError("a type is made of itself, or of too many")
        one = self._types[number]
        if one.name in _BY_NAME and one.kind in (_TYPEDEF, _STRUCT):
            size, kind, shown = _BY_NAME[one.name]
            if btf.size(self._types, number) == size:
                yield Leaf(name, at, size, kind, shown)
                return
        if one.kind in _ALIASES:
            yield from self._leaves(one.other, name, at, depth + 1)
        elif one.kind == _STRUCT:
            yield from self._members(one, name, at, depth)
        elif one.kind == _ARRAY:
            yield from self._elements(one, name, at, depth)
        else:
            yield self._single(one, number, name, at)

    def _members(self, one: btf.Type, before: str, at: int, depth: int) -> Iterator[Leaf]:
        for place, kind, where in one.parts():
            own, bits, offset = self._name(place), where >> 24, where & 0xFFFFFF
            if own.startswith(("pad", "_")):
                continue
            if own and not (own.isascii() and own.isidentifier()):
                raise ValueError(f"a member is called {own!r}")
            name = "_".join(filter(None, (before, own)))
            if offset % 8 and not bits:
                raise ValueError(f"{own} has no whole bytes")
            if bits:
                yield self._bits(kind, name, at * 8 + offset, bits)
            else:
                yield from self._leaves(kind, name, at + offset // 8, depth + 1)

    def _bits(self, kind: int, name: str, offset: int, bits: int) -> Leaf:
        """A member that takes some bits only."""
        low, mask = offset % 8, (1 << bits) - 1
        size = (low + bits + 7) // 8
        return Leaf(name, offset // 8, size, "unsigned", lambda data: _unsigned(data) >> low & mask)

    def _elements(self, one: btf.Type, name: str, at: int, depth: int) -> Iterator[Leaf]:
        ((element, _, count),) = one.parts()
        size = btf.size(self._types, element)
        bare = self._bare(element)
        if (bare.kind, bare.name) == (_INT, "char"):
            yield Leaf(name, at, count, "word", text)
        elif size == 1 or count > LEAVES_MAX or not count:
            yield Leaf(name, at, size * count, "word", _hex)
        else:
            for index in range(count):
                inner = "_".join(filter(None, (name, str(index))))
                yield from self._leaves(element, inner, at + index * size, depth + 1)

    def _bare(self, number: int) -> btf.Type:
        """The type behind other names of it."""
        one = self._types[number]
        for _ in range(_DEPTH_MAX):
            if one.kind not in _ALIASES:
                break
            one = self._types[one.other]
        return one

    def _single(self, one: btf.Type, number: int, name: str, at: int) -> Leaf:
        size = btf.size(self._types, number)
        if one.kind == _INT and size <= 8:
            encoding = struct.unpack("<I", one.rest)[0] >> 24
            if encoding & _BOOL:
                return Leaf(name, at, size, "word", _bool)
            if encoding & _SIGNED:
                return Leaf(name, at, size, "signed", _signed)
            return Leaf(name, at, size, "unsigned", _unsigned)
        if one.kind in (_ENUM, _ENUM64):
            return Leaf(name, at, size, "word", _worded(self._words(one, size)))
        return Leaf(name, at, size, "word", _hex)

    def _words(self, one: btf.Type, size: int) -> Mapping[int, str]:
        mask = (1 << size * 8) - 1
        if one.kind == _ENUM64:
            found = ((name, low | high << 32) for name, low, high in one.parts())
        else:
            found = ((name, value) for name, value in struct.iter_unpack("<II", one.rest))
        words: dict[int, str] = {}
        for name, value in found:
            words.setdefault(value & mask, text(self._name(name).encode()))
        return words

    def _name(self, place: int) -> str:
        return self._names[place : self._names.index(b"\0", place)].decode()


def _worded(words: Mapping[int, str]) -> Callable[[bytes], Shown]:
    """A number by its word; one without a word as it is."""

    def shown(data: bytes) -> str:
        number = _unsigned(data)
        return words.get(number, str(number))

    return shown


def summed(leaves: Sequence[Leaf], copies: Sequence[bytes]) -> list[Shown]:
    """The members of a value that each CPU has its own copy of: numbers are added up."""
    return [
        bounded(sum(int(leaf.read(copy)) for copy in copies))
        if leaf.kind != "word"
        else leaf.read(copies[0])
        for leaf in leaves
    ]


def bounded(number: int) -> int:
    """A sum, in the 64 bits that others can read."""
    return max(-(2**63), min(number, 2**64 - 1))
