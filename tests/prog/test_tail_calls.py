# SPDX-License-Identifier: Apache-2.0
"""Programs that go on with others: a call is a jump where its index is one constant."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from carom.daemon.fastpath import FastPath
from carom.kernel.compiled import Program
from carom.protocols import SPECS

INSTRUCTION = struct.Struct("<BBhi")
JUMPS = (5, 6)
"""Classes of instructions with a target (linux/bpf_common.h, bpf.h); calls and exits have none."""

CALL, EXIT = 0x85, 0x95
TAIL_CALL = (CALL, 0, 0, 12)
SET_INDEX = (0xB7, 3)
"""The index is in the third register."""

LEAST = {
    "xdp_fastpath": 4,
    "xdp_read": 2,
    "xdp_join": 2,
    "tc_fastpath": 4,
    "tc_read": 2,
    "tc_join": 2,
    "edge_ingress": 3,
    "edge_egress": 3,
    "edge_reply": 2,
}
"""Calls that the source has."""


def calls(program: Program) -> Iterator[bool]:
    """For each call of another program: is its index a constant on every way to it?"""
    code = list(INSTRUCTION.iter_unpack(program.code))
    targets = {
        at + 1 + offset
        for at, (kind, _, offset, _) in enumerate(code)
        if kind & 7 in JUMPS and kind not in (CALL, EXIT)
    }
    for at, instruction in enumerate(code):
        if instruction == TAIL_CALL:
            yield code[at - 1][:2] == SET_INDEX and at not in targets


@pytest.fixture(scope="module")
def programs() -> dict[str, Program]:
    with FastPath(languages=SPECS.values()) as fastpath:
        return dict(fastpath._module._compiled.programs)


@pytest.mark.parametrize("name", LEAST)
def test_each_call_has_an_index_of_its_own(programs: dict[str, Program], name: str) -> None:
    found = list(calls(programs[name]))
    assert len(found) >= LEAST[name]
    assert all(found)
