# SPDX-License-Identifier: Apache-2.0
"""Hosts for the tests of programs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from carom.daemon.fastpath import FastPath
from carom.kernel.abi import Fast, Hook
from prog.host import Host, Setting
from prog.packets import WIRES

SETTINGS = [Setting(hook, wire) for wire in WIRES for hook in Hook]
GENERIC = [Setting(Hook.XDP, wire, generic=True) for wire in WIRES]


@pytest.fixture
def host(load_fastpath: Callable[..., FastPath]) -> Host:
    """A host with an LRU cache that has room for all that a test fills: at XDP, for IPv4."""
    return Host(load_fastpath(policy="lru", test_clock=True))


@pytest.fixture
def bouncer(host: Host) -> Host:
    """A host that bounces."""
    host.serve(Fast.BOUNCE)
    return host


@pytest.fixture(params=SETTINGS, ids=str)
def any_host(request: pytest.FixtureRequest, load_fastpath: Callable[..., FastPath]) -> Host:
    """Such a host at either hook, for either IP, behind no, one or two VLAN tags."""
    return Host(load_fastpath(policy="lru", test_clock=True), request.param)


@pytest.fixture(params=SETTINGS + GENERIC, ids=str)
def any_summer(request: pytest.FixtureRequest, load_fastpath: Callable[..., FastPath]) -> Host:
    """Such a host, also where XDP is generic: to checksums that makes a difference."""
    return Host(load_fastpath(policy="lru", test_clock=True), request.param)


@pytest.fixture
def any_bouncer(any_summer: Host) -> Host:
    """One that bounces."""
    any_summer.serve(Fast.BOUNCE)
    return any_summer
