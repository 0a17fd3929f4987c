# SPDX-License-Identifier: Apache-2.0
"""Where a service is answered: at its interface's addresses, and at those of its VLANs."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from carom import Service
from carom.daemon.fastpath import Attachment
from carom.daemon.own_socket import OwnSocket
from carom.daemon.places import Place
from carom.kernel.links import Interface, Port, Upper

FOUR, SIX, FOUR7, SIX78 = map(
    ipaddress.ip_address, ("198.18.0.1", "2001:db8::1", "198.18.7.1", "2001:db8:78::1")
)
INTERFACE = Interface(
    ifindex=3,
    name="eth0",
    mac=b"\2\0\0\0\0\1",
    mtu=1500,
    up=True,
    driver="veth",
    addresses=(FOUR, SIX),
    uppers=(
        Upper(7, 0, b"\2\0\0\0\0\7", 1496, (FOUR7,)),
        Upper(7, 8, b"\2\0\0\0\0\x08", 1492, (SIX78,)),
    ),
)
XDP = Attachment(INTERFACE, "xdp", "generic", True)
TC = Attachment(INTERFACE, "tc", None, False)


@pytest.fixture
def places() -> Iterator[Callable[..., list[Place]]]:
    """Those of a service with these options."""
    with ExitStack() as stack:

        def found(attachment: Attachment = XDP, **options: object) -> list[Place]:
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as free:
                free.bind(("::", 0))
                port = free.getsockname()[1]
            return list(
                stack.enter_context(OwnSocket(Service(port, **options).options, 5)).places(
                    attachment
                )
            )

        yield found


def test_all_of_both(places: Callable[..., list[Place]]) -> None:
    found = places(bind="::")
    where = [(one.address, one.outer, one.inner, one.mac[5], one.mtu) for one in found]
    assert where == [
        (FOUR7, 7, 0, 7, 1496),
        (SIX78, 7, 8, 8, 1492),
        (FOUR, 0, 0, 1, 1500),
        (SIX, 0, 0, 1, 1500),
    ]
    assert {(one.ifindex, one.service) for one in found} == {(3, 5)}


@pytest.mark.parametrize(
    ("bind", "addresses"), [("0.0.0.0", [FOUR7, FOUR]), ("127.0.0.1", []), ("::1", [])]
)
def test_what_it_is_bound_to(
    places: Callable[..., list[Place]], bind: str, addresses: list[object]
) -> None:
    assert [one.address for one in places(bind=bind)] == addresses


def test_how(places: Callable[..., list[Place]]) -> None:
    first = places(amplify=3, allow=("198.18.0.0/15",))[0]
    assert (first.multiple, first.allow_list) == (3, True)
    assert (first.skb_mode, first.hands_over) == (True, True)
    first = places(TC)[0]
    assert (first.multiple, first.allow_list) == (16, False)
    assert (first.skb_mode, first.hands_over) == (False, False)


BOND = INTERFACE._replace(
    driver="bond",
    ports=(Port(8, "eth8", "mlx5_core", True), Port(9, "eth9", "mlx5_core", False)),
)


def test_native_on_a_bond(places: Callable[..., list[Place]]) -> None:
    """What comes in has its port's number there; what comes by the backup is a copy, or none."""
    found = places(Attachment(BOND, "xdp", "native", True))
    assert [(one.ifindex, one.link, one.mac) for one in found if one.address == FOUR] == [
        (3, 3, BOND.mac),
        (8, 3, BOND.mac),
    ]
    assert len(places(Attachment(BOND, "xdp", "native", True), bind="::")) == 8


@pytest.mark.parametrize(("hook", "mode"), [("xdp", "generic"), ("tc", None)])
def test_above_its_ports(places: Callable[..., list[Place]], hook: str, mode: str | None) -> None:
    assert {one.ifindex for one in places(Attachment(BOND, hook, mode, False))} == {3}  # type: ignore[arg-type]


ANYCAST = INTERFACE._replace(addresses=(FOUR, SIX78), hosts=(SIX78,), strips=True)


def test_the_hosts_own_where_tags_are_taken_off(places: Callable[..., list[Place]]) -> None:
    """A request to them may have had a tag, which XDP's reply would not have; TC sees it."""
    own = {
        (one.address, one.outer)
        for one in places(Attachment(ANYCAST, "tc", None, False), bind="::")
    }
    assert own == {(FOUR7, 7), (SIX78, 7), (FOUR, 0), (SIX78, 0)}
    seen = {
        (one.address, one.outer)
        for one in places(Attachment(ANYCAST, "xdp", "native", True), bind="::")
    }
    assert seen == own - {(SIX78, 0)}
    plain = Attachment(ANYCAST._replace(uppers=()), "xdp", "native", True)
    assert [one.address for one in places(plain, bind="::")] == [FOUR, SIX78]


RED = 30


def test_in_a_vrf(places: Callable[..., list[Place]]) -> None:
    """A socket that is bound to no device receives nothing there."""
    upper = INTERFACE.uppers[0]._replace(ifindex=31, vrf=RED)
    inside = INTERFACE._replace(vrf=RED, master="red", kind="vrf", uppers=())
    assert places(Attachment(inside, "xdp", "native", True)) == []
    partly = INTERFACE._replace(uppers=(upper,))
    assert [one.address for one in places(Attachment(partly, "tc", None, False))] == [FOUR]
