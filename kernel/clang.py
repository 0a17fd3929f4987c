# SPDX-License-Identifier: Apache-2.0
"""The one module that talks to a clang of its own, the other compiler beside BCC (compiler.py).

It takes the same C with `include/clang.h` before it, needs no privilege and makes no map. What it
knows more is which lines of C instructions are of: the verifier's log shows them.
"""

from __future__ import annotations

import mmap
import re
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from carom.errors import CompileError
from carom.kernel import btf, elf, forked
from carom.kernel.compiled import MAP, Compiled, Hook, Program, Refused, hook_of, parse, put
from carom.kernel.libbpf import MapShape
from carom.kernel.signals import stop_if_asked

FLAGS = ("-target", "bpfel", "-mcpu=v2", "-O2", "-g", "-Wno-everything")
"""v3 has instructions on 32 bits, by which the verifier follows some programs four times as far."""

_HERE = (
    "-fdebug-compilation-dir=.",  # no object says where it was made
    *("-idirafter", f"/usr/include/{sysconfig.get_config_var('MULTIARCH')}"),  # Debian's asm/*.h
    f"-DPAGE_SIZE={mmap.PAGESIZE}",
)
_TEXT, _SUFFIX = ".text", "_map"
"""The section that all programs are in; what clang.h appends to a map's name."""

_TYPED = (1, 2, 5, 6, 9, 10, 11, 24)
"""Kinds of maps that the kernel takes types for: hashes, arrays, tries, storage on sockets."""


def compiled(
    clang: str, text: str, flags: list[str], hooks: Mapping[str, Hook], parameters: Sequence[str]
) -> Compiled:
    """What this clang makes of a text. Raises CompileError, Refused."""
    try:
        with TemporaryDirectory(prefix="carom-") as folder:
            version = _run(Path(folder), clang, "--version").decode().splitlines()[0]
            (Path(folder) / "all.c").write_text(text.replace("#include <uapi/", "#include <"))
            _lay_out(text, Path(folder))
            made = ("all.c", "-c", "-o", "all.o")
            _run(Path(folder), clang, *_HERE, *flags, *made)
            file = (Path(folder) / "all.o").read_bytes()
    except FileNotFoundError as error:
        raise CompileError(
            f"there is no {clang} here", hint="it is in Debian's package clang"
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompileError(f"{clang} did not run to its end: {error}") from error
    try:
        return _taken(elf.Reader(file), version, hooks, parameters)
    except elf.BROKEN as error:
        raise CompileError(f"what {clang} made cannot be loaded: {error}") from error


def _run(folder: Path, *command: str) -> bytes:
    try:
        return forked.run(command, timeout=forked.COMPILING, folder=folder, meanwhile=stop_if_asked)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").splitlines()
        raise Refused(f"it ended with {error.returncode}", said) from error


def _lay_out(text: str, folder: Path) -> None:
    """Put the files there that a text was made of: clang looks lines up by file and number."""
    files = dict[str, dict[int, str]]()
    name, number = "", 0
    for line in text.splitlines():
        if begun := re.fullmatch(r'#line (\d+) "(.+)"', line):
            number, name = int(begun[1]), begun[2].lstrip("/")
        else:
            files.setdefault(name, {})[number] = line
            number += 1
    for name, lines in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines.get(n, "") for n in range(1, max(lines) + 1)))


def _taken(
    reader: elf.Reader, version: str, hooks: Mapping[str, Hook], parameters: Sequence[str]
) -> Compiled:
    """Raises what elf.BROKEN lists."""
    types = reader.section(".BTF")
    maps = {name.removesuffix(_SUFFIX): _shape(one) for name, one in btf.maps(types).items()}
    types = btf.without_sections(types)
    return Compiled(
        version,
        reader.section("license").rstrip(b"\0").decode(),
        btf.complete(types, maps, parameters, elf.PLACES.values()),
        maps,
        dict(sorted(_programs(reader, hooks, parameters))),  # as BCC has them
    )


def _shape(shape: MapShape) -> MapShape:
    return shape if shape.kind in _TYPED else shape._replace(key_type=0, value_type=0)


def _programs(
    reader: elf.Reader, hooks: Mapping[str, Hook], parameters: Sequence[str]
) -> Iterator[tuple[str, Program]]:
    section = reader.names.index(_TEXT)
    symbols = reader.symbols
    maps = {
        number: symbol.name.removesuffix(_SUFFIX)
        for number, symbol in enumerate(symbols)
        if reader.names[symbol.section : symbol.section + 1] == [".maps"]
    }
    code = bytearray(reader.data(section))
    for at, number in reader.relocations(section):
        put(code, at // 8, MAP, number)
    for name, at, size in reader.functions(section):
        hook = hook_of(hooks, name)
        program = parse(hook, bytes(code[at : at + size]), maps, parameters)
        yield name, msgspec.structs.replace(program, origin=reader.origin(_TEXT, at, size))
