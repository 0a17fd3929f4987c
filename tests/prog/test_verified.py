# SPDX-License-Identifier: Apache-2.0
"""How much the verifier looks at: each start waits for it, and it refuses beyond a million."""

from __future__ import annotations

import os

import pytest

from carom.daemon.fastpath import FastPath
from carom.kernel import libbpf
from carom.protocols import SPECS

VERIFIED_MAX = 100_000
"""Instructions that a program may take."""

COMMANDS = {"edge_stream": 190_000, "edge_commands": 145_000}
"""Those that read four commands in a run, one after the other: the verifier follows each."""

STARTS = {"dns": 560_000, "memcached": 870_000}
"""What all programs of a front take together, for requests over IPv4 and IPv6: most of the CPU time
that a start takes."""

LEARNED = [name for name, spec in SPECS.items() if spec.learned]
SETS = [[], *([name] for name in SPECS), LEARNED, list(SPECS)]


def leeway(compiler: str) -> int:
    """What the limits are multiplied by: they are for BCC with clang 14, and this verifier.

    Another clang may need twice as many, and the verifier of kernel 6.1 goes on from some places
    that a newer one has seen before: it follows one of them 226,000.
    """
    newer = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 12)
    return 1 if newer and "libLLVM-14" in compiler else 3


def walked_by(fastpath: FastPath) -> dict[str, int]:
    """The instructions that each program that is loaded took."""
    programs = fastpath._module._programs
    return {name: libbpf.verified_instructions(fd) for name, fd in programs.items()}


CASES = [*((names, {}) for names in SETS), (list(SPECS), {"max_hits": 1000, "shadow": 100})]
"""Protocols, and what may be asked for besides that makes programs longer."""


@pytest.mark.parametrize(("names", "more"), CASES, ids=lambda one: "+".join(one))
def test_no_program_comes_near_the_limit(names: list[str], more: dict[str, int]) -> None:
    edge = any(SPECS[name].learned for name in names)
    with FastPath(languages=[SPECS[name] for name in names], edge=edge, **more) as fastpath:
        most = leeway(fastpath._module._compiled.compiler)
        walked = walked_by(fastpath)
    assert walked
    limits = {name: most * COMMANDS.get(name, VERIFIED_MAX) for name in walked}
    assert {name: count for name, count in walked.items() if count > limits[name]} == {}


@pytest.mark.parametrize("name", STARTS)
def test_a_start_takes_no_more(name: str) -> None:
    with FastPath(languages=[SPECS[name]], edge=True) as fastpath:
        fastpath._hooked.follow({"ipv6"})
        most = leeway(fastpath._module._compiled.compiler)
        walked = sum(walked_by(fastpath).values())
    assert 0 < walked < most * STARTS[name]
