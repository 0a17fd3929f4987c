# SPDX-License-Identifier: Apache-2.0
"""Hosts for the tests of programs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from carom.daemon.fastpath import FastPath
from carom.include.abi import Fast
from prog.host import Host


@pytest.fixture
def host(load_fastpath: Callable[..., FastPath]) -> Host:
    """A host with an LRU cache that has room for all that a test fills."""
    return Host(load_fastpath(policy="lru", test_clock=True))


@pytest.fixture
def bouncer(host: Host) -> Host:
    """A host that bounces."""
    host.serve(Fast.BOUNCE)
    return host
