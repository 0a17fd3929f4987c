# SPDX-License-Identifier: Apache-2.0
"""Which sockets and processes are one server: policy on tables, nothing of this host."""

from __future__ import annotations

import ipaddress

import pytest

from carom.daemon.identity import receiver, servers, translated
from carom.daemon.sockets import Socket
from carom.kernel.links import At

A, B = ipaddress.ip_address("198.18.0.2"), ipaddress.ip_address("198.18.0.3")
SIX = ipaddress.ip_address("2001:db8::2")


def bound(
    address: str,
    *,
    inode: int = 1,
    uid: int = 0,
    ipv6_only: bool = False,
    port: int = 53,
    device: int = 0,
) -> Socket:
    """A UDP socket, whose cookie is its inode."""
    where = ipaddress.ip_address(address)
    return Socket(inode, inode, uid, False, True, where, port, ipv6_only, device)


def pids_of(held: set[int], parents: dict[int, int], programs: dict[int, str]) -> frozenset[int]:
    """The processes of the one server whose socket these hold."""
    (found,) = servers(
        [bound("0.0.0.0")], {1: held}, lambda pid: parents.get(pid, 0), lambda pid: programs[pid]
    )
    return found.pids


@pytest.mark.parametrize(
    ("held", "parents", "programs", "kept"),
    [
        ({10}, {10: 1}, {10: "d"}, {10}),
        ({1}, {}, {1: "init"}, {1}),
        ({1, 10}, {10: 1}, {1: "init", 10: "d"}, {10}),
        ({1, 10}, {10: 7, 7: 1}, {1: "init", 10: "d"}, {10}),
        ({5, 10, 11}, {10: 5, 11: 5, 5: 1}, {5: "super", 10: "d", 11: "d"}, {10, 11}),
        ({10, 11}, {11: 10, 10: 1}, {10: "d", 11: "d"}, {10, 11}),
        ({1, 10, 11}, {11: 10, 10: 1}, {1: "init", 10: "d", 11: "d"}, {10, 11}),
        ({10, 11}, {}, {10: "d", 11: "e"}, {10, 11}),
        ({10, 11}, {11: 10}, {10: "d", 11: "helper"}, {11}),
        (set(), {}, {}, set()),
    ],
    ids=[
        "alone",
        "at pid 1 alone",
        "pid 1 keeps it for another",
        "and for a grandchild",
        "a supervisor of two workers",
        "a server that forked",
        "one that pid 1 keeps it for",
        "strangers to each other",
        "a server that keeps it for a helper",
        "nobody",
    ],
)
def test_supervisors_are_no_part_of_a_server(
    held: set[int], parents: dict[int, int], programs: dict[int, str], kept: set[int]
) -> None:
    assert pids_of(held, parents, programs) == kept


def test_the_sockets_of_one_user_are_one_server() -> None:
    mine = [bound("198.18.0.2", inode=1), bound("198.18.0.3", inode=2)]
    other = bound("198.18.0.2", inode=3, uid=7)
    found = servers([*mine, other], {1: {10}, 2: {11}, 3: {12}}, lambda pid: 0, str)
    assert [(one.uid, one.sockets, one.pids) for one in found] == [
        (0, tuple(mine), {10, 11}),
        (7, (other,), {12}),
    ]


ETH0, ETH1, RED = 2, 3, 4


def test_who_receives_what() -> None:
    """The nearest socket: one of the very address, then one of its IP, then one of both."""
    all4, all6 = bound("0.0.0.0", inode=1), bound("::", inode=2)
    only6, exact = bound("::", inode=3, ipv6_only=True), bound("198.18.0.2", inode=4)
    assert receiver([all4, all6, exact], At(A, ETH0, 0)) == exact
    assert receiver([all4, all6, exact], At(B, ETH0, 0)) == all4
    assert receiver([all6, exact], At(B, ETH0, 0)) == all6
    assert receiver([only6, exact], At(B, ETH0, 0)) is None
    assert receiver([all4, only6], At(SIX, ETH0, 0)) == only6
    assert receiver([all4], At(SIX, ETH0, 0)) is None


def test_who_receives_by_a_device() -> None:
    """One that is bound to the link or its VRF comes before one that is bound to none."""
    anywhere, other = bound("0.0.0.0", inode=1), bound("0.0.0.0", inode=2, device=ETH1)
    here, red = bound("0.0.0.0", inode=3, device=ETH0), bound("0.0.0.0", inode=4, device=RED)
    assert receiver([anywhere, here, other, red], At(A, ETH0, 0)) == here
    assert receiver([anywhere, other], At(A, ETH0, 0)) == anywhere
    assert receiver([other, red], At(A, ETH0, 0)) is None
    assert receiver([anywhere, other, red], At(A, ETH0, RED)) == red


@pytest.mark.parametrize(
    ("addresses", "four", "six"),
    [
        (["198.18.0.2"], 0, 0),
        (["0.0.0.0"], 0, 0),
        (["::"], 0, 0),
        (["0.0.0.0", "::"], 0, 1),
        (["::", "0.0.0.0"], 1, 0),
        (["127.0.0.1", "::1", "198.18.0.2"], 2, 2),
        (["198.18.0.2", "2001:db8::2", "fe80::1"], 0, 1),
        (["198.18.0.2", "198.18.0.3"], None, None),
        (["198.18.0.2", "198.18.0.3", "2001:db8::2"], None, 2),
        (["198.18.0.2", "0.0.0.0"], None, None),
        (["198.18.0.2", "::"], None, 1),
        (["127.0.0.1"], None, None),
        ([], None, None),
    ],
)
def test_what_is_translated(addresses: list[str], four: int | None, six: int | None) -> None:
    """By IPv4 and by IPv6: which socket, if that can be said."""
    sockets = [bound(one, inode=number) for number, one in enumerate(addresses)]
    for version, wanted in ((4, four), (6, six)):
        found = translated(sockets, version)
        assert (found and found.inode) == wanted
