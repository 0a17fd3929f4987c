# SPDX-License-Identifier: Apache-2.0
"""How much the verifier looks at: each start waits for it, and it refuses beyond a million."""

from __future__ import annotations

import pytest

from carom.daemon.fastpath import FastPath
from carom.kernel import libbpf
from carom.protocols import SPECS

VERIFIED_MAX = 350_000
"""Instructions that a program may take; with another clang it may be twice as many."""

LEARNED = [name for name, spec in SPECS.items() if spec.learned]


@pytest.mark.parametrize("names", [[], *([name] for name in LEARNED), LEARNED], ids="+".join)
def test_no_program_comes_near_the_limit(names: list[str]) -> None:
    with FastPath(languages=[SPECS[name] for name in names], edge=bool(names)) as fastpath:
        programs = fastpath._module._programs
        walked = {name: libbpf.verified_instructions(fd) for name, fd in programs.items()}
    assert walked
    assert {name: count for name, count in walked.items() if count > VERIFIED_MAX} == {}
