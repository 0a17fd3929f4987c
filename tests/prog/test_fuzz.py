# SPDX-License-Identifier: Apache-2.0
"""Mutated frames: only what Python too reads as a proper request is answered, rightly so.

At either hook, for either IP, behind no, one or two VLAN tags.
"""

from __future__ import annotations

import ipaddress
import struct
from collections import Counter
from typing import NamedTuple

import pytest

from carom.kernel.abi import Fast, Hook, Verdict
from prog.host import Host, passed, sent
from prog.mutations import frames, read_tags, words
from prog.packets import FRAME_MIN, HOST_MAC, PORT, Fields, Wire

FRAMES, LONG = 1000, 10_000

MAC = bytes.fromhex(HOST_MAC.replace(":", ""))


class Asked(NamedTuple):
    """A proper request, as read from its bytes. `start` is all before its IP header."""

    start: bytes
    client: bytes
    port: int
    hops: int
    kept: Fields
    partial: bool
    payload: bytes
    padding: bytes


def read_ipv4(header: bytes) -> tuple[bytes, bytes, int, int, Fields] | None:
    """Source, destination, hops, payload length, and what a reply keeps."""
    (first, _, total, ident, fragment, ttl, protocol, _, source, destination) = struct.unpack(
        "!BBHHHBBH4s4s", header
    )
    if first != 0x45 or protocol != 17 or words(header) != 0xFFFF or fragment & 0x3FFF:
        return None
    if source[0] in (0, 127) or source[0] >= 224:
        return None
    return source, destination, ttl, total - 20, {"id": ident, "flags": fragment >> 13}


def read_ipv6(header: bytes) -> tuple[bytes, bytes, int, int, Fields] | None:
    """The same."""
    first, length, following, hops, source, destination = struct.unpack("!IHBB16s16s", header)
    if first >> 28 != 6 or following != 17 or source[0] == 0xFF or not any(source[:8]):
        return None
    return source, destination, hops, length, {}


def read(wire: Wire, frame: bytes, skb_mode: bool) -> Asked | None:
    """Read a frame from the first byte to the last, and give it up at the first thing amiss."""
    ids, kind, network = read_tags(frame)
    transport = network + (20 if wire.version == 4 else 40)
    if len(frame) < transport + 8 or frame[:6] != MAC or frame[6] & 1:
        return None
    if [*ids, 0, 0][:2] != [*wire.tags, 0, 0][:2] or kind != {4: 0x0800, 6: 0x86DD}[wire.version]:
        return None
    ip = (read_ipv4 if wire.version == 4 else read_ipv6)(frame[network:transport])
    if ip is None:
        return None
    client, address, hops, ip_payload, kept = ip
    source, port, length, check = struct.unpack("!4H", frame[transport : transport + 8])
    if hops < 32 or length < 8 or ip_payload != length or transport + length > len(frame):
        return None
    ours = ipaddress.ip_address(wire.host).packed
    if address != ours or port != PORT or source < 1024 or source == PORT or client == ours:
        return None
    udp = frame[transport : transport + length]
    pseudo = client + address + struct.pack("!HH", 17, length)
    whole = words(pseudo + udp) == 0xFFFF if check else wire.version == 4
    partial = check != 0 and check == words(pseudo)
    if not (whole or partial) or (skb_mode and whole and partial):
        return None
    padding = frame[transport + length :]
    return Asked(frame[:network], client, source, hops, kept, partial, udp[8:], padding)


WHOLE = 68
"""Bytes of an IPv4 packet that no router fragments."""


def kept(host: Host, asked: Asked, payload: bytes, came: bytes) -> Fields:
    """What a reply keeps of its request, or has for itself: a drawn id, read from `came`."""
    if host.wire.version == 6 or 28 + len(payload) <= WHOLE:
        return asked.kept
    if asked.kept == {"id": asked.kept["id"], "flags": 0} and asked.kept["id"]:
        return asked.kept
    at = len(asked.start) + 4
    return {"id": int.from_bytes(came[at : at + 2]), "flags": 0}


def reply_to(host: Host, asked: Asked, payload: bytes, came: bytes) -> bytes:
    """The reply in full, behind the request's own tags."""
    wire = Wire(host.wire.version)
    client = str(ipaddress.ip_address(asked.client))
    half = wire.pseudo_sum(len(payload), src=wire.host, dst=client)
    made = wire.reply(
        payload,
        ip={"dst": client} | wire.ttl(asked.hops - 1) | kept(host, asked, payload, came),
        udp={"dport": asked.port} | ({"chksum": half} if host.sees_skbs and asked.partial else {}),
    )
    return MAC.join((asked.start[6:12], b"")) + asked.start[12:] + made[14:]


REPLIES = {b"k": b"r" * 40, b"a longer key of the cache": b"", b"q" * 256: b"reply " * 100}
ASKED = {
    Fast.BOUNCE: (b"", b"x", b"four", b"y" * 33, b"z" * 700),
    Fast.CACHE: (*REPLIES, b"not there"),
}
REASONS = [
    verdict
    for verdict in Verdict
    if Verdict.PASS_TRUNCATED <= verdict <= Verdict.PASS_CHECKSUM
    and verdict not in (Verdict.PASS_OFF, Verdict.PASS_LEASE, Verdict.PASS_SIZE)
    and not verdict.name.startswith("PASS_SOURCE_")
]
"""What mutations alone can lead to."""

SOURCES = [verdict for verdict in Verdict if verdict.name.startswith("PASS_SOURCE_")]
"""Of these some do, whichever."""


def wanted(host: Host, frame: bytes, came: bytes) -> bytes | None:
    """The reply that must come of a frame, or None; `came` did."""
    asked = read(host.wire, frame, host.sees_skbs)
    if asked is None:
        return None
    if host.fast is Fast.BOUNCE:
        return reply_to(host, asked, asked.payload, came) + asked.padding
    stored = REPLIES.get(asked.payload)
    if stored is None:
        return None
    return reply_to(host, asked, stored, came).ljust(FRAME_MIN, b"\0")


def refused_by_the_kernel(host: Host, frame: bytes) -> bool:
    """BPF_PROG_TEST_RUN makes no skb with half an IP header."""
    shortest = {b"\x08\x00": 34, b"\x86\xdd": 54}.get(frame[12:14], 0)
    return host.hook == Hook.TC and len(frame) < shortest


@pytest.mark.parametrize("fast", ASKED, ids=lambda fast: fast.name.lower())
def test_answers_only_what_it_should(any_summer: Host, long_form: bool, fast: Fast) -> None:
    host, count = any_summer, LONG if long_form else FRAMES
    host.serve(fast)
    for payload, stored in REPLIES.items():
        host.fill(payload, stored)
    seen: Counter[Verdict] = Counter()
    for frame in frames(host.wire, ASKED[fast], count):
        if refused_by_the_kernel(host, frame):
            continue
        outcome = host.run(frame)
        out = wanted(host, frame, outcome.frame)
        seen[outcome.verdict] += 1
        expected = passed(outcome.verdict, frame) if out is None else sent(outcome.verdict, out)
        assert outcome == expected, f"{outcome.verdict!r} on {frame.hex()}"
    assert seen[Verdict.BOUNCE] + seen[Verdict.HIT] > count // 10, seen
    assert not [verdict for verdict in REASONS if not seen[verdict]], seen
    assert len([verdict for verdict in SOURCES if seen[verdict]]) > 1, seen
    print(f"{count:,} frames, {seen[Verdict.BOUNCE] + seen[Verdict.HIT]:,} answered")
