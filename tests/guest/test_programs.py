# SPDX-License-Identifier: Apache-2.0
"""A distribution's own kernel: every program loads, far from the verifier's limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from carom.daemon.fastpath import FastPath
from carom.kernel.abi import TRACING
from carom.protocols import SPECS
from prog import test_verified

LEARNED = test_verified.LEARNED


@pytest.mark.parametrize(("names", "more"), test_verified.CASES[-2:])
def test_as_another_host_has_compiled_it(names: list[str], more: dict[str, int]) -> None:
    test_verified.test_no_program_comes_near_the_limit(names, more)


def test_a_trace() -> None:
    nothing = bytes(TRACING.size)
    with FastPath(languages=SPECS.values(), edge=True) as fastpath, fastpath.traced(nothing, 4096):
        pass


@pytest.mark.timeout(1800)  # on an emulated CPU
def test_as_its_own_clang_compiles_it(nothing_kept: Path) -> None:
    test_verified.test_no_program_comes_near_the_limit(LEARNED, {})
