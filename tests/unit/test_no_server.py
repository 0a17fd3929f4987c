# SPDX-License-Identifier: Apache-2.0
"""What is said of processes that carom may not look into."""

from __future__ import annotations

import pytest

from carom.daemon.no_server import hidden_words

ROOT, NOBODY, TRACER = "CapEff:\t000001ffffffffff\n", "CapEff:\t0\n", "CapEff:\t80000\n"


@pytest.mark.parametrize(("status", "way"), [(ROOT, False), (NOBODY, True), (TRACER, True)])
def test_who_may_not_look(status: str, way: bool) -> None:
    """Root is not told to be root."""
    said = hidden_words(["pid 7, one"], f"Name:\tcarom\n{status}Seccomp:\t0\n")
    assert ("that takes root" in said) is way


def test_how_many() -> None:
    assert hidden_words(["a"], ROOT).startswith("1 process may not be looked into (a): ")
    assert hidden_words(list("abcde"), ROOT).startswith(
        "5 processes may not be looked into (a; b; c; and 2 more): "
    )
