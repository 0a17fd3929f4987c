# SPDX-License-Identifier: Apache-2.0
"""Numbers for addresses that come and go."""

from __future__ import annotations

import ipaddress

from carom.daemon.views import Bound, Views
from carom.kernel.abi import VIEWS_MAX


def addresses(first: int, count: int) -> list[Bound]:
    return [(ipaddress.IPv4Address(0xC6120000 + n), 0) for n in range(first, first + count)]


def test_a_new_address_each_day() -> None:
    """It has a number, however many there were; one that stays keeps its own."""
    views, (stays,) = Views(), addresses(0, 1)
    given = []
    for day in range(1, 3 * VIEWS_MAX):
        (today,) = addresses(day, 1)
        assert views.take([stays, today]) == []
        assert views.of(stays) == 0
        given.append(views.of(today))
    assert None not in given
    assert views.used <= VIEWS_MAX
    for number in range(len(given)):
        assert given[number] not in given[number + 1 : number + VIEWS_MAX - 2], "the oldest first"


def test_too_many() -> None:
    """The first have numbers, and no two the same; the others have when there is room."""
    views, many = Views(), addresses(0, VIEWS_MAX + 2)
    assert views.take(many) == many[-2:]
    assert {views.of(one) for one in many[:-2]} == set(range(VIEWS_MAX))
    assert views.of(many[-1]) is None
    assert views.take(many[2:]) == []
    assert views.of(many[0]) is None
    assert views.of(many[-1]) in {0, 1}
