# SPDX-License-Identifier: Apache-2.0
"""Which C the instructions are of: the `.BTF.ext` of an object file.

For the programs of each section it has their functions' types and the lines of C. The format is the
kernel's Documentation/bpf/btf.rst; parts of it that are not read here may follow.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from carom.kernel import btf
from carom.kernel.compiled import Origin
from carom.kernel.libbpf import FUNCTION_INFO, LINE_INFO

_SIZE, _SECTION = struct.Struct("<I"), struct.Struct("<II")  # of records; name, how many there are
_INSTRUCTION = 8


class Origins:
    """The C of what is in an object file's sections."""

    def __init__(self, data: bytes, types: bytes):
        """`types` is the file's BTF. Raises ValueError, IndexError or struct.error."""
        functions, lines = btf.halves(data)
        self._functions = dict(_sections(functions, FUNCTION_INFO, types))
        self._lines = dict(_sections(lines, LINE_INFO, types))

    def of(self, section: str, at: int, size: int) -> Origin | None:
        """That of the program which begins there, and has so many bytes; None for an unknown."""
        functions = [kind for where, kind in self._functions.get(section, ()) if where == at]
        lines = self._lines.get(section, [])
        first, end = (bisect_left(lines, one, key=itemgetter(0)) for one in (at, at + size))
        own = [((where - at) // _INSTRUCTION, *rest) for where, *rest in lines[first:end]]
        if not functions or not own:
            return None
        return Origin(functions[0], b"".join(LINE_INFO.pack(*line) for line in own))


def _sections(
    part: bytes, record: struct.Struct, types: bytes
) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    (size,) = _SIZE.unpack_from(part)
    if size != record.size:
        raise ValueError("lines of C are told in another way")
    at = _SIZE.size
    while at < len(part):
        name, count = _SECTION.unpack_from(part, at)
        at += _SECTION.size
        yield btf.name(types, name), list(record.iter_unpack(part[at : at + count * size]))
        at += count * size


def written(programs: Mapping[str, Sequence[tuple[int, Origin]]], types: bytes) -> bytes:
    """The bytes of it, from each section's programs and where they begin.

    The sections' names have to be in `types`, the file's BTF. Raises ValueError.
    """
    functions, lines = bytearray(), bytearray()
    for section, begun in programs.items():
        name = btf.place(types, section)
        own = b"".join(_moved(origin.lines, at) for at, origin in begun)
        functions += _SECTION.pack(name, len(begun))
        for at, origin in begun:
            functions += FUNCTION_INFO.pack(at, origin.function)
        lines += _SECTION.pack(name, len(own) // LINE_INFO.size) + own
    return btf.joined(
        _SIZE.pack(FUNCTION_INFO.size) + functions, _SIZE.pack(LINE_INFO.size) + lines
    )


def _moved(lines: bytes, at: int) -> bytes:
    return b"".join(
        LINE_INFO.pack(at + _INSTRUCTION * where, *rest)
        for where, *rest in LINE_INFO.iter_unpack(lines)
    )
