# SPDX-License-Identifier: Apache-2.0
"""What kernels before 6.8 refuse and newer ones do not: some ways into a loop.

The verifier walks through a program's instructions depth-first before it looks at values
(check_cfg of kernel/bpf/verifier.c, here as of Linux 6.1). An edge to an instruction that the walk
has begun with, and not ended, is a back-edge. Only a jump, with a condition or without, may be one
(visit_insn); what merely goes on into the head of a loop, or calls, is refused: "back-edge from
insn 7 to 4". Linux 6.8 (10e14e9652bf, "bpf: fix control-flow graph checking in privileged mode")
refuses none of them where it is privileged, and leaves it to the second pass whether loops end.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from carom.kernel.bpf import Module

_JUMPS = (0x05, 0x06)  # BPF_JMP, BPF_JMP32
_ALWAYS, _CALL, _EXIT = 0x00, 0x80, 0x90  # BPF_JA, BPF_CALL, BPF_EXIT
_OWN_FUNCTION = 1  # BPF_PSEUDO_CALL


class Instruction(NamedTuple):
    """`struct bpf_insn`, its registers in one byte: the destination's number is the low half."""

    code: int
    registers: int = 0
    offset: int = 0
    number: int = 0


class Edge(NamedTuple):
    """Where an instruction may go on, and whether kernel 6.1 lets it close a loop."""

    to: int
    may_loop: bool


_LAYOUT = struct.Struct("=BBhi")


def programs(module: Module) -> dict[str, list[Instruction]]:
    """The instructions of all programs of a module as clang made them, by name."""
    return {
        name: [Instruction(*one) for one in _LAYOUT.iter_unpack(program.code)]
        for name, program in module._compiled.programs.items()
    }


def edges(program: Sequence[Instruction], at: int) -> list[Edge]:
    """Where an instruction may go on, in the order of the walk.

    The second half of one that takes two places is one that goes on to the next, here and there.
    """
    code, registers, offset, number = program[at]
    operation = code & 0xF0
    if code & 0x07 not in _JUMPS:
        return [Edge(at + 1, False)]
    if operation == _EXIT:
        return []
    if operation == _CALL:
        own = registers >> 4 == _OWN_FUNCTION
        return [Edge(at + 1, False), *([Edge(at + number + 1, False)] if own else [])]
    jump = Edge(at + offset + 1, True)
    return [jump] if operation == _ALWAYS else [Edge(at + 1, True), jump]


def back_edges(program: Sequence[Instruction]) -> Iterator[tuple[int, int]]:
    """Those that kernel 6.1 refuses: from which instruction, and to which."""
    left = {0: iter(edges(program, 0))}  # begun with, and not ended, in this order
    ended = set[int]()
    while left:
        at, rest = next(reversed(left.items()))
        edge = next(rest, None)
        if edge is None:
            del left[at]
            ended.add(at)
        elif edge.to in left:
            if not edge.may_loop:
                yield at, edge.to
        elif edge.to not in ended:
            left[edge.to] = iter(edges(program, edge.to))


def refused(module: Module) -> dict[str, list[tuple[int, int]]]:
    """The programs of a module that kernel 6.1 refuses, with their back-edges."""
    found = {name: list(back_edges(one)) for name, one in programs(module).items()}
    return {name: edges for name, edges in found.items() if edges}
