# SPDX-License-Identifier: Apache-2.0
"""Bounced requests come back in full: headers swapped, payload and padding theirs, checksums right.

At either hook, for either IP, behind no, one or two VLAN tags.

A request's UDP checksum is whole, zero (none was made), or partial (its sender left all but the
pseudo-header's sum to a device). A native hook makes every reply whole; a hook that sees skbs
leaves a partial one partial.
"""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carom.kernel.abi import Verdict
from prog.host import Host, Outcome, passed, sent
from prog.packets import Wire

SIZES = (0, 1, 2, 3, 17, 18, 19, 31, 32, 511, 512, 513, 1024, 1025, 1471, 1472)

Kind = Literal["whole", "zero", "partial"]


def kinds(host: Host) -> tuple[Kind, ...]:
    """Checksums that a request may have: IPv6 has none that is not made (RFC 8200, section 8.1)."""
    return ("whole", "zero", "partial") if host.wire.version == 4 else ("whole", "partial")


def pattern(length: int) -> bytes:
    """Bytes that differ from their neighbours and from those 512 further on."""
    return bytes((i * 7 + i // 256 * 3 + 1) % 256 for i in range(length))


def with_sum(host: Host, payload: bytes, kind: Kind, padding: bytes = b"") -> bytes:
    """A request whose checksum is of this kind."""
    half = host.wire.pseudo_sum(len(payload))
    fields = {"zero": {"chksum": 0}, "partial": {"chksum": half}, "whole": {}}
    return host.wire.request(payload, udp=fields[kind], padding=padding)


def bounced(host: Host, payload: bytes, kind: Kind, padding: bytes = b"") -> Outcome:
    """What must become of it."""
    half_made = kind == "partial" and host.sees_skbs
    fields = {"chksum": host.wire.pseudo_sum(len(payload))} if half_made else {}
    return sent(Verdict.BOUNCE, host.wire.reply(payload, udp=fields, padding=padding))


def ambiguous(wire: Wire, length: int) -> bytes:
    """A payload whose right checksum is the pseudo-header's sum as well."""
    half = wire.pseudo_sum(length)
    payload = wire.tuned(half, pattern(length))
    assert wire.request(payload)[wire.check] == half.to_bytes(2, "big")
    return payload


@pytest.mark.parametrize("size", SIZES)
def test_sizes(any_bouncer: Host, size: int) -> None:
    for payload in (pattern(size), b"\0" * size, b"\xff" * size):
        for kind in kinds(any_bouncer):
            frame = with_sum(any_bouncer, payload, kind)
            assert any_bouncer.run(frame) == bounced(any_bouncer, payload, kind), kind


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    payload=st.one_of(
        st.binary(max_size=64),
        st.integers(0, 1472).flatmap(lambda n: st.randoms().map(lambda r: r.randbytes(n))),
    ),
    padding=st.binary(max_size=20),
)
def test_any_payload(any_bouncer: Host, payload: bytes, padding: bytes) -> None:
    for kind in kinds(any_bouncer):
        frame = with_sum(any_bouncer, payload, kind, padding)
        right = kind == "partial" and any_bouncer.wire.sum_of_words(frame) == 0xFFFF
        seems_partial = kind == "whole" and frame == with_sum(
            any_bouncer, payload, "partial", padding
        )
        if not right and not seems_partial:
            assert any_bouncer.run(frame) == bounced(any_bouncer, payload, kind, padding)


@pytest.mark.parametrize("size", [2, 3, 32, 513, 1472])
def test_a_sum_of_zero_is_sent_as_ones(any_bouncer: Host, size: int) -> None:
    payload = any_bouncer.wire.tuned(0, pattern(size))
    for kind in kinds(any_bouncer)[:-1]:
        expected = bounced(any_bouncer, payload, kind)
        assert expected.frame[any_bouncer.wire.check] == b"\xff\xff"
        assert any_bouncer.run(with_sum(any_bouncer, payload, kind)) == expected


@pytest.mark.parametrize("size", [2, 3, 32, 513, 1472])
def test_an_ambiguous_sum_passes_where_skbs_are_seen(any_bouncer: Host, size: int) -> None:
    payload = ambiguous(any_bouncer.wire, size)
    frame = any_bouncer.wire.request(payload)
    if any_bouncer.sees_skbs:
        assert any_bouncer.run(frame) == passed(Verdict.PASS_CHECKSUM, frame)
    else:
        assert any_bouncer.run(frame) == bounced(any_bouncer, payload, "whole")
    neighbour = payload[:-1] + bytes([payload[-1] ^ 1])
    assert any_bouncer.asks(neighbour) == bounced(any_bouncer, neighbour, "whole")


def test_almost_partial_passes(any_bouncer: Host) -> None:
    wire = any_bouncer.wire
    half = wire.pseudo_sum(32)
    other = "198.18.0.9" if wire.version == 4 else "2001:db8::9"
    for name, wrong in {
        "of another length": wire.pseudo_sum(33),
        "of another address": wire.pseudo_sum(32, src=wire.host, dst=other),
        "complement": 0xFFFF ^ half,
        "one more": half + 1,
        "one less": half - 1,
    }.items():
        frame = wire.request(pattern(32), udp={"chksum": wrong})
        assert any_bouncer.run(frame) == passed(Verdict.PASS_CHECKSUM, frame), name


@pytest.mark.parametrize(
    "padding",
    [b"\0" * 18, b"\xa5" * 17, b"\x01", bytes(range(1, 200))],
    ids=["zeros", "junk", "one-byte", "more-junk"],
)
def test_padding_stays(any_bouncer: Host, padding: bytes) -> None:
    for size in (0, 1, 2, 17, 32):
        payload = pattern(size)
        for kind in kinds(any_bouncer):
            frame = with_sum(any_bouncer, payload, kind, padding)
            assert any_bouncer.run(frame) == bounced(any_bouncer, payload, kind, padding)
