# SPDX-License-Identifier: Apache-2.0
"""What `./run test-vm` asks of its results, on made-up ones."""

from __future__ import annotations

import msgspec
from unit import fake_results

from carom.lab.model import Results
from vm.bars import check_bounce, check_cache


def of(name: str) -> Results:
    return getattr(fake_results, name)()


def test_results_as_they_should_be_pass() -> None:
    assert check_bounce(of("bounce")) == []
    assert check_cache(of("cache")) == []
