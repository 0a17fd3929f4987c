# SPDX-License-Identifier: Apache-2.0
"""Maps that userspace fills: what has no room is said; what goes, goes first."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable, Iterator

import pytest

from carom.daemon.clock import JiffiesClock
from carom.daemon.fastpath import FastPath, Room, counted_for, room_for
from carom.daemon.follower import Follower, Look
from carom.daemon.lease import LeaseKeeper
from carom.daemon.places import Place
from carom.errors import BPFError, UsageError
from carom.kernel import libbpf, netlink
from carom.kernel.abi import ENDPOINTS_MAX, SERVICES_MAX, packed_address

MAC = bytes.fromhex("020000000001")
FIRST = int(ipaddress.ip_address("198.18.0.0"))


def addresses(count: int, first: int = 0) -> list[ipaddress.IPv4Address]:
    return [ipaddress.IPv4Address(FIRST + first + n) for n in range(count)]


def place(n: int) -> Place:
    return Place(ipaddress.IPv4Address(FIRST + n), 53, 1, MAC, 1500)


@pytest.fixture
def fastpath(load_fastpath: Callable[..., FastPath]) -> Iterator[FastPath]:
    fastpath = load_fastpath(room=Room(own=70_000))
    yield fastpath
    fastpath.answer_at(())
    fastpath.refuse(())
    fastpath.allow(())


def holds(fastpath: FastPath, name: str, key: bytes, size: int) -> bool:
    return libbpf.lookup(fastpath.map(name), key, size) is not None


def test_own_addresses(fastpath: FastPath) -> None:
    """140,000 have room, twice what was asked for; what is too much leaves out no removal."""
    fastpath.refuse(addresses(100_000))
    assert holds(fastpath, "own_addresses", packed_address(addresses(1, 99_999)[0]), 1)
    with pytest.raises(BPFError, match=r"150,000 own addresses .* room for 140,000"):
        fastpath.refuse(addresses(150_000, 50_000))
    assert not holds(fastpath, "own_addresses", packed_address(addresses(1)[0]), 1)
    assert holds(fastpath, "own_addresses", packed_address(addresses(1, 99_999)[0]), 1)
    fastpath.refuse(addresses(10, 150_000))  # what was added before it was full is known
    assert holds(fastpath, "own_addresses", packed_address(addresses(1, 150_000)[0]), 1)
    assert not holds(fastpath, "own_addresses", packed_address(addresses(1, 99_999)[0]), 1)


def test_endpoints(fastpath: FastPath) -> None:
    fastpath.answer_at(place(n) for n in range(10))
    with pytest.raises(BPFError, match=f"room for {ENDPOINTS_MAX:,}"):
        fastpath.answer_at(place(n) for n in range(5, 5 + ENDPOINTS_MAX + 10))
    key, service = place(0).packed()
    assert not holds(fastpath, "services", key, len(service)), "it was to go"
    fastpath.withdraw([place(7)])
    assert not holds(fastpath, "services", place(8).packed()[0], len(service))
    assert holds(fastpath, "services", place(7).packed()[0], len(service))


def test_what_changes_needs_no_room(fastpath: FastPath) -> None:
    """A new MAC at every endpoint of a full map."""
    fastpath.answer_at(place(n) for n in range(ENDPOINTS_MAX))
    fastpath.answer_at(place(n)._replace(mtu=1400) for n in range(ENDPOINTS_MAX))


def test_prefixes(fastpath: FastPath) -> None:
    with pytest.raises(BPFError, match="allowed prefixes"):
        fastpath.allow(f"{one}/32" for one in addresses(ENDPOINTS_MAX + 1))


def test_room_for() -> None:
    assert room_for(3, 4096, "own addresses") == 4096
    assert room_for(5000, 4096, "own addresses") == 10_000
    with pytest.raises(UsageError, match="600,000 own addresses"):
        room_for(600_000, 4096, "own addresses")


def test_a_look_that_takes_long_stops_no_lease(fastpath: FastPath) -> None:
    """The thread that renews the lease does nothing else, however long others look."""
    looking, go_on, looks = threading.Event(), threading.Event(), []

    def look() -> None:
        looks.append(1)
        looking.set()
        go_on.wait(60)

    clock = JiffiesClock(fastpath.read_jiffies)
    follower = Follower([Look("a host of a thousand containers", look)], netlink.Changes())
    keeper = LeaseKeeper(fastpath, clock)
    try:
        assert looking.wait(60)
        first = fastpath.lease[0]
        for _ in range(2000):
            if fastpath.lease[0] > first:
                break
            threading.Event().wait(0.02)
        assert fastpath.lease[0] > first
        assert len(looks) == 1
    finally:
        go_on.set()
        keeper.close()
        follower.close()
    assert fastpath.lease[0] == 0


def test_a_failing_step(fastpath: FastPath) -> None:
    """It is named, tried again, and stops no other; events that come together are one look."""
    changes = netlink.Changes()
    done, again = threading.Event(), threading.Event()
    failures: list[int] = []
    others: list[int] = []

    def fail() -> None:
        failures.append(1)
        if len(failures) < 3:
            raise OSError(5, "no luck")
        again.set()

    def other() -> None:
        others.append(1)
        done.set()

    follower = Follower([Look("luck", fail), Look("other", other)], changes)
    try:
        assert done.wait(60)
        assert follower.failing == {"luck": "[Errno 5] no luck"}
        assert again.wait(60)
        for _ in range(500):
            if not follower.failing:
                break
            threading.Event().wait(0.02)
        assert follower.failing == {}
        assert len(others) == 1, "what did not fail is not tried again"
        for _ in range(100):
            follower.poke()
        for _ in range(2000):
            if len(others) > 1:
                break
            threading.Event().wait(0.02)
        assert 1 < len(others) < 50, "events that come together are one look"
    finally:
        follower.close()


def test_one_that_fails_keeps_no_other_from_being_looked_at() -> None:
    """Also where nothing tells of a change."""
    looked = threading.Semaphore(0)

    def fail() -> None:
        raise OSError(5, "no luck")

    looks = [Look("no luck", fail), Look("other", looked.release)]
    follower = Follower(looks, netlink.Changes(), anyway=0.1)
    try:
        for _ in range(5):
            assert looked.acquire(timeout=60)
        assert follower.failing
    finally:
        follower.close()


def test_what_is_compiled_is_the_same_for_any_few_services() -> None:
    assert {counted_for(one) for one in range(2, 33)} == {32}
    assert [counted_for(one) for one in (0, 1, 33, SERVICES_MAX)] == [0, 1, 64, SERVICES_MAX]
