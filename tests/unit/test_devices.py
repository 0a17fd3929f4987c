# SPDX-License-Identifier: Apache-2.0
"""Links in the kernel's own messages (linux/if_link.h), byte by byte."""

from __future__ import annotations

import struct

import pytest

from carom.kernel.devices import Device, device_of

NESTED = 0x8000  # NLA_F_NESTED
MAC = bytes.fromhex("020000000001")


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def number(kind: int, value: int, letter: str = "I") -> bytes:
    return attribute(kind, struct.pack(f"={letter}", value))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def link(*attributes: bytes, flags: int = 1) -> Device:
    """An Ethernet link of number 7."""
    return device_of(memoryview(struct.pack("=BxHiII", 0, 1, 7, flags, 0) + b"".join(attributes)))


def made(kind: str, data: bytes = b"", *more: bytes) -> bytes:
    """IFLA_LINKINFO."""
    return attribute(18, text(1, kind) + attribute(2, data) + b"".join(more))


def test_a_link_that_says_little() -> None:
    assert link() == Device(7, type=1)
    assert not link(flags=0x1002).up


def test_a_link_that_says_much() -> None:
    more = attribute(52 | NESTED, text(53, "a-name-of-more-than-15-letters") + text(53, "lan"))
    said = (text(3, "eth0"), attribute(1, MAC), number(4, 1500), number(33, 1, "B"))
    assert link(*said, number(10, 3), number(5, 2), more) == Device(
        7,
        name="eth0",
        type=1,
        mac=MAC,
        mtu=1500,
        also=("a-name-of-more-than-15-letters", "lan"),
        lower=2,
        master=3,
    )


def test_a_link_without_a_carrier() -> None:
    assert not link(number(33, 0, "B")).carrier


def test_a_link_of_another_namespace() -> None:
    moved = link(number(5, 2), number(37, 0))
    assert (moved.lower, moved.here) == (2, False)


def test_a_vlan() -> None:
    vlan = link(made("vlan", number(1, 4094, "H") + attribute(2, bytes(8))))
    assert (vlan.kind, vlan.tag, vlan.mode) == ("vlan", 4094, "")


@pytest.mark.parametrize(
    ("value", "mode"), [(1, "private"), (2, "vepa"), (4, "bridge"), (8, "passthru"), (16, "source")]
)
def test_a_macvlan(value: int, mode: str) -> None:
    macvlan = link(made("macvlan", number(1, value)))
    assert (macvlan.kind, macvlan.tag, macvlan.mode) == ("macvlan", 0, mode)


@pytest.mark.parametrize(
    ("master", "state", "backup"), [("bond", 0, False), ("bond", 1, True), ("bridge", 1, None)]
)
def test_a_port(master: str, state: int, backup: bool | None) -> None:
    """A bridge's ports have a state of the same number, which says something else."""
    slave = (text(4, master), attribute(5, number(1, state, "B")))
    port = link(made("veth", b"", *slave))
    assert (port.kind, port.backup) == ("veth", backup)
