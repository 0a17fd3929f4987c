# SPDX-License-Identifier: Apache-2.0
"""Tests for a guest with its own kernel (`./run test-vm guest`); elsewhere they are skipped."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from guest.ends import Ends, joined
from netns import line as lines
from netns.line import Line

HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """They change settings of the kernel, and need its modules."""
    if "CAROM_GUEST" in os.environ:
        return
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="for a guest: sudo ./run test-vm guest"))


@pytest.fixture(scope="session")
def straight() -> Iterator[Line]:
    """A plain pair, for tests that leave it as they found it."""
    with lines.straight() as line:
        yield line


@pytest.fixture
def ends() -> Iterator[Ends]:
    """A client and a server, joined by two veths for one test alone."""
    with joined(2) as made:
        yield made


@pytest.fixture(scope="module")
def hidden_pointers() -> Iterator[None]:
    """Nobody sees the kernel's addresses, as on hardened hosts."""

    def set_to(value: str) -> None:
        subprocess.run(["sysctl", "-qw", f"kernel.kptr_restrict={value}"], check=True)

    set_to("2")
    yield
    set_to("0")
