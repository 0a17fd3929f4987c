# SPDX-License-Identifier: Apache-2.0
"""The compiler's result, before it is loaded: programs and maps.

What a start says of itself, secrets among it, is not in it: those are parameters (parameter.h). In
their place are instructions that would read them from memory.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from carom.kernel.libbpf import MapShape

Hook = Literal[
    "xdp",
    "tc",
    "cgroup",
    "bind4",
    "bind6",
    "create",
    "release",
    "connect4",
    "connect6",
    "sendmsg4",
    "sendmsg6",
    "recvmsg4",
    "recvmsg6",
    "getpeername4",
    "getpeername6",
    "socket",
    "lookup",
]
"""Where a program runs."""


def hook_of(hooks: Mapping[str, Hook], program: str) -> Hook:
    """Where a program runs: `hooks` are by name; that of `""` is for all others, else XDP."""
    return hooks.get(program) or hooks.get("", "xdp")


_INSTRUCTION = struct.Struct("<BBhi")
_WIDE, _CALL = 0x18, 0x85  # linux/bpf.h: BPF_LD | BPF_IMM | BPF_DW, and BPF_JMP | BPF_CALL
MAP = 1  # BPF_PSEUDO_MAP_FD
_LOAD, _NOTHING = 0x79, bytes((0x05, *bytes(7)))  # BPF_LDX | BPF_MEM | BPF_DW; a jump to the next
_STANDS_FOR = 0xCA201A75
"""The upper half of a number that stands for a parameter; the lower half is its cell."""


class Refused(Exception):
    """The compiler's own error; `said` are the other lines of its output."""

    def __init__(self, reason: str, messages: list[str]):
        super().__init__(reason)
        self.said = messages


class Origin(msgspec.Struct, frozen=True):
    """The C of a program: its function's type in the BTF, and which lines its instructions are of.

    `lines` are the kernel's struct bpf_line_info, by number of instruction.
    """

    function: int
    lines: bytes


class Program(msgspec.Struct, frozen=True):
    """Instructions, and by index those that take a map's descriptor or a parameter's address: its
    name."""

    hook: Hook
    code: bytes
    maps: dict[int, str]
    parameters: dict[int, str]
    origin: Origin | None = None

    def linked(self, maps: Mapping[str, int], parameters: Mapping[str, int]) -> bytes:
        """The instructions with these maps' descriptors and these parameters put in.

        A parameter becomes a constant: to the verifier it is one anyway, and nothing has to be read
        at run time.
        """
        code = bytearray(self.code)
        for at, name in self.maps.items():
            put(code, at, MAP, maps[name])
        for at, name in self.parameters.items():
            put(code, at, 0, parameters[name])
            load = (at + 2) * _INSTRUCTION.size
            code[load : load + len(_NOTHING)] = _NOTHING
        return bytes(code)


class Compiled(msgspec.Struct, frozen=True):
    """All programs and maps of a module, by name.

    `compiler` names the libraries that made it; `btf` describes maps and parameters (btf.py).
    """

    compiler: str
    license: str
    btf: bytes
    maps: dict[str, MapShape]
    programs: dict[str, Program]


def parse(hook: Hook, code: bytes, maps: Mapping[int, str], parameters: Sequence[str]) -> Program:
    """A program from its instructions, the names of its maps by descriptor, and of all parameters.

    Raises ValueError for instructions that could not be loaded a second time.
    """
    linked = bytearray(code)
    map_names, said = dict[int, str](), dict[int, str]()
    instructions = list(_INSTRUCTION.iter_unpack(code))
    at = 0
    while at < len(instructions):
        operation, registers, _, number = instructions[at]
        source = registers >> 4
        if operation == _WIDE:
            upper = instructions[at + 1][3] & 0xFFFFFFFF
            if source == MAP:
                map_names[at] = maps[number]
                put(linked, at, 0, 0)
            elif source:
                raise ValueError(f"instruction {at} refers to what is no map: {source}")
            elif upper == _STANDS_FOR and 0 <= number < len(parameters):
                said[at] = parameters[number]
                put(linked, at, 0, 0)
            at += 1
        elif operation == _CALL and source:
            raise ValueError(f"instruction {at} calls what is no helper of the kernel's: {source}")
        at += 1
    program = Program(hook, bytes(linked), map_names, said)
    check(program)
    return program


def check(program: Program) -> None:
    """Raises ValueError unless each map and parameter is where instructions take one."""
    size = _INSTRUCTION.size
    for at in (*program.maps, *program.parameters):
        wide = program.code[at * size : (at + 2) * size]
        if len(wide) < 2 * size or wide[0] != _WIDE or wide[1] > 0x0F or any(wide[2:]):
            raise ValueError(f"instruction {at} takes neither a map nor a parameter")
    for at in program.parameters:
        register = program.code[at * size + 1]
        load = bytes((_LOAD, register | register << 4, *bytes(6)))
        if program.code[(at + 2) * size : (at + 3) * size] != load:
            raise ValueError(f"instruction {at} is a parameter's, and nothing reads it")


def put(code: bytearray, at: int, kind: int, number: int) -> None:
    """Make the wide instruction at `at`, which takes two places, load a number of this kind."""
    first = at * _INSTRUCTION.size
    code[first + 1] = code[first + 1] & 0x0F | kind << 4
    for place, half in ((first, number), (first + _INSTRUCTION.size, number >> 32)):
        struct.pack_into("<I", code, place + 4, half & 0xFFFFFFFF)
