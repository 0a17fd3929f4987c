# SPDX-License-Identifier: Apache-2.0
"""A distribution's own kernel: every program loads, far from the verifier's limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from prog import test_verified

LEARNED = test_verified.LEARNED


def test_as_another_host_has_compiled_it() -> None:
    test_verified.test_no_program_comes_near_the_limit(LEARNED)


@pytest.mark.timeout(1800)  # on an emulated CPU
def test_as_its_own_clang_compiles_it(nothing_kept: Path) -> None:
    test_verified.test_no_program_comes_near_the_limit(LEARNED)
