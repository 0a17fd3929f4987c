# SPDX-License-Identifier: Apache-2.0
"""A distribution's own kernel and clang: every program loads, far from the verifier's limit."""

from __future__ import annotations

from prog import test_verified


def test_all_protocols_at_once() -> None:
    test_verified.test_no_program_comes_near_the_limit(test_verified.LEARNED)
