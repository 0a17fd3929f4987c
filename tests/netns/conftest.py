# SPDX-License-Identifier: Apache-2.0
"""Namespaces, caroms that serve in them, and clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from netns import line as lines
from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient
from netns.nameserver import NSD
from netns.process import Carom
from netns.wire import Client


@pytest.fixture(scope="session")
def straight() -> Iterator[Line]:
    """One pair for all tests that leave it as they found it."""
    with lines.straight() as line:
        yield line


@pytest.fixture(scope="session")
def routed() -> Iterator[Line]:
    """One pair with a router in between."""
    with lines.routed() as line:
        yield line


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    """A pair for the tests of a file."""
    with lines.straight() as line:
        yield line


@pytest.fixture
def own_line() -> Iterator[Line]:
    """A pair for one test alone, which may do to it what it likes."""
    with lines.straight() as line:
        yield line


@pytest.fixture
def serve(straight: Line) -> Iterator[Callable[..., Carom]]:
    """Start `carom serve ARGUMENT...` on the pair; it ends with the test, and must end well."""
    with ExitStack() as stack:

        def start(*arguments: str, **options: object) -> Carom:
            return stack.enter_context(Carom(straight.server, *arguments, **options))  # type: ignore[arg-type]

        yield start


@pytest.fixture
def client(straight: Line) -> Iterator[Client]:
    """A client on the pair."""
    with Client(straight.client, straight.address) as client:
        yield client


@pytest.fixture(scope="module")
def memcached(straight: Line) -> Iterator[Memcached]:
    """A real one on the pair, for the tests of a file."""
    with Memcached(straight.server) as memcached:
        yield memcached


@pytest.fixture(scope="module")
def nsd(straight: Line, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NSD]:
    """The same of NSD."""
    with NSD(straight.server, tmp_path_factory.mktemp("nsd")) as nsd:
        yield nsd


@pytest.fixture
def udp(straight: Line) -> Iterator[UDPClient]:
    """A client of memcached on the pair."""
    with UDPClient(straight.client, straight.address) as client:
        yield client


@pytest.fixture
def tcp(straight: Line) -> Iterator[TCPClient]:
    """The same over TCP."""
    with TCPClient(straight.client, straight.address) as client:
        yield client
