# SPDX-License-Identifier: Apache-2.0
"""The compiler's result, before it is loaded: programs and maps.

It holds no secret. A define that is a `Secret` is compiled as a number that stands for it, and each
start puts its own secret in that place.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import msgspec

from carom.kernel.libbpf import MapShape

_INSTRUCTION = struct.Struct("=BBhi")
_WIDE, _CALL = 0x18, 0x85  # linux/bpf.h: BPF_LD | BPF_IMM | BPF_DW, and BPF_JMP | BPF_CALL
_MAP = 1  # BPF_PSEUDO_MAP_FD
_STANDS_FOR = 0xCA201A75
"""The upper half of a number that stands for a secret; the lower half is the secret's index."""


class Secret(int):
    """The value of a define, 64 bits, that is different at each start."""


class Program(msgspec.Struct, frozen=True):
    """Instructions, and by index those that take a map's descriptor or a secret."""

    code: bytes
    maps: dict[int, str]
    secrets: dict[int, str]

    def linked(self, maps: Mapping[str, int], secrets: Mapping[str, int]) -> bytes:
        """The instructions with these maps' descriptors and these secrets put in."""
        code = bytearray(self.code)
        for at, name in self.maps.items():
            _put(code, at, maps[name])
        for at, name in self.secrets.items():
            _put(code, at, secrets[name])
        return bytes(code)


class Compiled(msgspec.Struct, frozen=True):
    """All programs and maps of a module, by name.

    `btf` describes the types of the maps' keys and values; None where the kernel does not show it.
    """

    license: str
    btf: bytes | None
    maps: dict[str, MapShape]
    programs: dict[str, Program]


def stand_in(index: int) -> str:
    """A C expression that stands for secret `index`: a number whose value clang does not know.

    It is not `volatile`, so clang may merge equal ones.
    """
    number = f"{_STANDS_FOR:#x}{index:08x}"
    return f'({{unsigned long long v;asm("%0 = {number} ll":"=r"(v));v;}})'


def parse(code: bytes, maps: Mapping[int, str], secrets: tuple[str, ...]) -> Program:
    """A program from its instructions, the names of its maps by descriptor, and its secrets' order.

    Raises ValueError for instructions that could not be loaded a second time.
    """
    map_names, stand_ins = dict[int, str](), dict[int, str]()
    instructions = list(_INSTRUCTION.iter_unpack(code))
    at = 0
    while at < len(instructions):
        operation, registers, _, number = instructions[at]
        source = registers >> 4
        if operation == _WIDE:
            upper = instructions[at + 1][3] & 0xFFFFFFFF
            if source == _MAP:
                map_names[at] = maps[number]
            elif source:
                raise ValueError(f"instruction {at} refers to what is no map: {source}")
            elif upper == _STANDS_FOR and 0 <= number < len(secrets):
                stand_ins[at] = secrets[number]
            at += 1
        elif operation == _CALL and source:
            raise ValueError(f"instruction {at} calls what is no helper of the kernel's: {source}")
        at += 1
    return Program(code, map_names, stand_ins)


def _put(code: bytearray, at: int, number: int) -> None:
    """Make the wide instruction at `at`, which takes two places, load a number."""
    for place, half in ((at, number), (at + 1, number >> 32)):
        struct.pack_into("=I", code, place * _INSTRUCTION.size + 4, half & 0xFFFFFFFF)
