# SPDX-License-Identifier: Apache-2.0
"""Bounced requests come back in full: headers swapped, payload and padding theirs, checksums right.

A request's UDP checksum is whole, zero (none was made), or partial (its sender left all but the
pseudo-header's sum to a device). A native hook makes every reply whole; a hook that sees skbs
leaves a partial one partial.
"""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from carom.include.abi import Verdict
from prog.host import Host, Outcome, passed, sent
from prog.packets import HOST, pseudo_sum, reply, request, sum_of_words, tuned

SIZES = (0, 1, 2, 3, 17, 18, 19, 31, 32, 511, 512, 513, 1024, 1025, 1471, 1472)

Kind = Literal["whole", "zero", "partial"]
KINDS: tuple[Kind, ...] = ("whole", "zero", "partial")
HOOKS = pytest.mark.parametrize("skb_mode", [False, True], ids=["native", "skb"])


def pattern(length: int) -> bytes:
    """Bytes that differ from their neighbours and from those 512 further on."""
    return bytes((i * 7 + i // 256 * 3 + 1) % 256 for i in range(length))


def with_sum(payload: bytes, kind: Kind, padding: bytes = b"") -> bytes:
    """A request whose checksum is of this kind."""
    fields = {"zero": {"chksum": 0}, "partial": {"chksum": pseudo_sum(len(payload))}, "whole": {}}
    return request(payload, udp=fields[kind], padding=padding)


def bounced(payload: bytes, kind: Kind, skb_mode: bool, padding: bytes = b"") -> Outcome:
    """What must become of it."""
    fields = {"chksum": pseudo_sum(len(payload))} if kind == "partial" and skb_mode else {}
    return sent(Verdict.BOUNCE, reply(payload, udp=fields, padding=padding))


def ambiguous(length: int) -> bytes:
    """A payload whose right checksum is the pseudo-header's sum as well."""
    payload = tuned(pseudo_sum(length), pattern(length))
    assert request(payload)[40:42] == pseudo_sum(length).to_bytes(2, "big")
    return payload


@HOOKS
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_sizes(bouncer: Host, size: int, kind: Kind, skb_mode: bool) -> None:
    bouncer.describe(skb_mode=skb_mode)
    payload = pattern(size)
    assert bouncer.run(with_sum(payload, kind)) == bounced(payload, kind, skb_mode)


@pytest.mark.parametrize("byte", [b"\0", b"\xff"], ids=["zeros", "ones"])
@pytest.mark.parametrize("size", SIZES)
def test_one_byte_over_and_over(bouncer: Host, size: int, byte: bytes) -> None:
    for kind in KINDS:
        payload = byte * size
        assert bouncer.run(with_sum(payload, kind)) == bounced(payload, kind, False)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(
    payload=st.one_of(
        st.binary(max_size=64),
        st.integers(0, 1472).flatmap(lambda n: st.randoms().map(lambda r: r.randbytes(n))),
    ),
    kind=st.sampled_from(KINDS),
    skb_mode=st.booleans(),
    padding=st.binary(max_size=20),
)
def test_any_payload(
    bouncer: Host, payload: bytes, kind: Kind, skb_mode: bool, padding: bytes
) -> None:
    frame = with_sum(payload, kind, padding)
    right = kind == "partial" and sum_of_words(frame) == 0xFFFF
    seems_partial = kind == "whole" and with_sum(payload, "partial", padding) == frame
    assume(not right and not seems_partial)
    bouncer.describe(skb_mode=skb_mode)
    assert bouncer.run(frame) == bounced(payload, kind, skb_mode, padding)


@HOOKS
@pytest.mark.parametrize("kind", ["whole", "zero"])
@pytest.mark.parametrize("size", [2, 3, 32, 513, 1472])
def test_a_sum_of_zero_is_sent_as_ones(
    bouncer: Host, size: int, kind: Kind, skb_mode: bool
) -> None:
    bouncer.describe(skb_mode=skb_mode)
    payload = tuned(0, pattern(size))
    expected = bounced(payload, kind, skb_mode)
    assert expected.frame[40:42] == b"\xff\xff"
    assert bouncer.run(with_sum(payload, kind)) == expected


@pytest.mark.parametrize("size", [2, 3, 32, 513, 1472])
def test_an_ambiguous_sum_passes_where_skbs_are_seen(bouncer: Host, size: int) -> None:
    frame = request(ambiguous(size))
    bouncer.describe(skb_mode=True)
    assert bouncer.run(frame) == passed(Verdict.PASS_CHECKSUM, frame)
    neighbour = ambiguous(size)[:-1] + bytes([ambiguous(size)[-1] ^ 1])
    assert bouncer.run(request(neighbour)) == bounced(neighbour, "whole", True)
    bouncer.describe(skb_mode=False)
    assert bouncer.run(frame) == bounced(ambiguous(size), "whole", False)


@HOOKS
@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(pseudo_sum(33), id="of-another-length"),
        pytest.param(pseudo_sum(32, src=HOST, dst="198.18.0.9"), id="of-another-address"),
        pytest.param(0xFFFF ^ pseudo_sum(32), id="complement"),
        pytest.param(pseudo_sum(32) + 1, id="one-more"),
        pytest.param(pseudo_sum(32) - 1, id="one-less"),
    ],
)
def test_almost_partial_passes(bouncer: Host, wrong: int, skb_mode: bool) -> None:
    bouncer.describe(skb_mode=skb_mode)
    frame = request(pattern(32), udp={"chksum": wrong})
    assert bouncer.run(frame) == passed(Verdict.PASS_CHECKSUM, frame)


@HOOKS
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "padding",
    [b"\0" * 18, b"\xa5" * 17, b"\x01", bytes(range(1, 200))],
    ids=["zeros", "junk", "one-byte", "more-junk"],
)
@pytest.mark.parametrize("size", [0, 1, 2, 17, 32])
def test_padding_stays(
    bouncer: Host, size: int, padding: bytes, kind: Kind, skb_mode: bool
) -> None:
    bouncer.describe(skb_mode=skb_mode)
    payload = pattern(size)
    assert bouncer.run(with_sum(payload, kind, padding)) == bounced(
        payload, kind, skb_mode, padding
    )
