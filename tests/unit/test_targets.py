# SPDX-License-Identifier: Apache-2.0
"""Where a server is looked for, by how requests are translated."""

from __future__ import annotations

import ipaddress

import pytest

from carom.daemon.targets import Target, targets
from carom.daemon.translated import Translation
from carom.kernel.netlink import Address

PORT, INSIDE, THIRD = 53, 5353, 5454


def at(text: str) -> Address:
    """An address."""
    return ipaddress.ip_address(text)


ONE, TWO, THREE, BEYOND = map(at, ("198.18.0.2", "198.18.0.3", "2001:db8::2", "198.18.3.2"))
AWAY = Translation(BEYOND, INSIDE, False, "a rule")
OTHER = Translation(BEYOND, THIRD, False, "a rule")
HERE = Translation(None, INSIDE, True, "a rule")


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ([], [Target(PORT, True), Target(PORT, False)]),
        ([(ONE, None)], [Target(PORT, True, (ONE,)), Target(PORT, False)]),
        ([(ONE, AWAY)], [Target(INSIDE, False)]),
        ([(ONE, AWAY), (THREE, None)], [Target(PORT, True, (THREE,)), Target(INSIDE, False)]),
        ([(ONE, HERE)], [Target(INSIDE, True, (ONE,))]),
        (
            [(ONE, OTHER), (TWO, AWAY), (THREE, AWAY)],
            [Target(INSIDE, False), Target(THIRD, False)],
        ),
    ],
)
def test_by_what_is_known(
    asked: list[tuple[Address, Translation | None]], wanted: list[Target]
) -> None:
    assert targets(asked, PORT) == wanted


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ([(ONE, None)], [Target(INSIDE, True, (ONE,)), Target(INSIDE, False)]),
        ([(ONE, AWAY)], [Target(INSIDE, True), Target(INSIDE, False)]),
        ([(ONE, OTHER)], [Target(INSIDE, True), Target(INSIDE, False)]),
        ([(ONE, HERE)], [Target(INSIDE, True), Target(INSIDE, True, (ONE,))]),
    ],
)
def test_by_what_somebody_said(
    asked: list[tuple[Address, Translation | None]], wanted: list[Target]
) -> None:
    assert targets(asked, INSIDE, said=True) == wanted
