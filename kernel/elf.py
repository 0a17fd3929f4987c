# SPDX-License-Identifier: Apache-2.0
"""Compiled programs as a BPF object file, as libbpf, bpftool and llvm-objdump read them.

It is a relocatable file of 64 bits, little-endian (System V ABI, gabi; machine 247). By libbpf's
conventions it has a section a hook with its programs, `license`, `.maps`, `.rodata` with the
parameters, `.BTF`, and `.BTF.ext` if it is known what C they are of. What only carom asks is in a
note: a Label, and a checksum of the file.
"""

from __future__ import annotations

import bisect
import functools
import hashlib
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import NamedTuple

import msgspec

from carom.kernel import btf, btf_ext
from carom.kernel.compiled import Compiled, Hook, Origin, Program, check

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_IDENT = b"\x7fELF\2\1\1" + bytes(9)  # 64 bits, little-endian, version 1
_RELOCATABLE, _BPF = 1, 247
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL, _RELOCATION, _NOTE = struct.Struct("<IBBHQQ"), struct.Struct("<QQ"), struct.Struct("<III")
_PROGBITS, _SYMTAB, _STRTAB, _NOTES, _REL = 1, 2, 3, 7, 9
_WRITE, _ALLOC, _EXECUTE, _INFO_LINK = 1, 2, 4, 0x40
_OBJECT, _FUNCTION = 0x11, 0x12  # a symbol's kind, and that all files see it
_R_BPF_64_64 = 1  # the kernel's Documentation/bpf/llvm_reloc.rst

PLACES: dict[Hook, str] = {
    "xdp": "xdp",
    "tc": "tc",
    "cgroup": "cgroup/skb",
    "bind4": "cgroup/post_bind4",
    "bind6": "cgroup/post_bind6",
    "create": "cgroup/sock_create",
    "release": "cgroup/sock_release",
    "connect4": "cgroup/connect4",
    "connect6": "cgroup/connect6",
    "sendmsg4": "cgroup/sendmsg4",
    "sendmsg6": "cgroup/sendmsg6",
    "recvmsg4": "cgroup/recvmsg4",
    "recvmsg6": "cgroup/recvmsg6",
    "getpeername4": "cgroup/getpeername4",
    "getpeername6": "cgroup/getpeername6",
    "socket": "socket",
    "lookup": "sk_lookup",
}
"""The section of each hook's programs, by libbpf's names."""

_NAMESPACE, _LABEL_NOTE = b"carom\0\0\0", 1
_LABEL = ".note.carom"
_SUM = hashlib.sha256().digest_size


class Label(msgspec.Struct, frozen=True):
    """What an object is, and what it was made from: digests in hexadecimal digits."""

    name: str
    source: str
    """Of the C and what belongs to it (compiler.Source)."""
    abi: str
    """Of the layouts that userspace shares with the programs."""
    version: str
    compiler: str
    kernels: list[str]
    """Kernels on which the tests of that version passed."""


class Foreign(ValueError):
    """No object of carom's, or a damaged one."""


class _Section(NamedTuple):
    name: str
    kind: int
    flags: int
    data: bytes
    link: int = 0
    info: int = 0
    entry: int = 0
    align: int = 8


class _Symbol(NamedTuple):
    name: str
    kind: int
    section: int
    value: int
    size: int


class _Strings:
    """Names, each once, one after the other."""

    def __init__(self) -> None:
        self.data = bytearray(b"\0")
        self._places = {"": 0}

    def place(self, text: str) -> int:
        if text not in self._places:
            self._places[text] = len(self.data)
            self.data += text.encode() + b"\0"
        return self._places[text]


class _Writer:
    """The sections and symbols so far; section 0 is none, and so is symbol 0."""

    def __init__(self) -> None:
        self.sections: list[_Section] = []
        self.symbols: list[_Symbol] = []
        self.origins = defaultdict[str, list[tuple[int, Origin]]](list)
        """For each section where programs begin, and the C that they are of."""

    def section(self, section: _Section) -> int:
        self.sections.append(section)
        return len(self.sections)

    def programs(self, compiled: Compiled) -> dict[int, list[tuple[int, str]]]:
        """Put programs in; for each section where it takes what, by name."""
        taken = dict[int, list[tuple[int, str]]]()
        for hook, name in PLACES.items():
            programs = [(n, one) for n, one in compiled.programs.items() if one.hook == hook]
            if not programs:
                continue
            code = b"".join(program.code for _, program in programs)
            section = self.section(_Section(name, _PROGBITS, _ALLOC | _EXECUTE, code))
            taken[section], at = [], 0
            for symbol, program in programs:
                size = len(program.code)
                self.symbols.append(_Symbol(symbol, _FUNCTION, section, at, size))
                wants = sorted((program.maps | program.parameters).items())
                taken[section] += [(at + 8 * n, wanted) for n, wanted in wants]
                if program.origin:
                    self.origins[name].append((at, program.origin))
                at += size
        return taken

    def variables(self, section: _Section, variables: Iterable[btf.Variable]) -> None:
        index = self.section(section)
        for name, offset, size in variables:
            self.symbols.append(_Symbol(name, _OBJECT, index, offset, size))

    def file(self, relocations: dict[int, list[tuple[int, str]]]) -> bytes:
        """The whole, with what links sections and symbols to each other."""
        numbers = {symbol.name: number for number, symbol in enumerate(self.symbols, 1)}
        symtab = len(self.sections) + sum(1 for one in relocations.values() if one) + 1
        for section, wanted in relocations.items():
            data = b"".join(
                _RELOCATION.pack(at, numbers[name] << 32 | _R_BPF_64_64) for at, name in wanted
            )
            if data:
                name = ".rel" + self.sections[section - 1].name
                self.section(_Section(name, _REL, _INFO_LINK, data, symtab, section, 16))
        names = _Strings()
        table = bytes(_SYMBOL.size) + b"".join(
            _SYMBOL.pack(names.place(name), kind, 0, section, value, size)
            for name, kind, section, value, size in self.symbols
        )
        self.section(_Section(".symtab", _SYMTAB, 0, table, symtab + 1, 1, _SYMBOL.size))
        self.section(_Section(".strtab", _STRTAB, 0, bytes(names.data), align=1))
        return self._laid_out()

    def _laid_out(self) -> bytes:
        names = _Strings()
        sections = [*self.sections, _Section(".shstrtab", _STRTAB, 0, b"", align=1)]
        places = [names.place(section.name) for section in sections]
        sections[-1] = sections[-1]._replace(data=bytes(names.data))
        out, table = bytearray(_HEADER.size), bytearray(_SECTION.size)
        for place, (_, kind, flags, data, link, info, entry, align) in zip(
            places, sections, strict=True
        ):
            out += bytes(-len(out) % align)
            where = len(out), len(data)
            table += _SECTION.pack(place, kind, flags, 0, *where, link, info, align, entry)
            out += data
        out += bytes(-len(out) % 8)
        ident = _IDENT, _RELOCATABLE, _BPF, 1, 0, 0, len(out), 0, _HEADER.size, 0, 0
        count = len(sections) + 1
        out[: _HEADER.size] = _HEADER.pack(*ident, _SECTION.size, count, count - 1)
        return bytes(out + table)


def write(compiled: Compiled, label: Label) -> bytes:
    """The object file; the same for the same programs, byte for byte."""
    writer = _Writer()
    relocations = writer.programs(compiled)
    license = compiled.license.encode() + b"\0"
    writer.variables(
        _Section("license", _PROGBITS, _WRITE | _ALLOC, license, align=1),
        [btf.Variable("_license", 0, len(license))],
    )
    maps = btf.variables(compiled.btf, ".maps")
    room = bytes(sum(variable.size for variable in maps))
    writer.variables(_Section(".maps", _PROGBITS, _WRITE | _ALLOC, room), maps)
    cells = btf.variables(compiled.btf, ".rodata")
    if cells:
        writer.variables(_Section(".rodata", _PROGBITS, _ALLOC, bytes(8 * len(cells))), cells)
    writer.section(_Section(".BTF", _PROGBITS, 0, compiled.btf, align=4))
    if writer.origins:
        lines = btf_ext.written(writer.origins, compiled.btf)
        writer.section(_Section(".BTF.ext", _PROGBITS, 0, lines, align=4))
    said = bytes(_SUM) + msgspec.json.encode(label)
    note = _NOTE.pack(6, len(said), _LABEL_NOTE) + _NAMESPACE + said + bytes(-len(said) % 4)
    writer.section(_Section(_LABEL, _NOTES, 0, note, align=4))
    file = writer.file(relocations)
    return _sealed(file, Reader(file).note()[0])


def _sealed(file: bytes, at: int) -> bytes:
    """The file with its checksum in this place, made without the one that is there."""
    blank = file[:at] + bytes(_SUM) + file[at + _SUM :]
    return file[:at] + hashlib.sha256(blank).digest() + file[at + _SUM :]


class Reader:
    """The parts of an object file. All that it does may raise what BROKEN lists."""

    def __init__(self, file: bytes):
        header = _HEADER.unpack_from(file)
        where, (count, last) = header[6], header[-2:]
        self._file = file
        self._sections = [
            _SECTION.unpack_from(file, where + n * _SECTION.size) for n in range(count)
        ]
        names = self.data(last)
        self.names = [_string(names, section[0]) for section in self._sections]
        self._origins: btf_ext.Origins | None = None

    def data(self, number: int) -> bytes:
        at, size = self._sections[number][4:6]
        if at + size > len(self._file):
            raise ValueError("it is cut short")
        return self._file[at : at + size]

    def section(self, name: str) -> bytes:
        return self.data(self.names.index(name))

    def note(self) -> tuple[int, bytes]:
        """Where the note's checksum is, and its text."""
        section = self.section(_LABEL)
        name, size, kind = _NOTE.unpack_from(section)
        start = _NOTE.size + len(_NAMESPACE)
        if (name, kind) != (6, _LABEL_NOTE) or section[_NOTE.size : start] != _NAMESPACE:
            raise ValueError("its note is none of carom's")
        at = self._sections[self.names.index(_LABEL)][4] + start
        return at, section[start + _SUM : start + size]

    @functools.cached_property
    def symbols(self) -> list[_Symbol]:
        number = self.names.index(".symtab")
        names = self.data(self._sections[number][6])
        return [
            _Symbol(_string(names, name), kind, section, value, size)
            for name, kind, _, section, value, size in _SYMBOL.iter_unpack(self.data(number))
        ]

    def relocations(self, section: int) -> Iterator[tuple[int, int]]:
        """Where a section takes something: offset, and number of the symbol."""
        for number, one in enumerate(self._sections):
            if one[1] == _REL and one[7] == section:
                for at, what in _RELOCATION.iter_unpack(self.data(number)):
                    if what & 0xFFFFFFFF != _R_BPF_64_64 or at % 8:
                        raise ValueError("it is linked in a way that carom does not know")
                    yield at, what >> 32

    def functions(self, section: int) -> Iterator[tuple[str, int, int]]:
        """The programs in a section: name, where it begins, size in bytes."""
        for one in self.symbols:
            if one.section == section and one.kind == _FUNCTION:
                yield one.name, one.value, one.size

    def origin(self, section: str, at: int, size: int) -> Origin | None:
        """The C of a program, if it is known."""
        if self._origins is None and ".BTF.ext" in self.names:
            self._origins = btf_ext.Origins(self.section(".BTF.ext"), self.section(".BTF"))
        return self._origins.of(section, at, size) if self._origins else None

    def programs(self) -> Iterator[tuple[str, Program]]:
        symbols = self.symbols
        cells = {one.name for one in symbols if self.names[one.section] == ".rodata"}
        known = cells | {one.name for one in symbols if self.names[one.section] == ".maps"}
        for hook, name in PLACES.items():
            if name not in self.names:
                continue
            section = self.names.index(name)
            code, taken = self.data(section), defaultdict[str, dict[int, str]](dict)
            functions = sorted(self.functions(section), key=itemgetter(1))
            for at, number in self.relocations(section):
                function, begin, _ = functions[
                    bisect.bisect_right(functions, at, key=itemgetter(1)) - 1
                ]
                what = symbols[number].name
                if what not in known:
                    raise ValueError("a program takes what is neither a map nor a parameter")
                taken[function][(at - begin) // 8] = what
            for function, begin, size in functions:
                wants = taken[function]
                said = {at: what for at, what in wants.items() if what in cells}
                maps = {at: what for at, what in wants.items() if what not in cells}
                own, origin = code[begin : begin + size], self.origin(name, begin, size)
                check(program := Program(hook, own, maps, said, origin))
                yield function, program


BROKEN = (ValueError, LookupError, OverflowError, StopIteration, RuntimeError, struct.error)
"""What reading may raise where a file is not as `write` makes one."""


def label(file: bytes) -> Label:
    """What an object file says of itself. Raises Foreign for what carom did not write so."""
    if file[:4] != _IDENT[:4]:
        raise Foreign("it is no object file")
    if file[4:7] != _IDENT[4:7] or file[18:20] != _BPF.to_bytes(2, "little"):
        raise Foreign("it is an object file of another machine, not of BPF in little-endian order")
    try:
        reader = Reader(file)
        if _LABEL not in reader.names:
            raise Foreign("it was not made by carom")
        at, text = reader.note()
        if _sealed(file, at) != file:
            raise Foreign("it is damaged: its checksum is another one")
        return msgspec.json.decode(text.rstrip(b"\0"), type=Label)
    except Foreign:
        raise
    except (*BROKEN, msgspec.MsgspecError) as error:
        raise Foreign("it is damaged or cut short") from error


def read(file: bytes) -> tuple[Compiled, Label]:
    """The programs of an object file. Raises Foreign for what carom did not write so."""
    said = label(file)
    return contents(file, said), said


def contents(file: bytes, said: Label) -> Compiled:
    """The programs of an object file that says this of itself. Raises Foreign."""
    try:
        reader = Reader(file)
        types = reader.section(".BTF")
        compiled = Compiled(
            said.compiler,
            reader.section("license").rstrip(b"\0").decode(),
            types,
            btf.maps(types),
            dict(reader.programs()),
        )
        for name, program in compiled.programs.items():
            if missing := set(program.maps.values()) - compiled.maps.keys():
                raise Foreign(f"{name} takes maps that it has not: {', '.join(sorted(missing))}")
    except Foreign:
        raise
    except BROKEN as error:
        raise Foreign(f"it is damaged: {error}") from error
    return compiled


def _string(names: bytes, at: int) -> str:
    return names[at : names.index(b"\0", at)].decode()
