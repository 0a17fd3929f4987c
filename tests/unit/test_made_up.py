# SPDX-License-Identifier: Apache-2.0
"""Replies that servers of learned protocols might give, for requests of any bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carom import protocols
from carom.protocols import SPECS

LEARNED = [spec.name for spec in SPECS.values() if spec.learned]
WORDS = {
    "memcached": (b"get a", b"gets a b c", b"stats", b"set a 0 0 1"),
    "dns": (b"example.org", b"example.org AAAA", b"www.example.org MX"),
    "coap": (b"/", b"/sensors/1", b"/sensors/1?unit=K"),
}
HOW_MANY = {"memcached": [1, 3, 0, 0], "dns": [1, 1, 1], "coap": [1, 1, 1]}


@pytest.mark.parametrize("name", LEARNED)
def test_one_for_each_key(name: str) -> None:
    spec = SPECS[name]
    made = [list(protocols.made_up(spec, spec.asking(words) or b"")) for words in WORDS[name]]
    assert [len(one) for one in made] == HOW_MANY[name]
    for asked, reply in (pair for one in made for pair in one):
        at, size = spec.id.at, spec.id.size if not spec.id.varies else asked[0] & 15
        assert asked[at : at + size] == reply[at : at + size], "a reply has its request's id"


@pytest.mark.parametrize("name", LEARNED)
@given(request=st.binary(max_size=600), cut=st.integers(0, 600))
def test_any_bytes(name: str, request: bytes, cut: int) -> None:
    """Nothing fails, whatever is asked, whole or cut off."""
    spec = SPECS[name]
    for payload in (request, *(spec.asking(words) or b"" for words in WORDS[name])):
        for asked, reply in protocols.made_up(spec, payload[:cut]):
            assert len(asked) <= len(payload) + 16 and len(reply) <= len(payload) + 64
