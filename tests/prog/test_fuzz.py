# SPDX-License-Identifier: Apache-2.0
"""Mutated frames: only what Python too reads as a proper request is answered, rightly so.

At either hook, for either IP, behind no, one or two VLAN tags.
"""

from __future__ import annotations

import functools
import ipaddress
import random
import struct
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from scapy.utils import checksum

from carom.include.abi import Fast, Hook, Verdict
from prog.host import Host, passed, sent
from prog.packets import CLIENT_PORT, FRAME_MIN, HOST_MAC, PORT, Fields, Wire

SEED = 20240607
FRAMES = 1000

MAC = bytes.fromhex(HOST_MAC.replace(":", ""))

IPV4 = ((0, 1), (1, 1), (2, 2), (4, 2), (6, 2), (8, 1), (9, 1), (10, 2), (12, 4), (16, 4))
IPV6 = ((0, 1), (0, 4), (4, 2), (6, 1), (7, 1), (8, 16), (8, 1), (15, 4), (24, 16), (39, 1))
UDP = ((0, 2), (2, 2), (4, 2), (6, 2))


def fields_of(wire: Wire) -> list[tuple[int, int]]:
    """Offset and size of each field of the headers."""
    ip = IPV4 if wire.version == 4 else IPV6
    tags = [(14 + 4 * n, 2) for n in range(len(wire.tags))]
    types = [(12 + 4 * n, 2) for n in range(1 + len(wire.tags))]
    return [
        *((0, 6), (6, 6)),
        *tags,
        *types,
        *((wire.network + at, size) for at, size in ip),
        *((wire.transport + at, size) for at, size in UDP),
    ]


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


def words(data: bytes) -> int:
    """The folded one's-complement sum."""
    return 0xFFFF ^ checksum(data)


def read_tags(frame: bytes) -> tuple[list[int], int, int]:
    """VLAN ids, the EtherType behind them, and where the IP header is."""
    ids, at = [], 12
    while len(ids) < 2 and frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        ids.append(int.from_bytes(frame[at + 2 : at + 4], "big") & 0xFFF)
        at += 4
    return ids, int.from_bytes(frame[at : at + 2], "big"), at + 2


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


def reply_to(host: Host, asked: Asked, payload: bytes) -> bytes:
    """The reply in full, behind the request's own tags."""
    wire = Wire(host.wire.version)
    client = str(ipaddress.ip_address(asked.client))
    half = wire.pseudo_sum(len(payload), src=wire.host, dst=client)
    made = wire.reply(
        payload,
        ip={"dst": client} | wire.ttl(asked.hops - 1) | asked.kept,
        udp={"dport": asked.port} | ({"chksum": half} if host.sees_skbs and asked.partial else {}),
    )
    return MAC.join((asked.start[6:12], b"")) + asked.start[12:] + made[14:]


def right_sums(wire: Wire, frame: bytes) -> bytes:
    """The frame with the checksums that its other bytes ask for, where it has room for them."""
    if len(frame) < wire.headers:
        return frame
    start, ip, udp = (
        frame[: wire.network],
        frame[wire.network : wire.transport],
        frame[wire.transport :],
    )
    if wire.version == 4:
        ip = ip[:10] + b"\0\0" + ip[12:]
        ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    addresses = ip[12:] if wire.version == 4 else ip[8:]
    end = max(8, struct.unpack_from("!H", udp, 4)[0])
    pseudo = addresses + struct.pack("!HH", 17, end)
    check = checksum(pseudo + udp[:6] + b"\0\0" + udp[8:end]) or 0xFFFF
    return start + ip + udp[:6] + struct.pack("!H", check) + udp[8:]


def flip_bits(rng: random.Random, frame: bytearray, wire: Wire) -> None:
    for _ in range(rng.randint(1, 4)):
        frame[rng.randrange(min(len(frame), rng.choice((wire.headers, 2000))))] ^= (
            1 << rng.randrange(8)
        )


def set_field(rng: random.Random, frame: bytearray, wire: Wire) -> None:
    """A field of the headers gets an edge's number, its own give or take one, or any."""
    at, size = rng.choice(fields_of(wire))
    top = 256**size - 1
    now = int.from_bytes(frame[at : at + size], "big")
    # 44 and 60 are IPv6's fragment header and its destination options.
    number = rng.choice([0, 1, 44, 60, top, top // 2, now + 1, now - 1, rng.randint(0, top)])
    frame[at : at + size] = max(0, min(top, number)).to_bytes(size, "big")


def cut(rng: random.Random, frame: bytearray, _: Wire) -> None:
    del frame[rng.randint(15, len(frame)) :]


def extend(rng: random.Random, frame: bytearray, _: Wire) -> None:
    frame += rng.randbytes(rng.randint(1, 60))


def scramble(rng: random.Random, frame: bytearray, _: Wire) -> None:
    start = rng.randrange(len(frame))
    frame[start:] = rng.randbytes(len(frame) - start)


def replace(rng: random.Random, frame: bytearray, _: Wire) -> None:
    frame[:] = rng.randbytes(rng.randint(15, 200))


MUTATIONS = (flip_bits, set_field, cut, extend, scramble, replace)
WEIGHTS = (5, 8, 3, 3, 1, 1)


@functools.cache
def frames(wire: Wire, fast: Fast) -> list[bytes]:
    """Seeded frames: proper ones, mutated once to three times, some with their checksums mended."""
    return list(made_up(wire, ASKED[fast]))


def made_up(wire: Wire, payloads: list[bytes]) -> Iterator[bytes]:
    rng = random.Random(f"{SEED} {wire}")
    for _ in range(FRAMES):
        payload = rng.choice(payloads)
        half = {"chksum": wire.pseudo_sum(len(payload))}
        flags = {"flags": rng.choice((0, "DF"))} if wire.version == 4 else {}
        frame = bytearray(
            wire.request(
                payload,
                ip=wire.ttl(rng.choice((64, 64, 255, 32, 31))) | flags,
                udp={"sport": rng.choice((CLIENT_PORT, 1024, PORT + 1))}
                | rng.choice(({}, {"chksum": 0}, half)),
                padding=bytes(rng.choice((0, 0, 18))),
            )
        )
        for mutate in rng.choices(MUTATIONS, WEIGHTS, k=rng.randint(0, 3)):
            mutate(rng, frame, wire)
        yield right_sums(wire, bytes(frame)) if rng.random() < 0.5 else bytes(frame)


REPLIES = {b"k": b"r" * 40, b"a longer key of the cache": b"", b"q" * 256: b"reply " * 100}
ASKED = {
    Fast.BOUNCE: [b"", b"x", b"four", b"y" * 33, b"z" * 700],
    Fast.CACHE: [*REPLIES, b"not there"],
}
REASONS = [
    verdict
    for verdict in Verdict
    if Verdict.PASS_TRUNCATED <= verdict <= Verdict.PASS_CHECKSUM
    and verdict not in (Verdict.PASS_OFF, Verdict.PASS_LEASE, Verdict.PASS_SIZE)
]
"""What mutations alone can lead to."""


def wanted(host: Host, frame: bytes) -> bytes | None:
    """The reply that must come of a frame, or None."""
    asked = read(host.wire, frame, host.sees_skbs)
    if asked is None:
        return None
    if host.fast is Fast.BOUNCE:
        return reply_to(host, asked, asked.payload) + asked.padding
    stored = REPLIES.get(asked.payload)
    return None if stored is None else reply_to(host, asked, stored).ljust(FRAME_MIN, b"\0")


def refused_by_the_kernel(host: Host, frame: bytes) -> bool:
    """BPF_PROG_TEST_RUN makes no skb with half an IP header."""
    shortest = {b"\x08\x00": 34, b"\x86\xdd": 54}.get(frame[12:14], 0)
    return host.hook == Hook.TC and len(frame) < shortest


@pytest.mark.parametrize("fast", ASKED, ids=lambda fast: fast.name.lower())
def test_answers_only_what_it_should(any_summer: Host, fast: Fast) -> None:
    host = any_summer
    host.serve(fast)
    for payload, stored in REPLIES.items():
        host.fill(payload, stored)
    seen: Counter[Verdict] = Counter()
    for frame in frames(host.wire, fast):
        if refused_by_the_kernel(host, frame):
            continue
        out = wanted(host, frame)
        outcome = host.run(frame)
        seen[outcome.verdict] += 1
        expected = passed(outcome.verdict, frame) if out is None else sent(outcome.verdict, out)
        assert outcome == expected, f"{outcome.verdict!r} on {frame.hex()}"
    assert seen[Verdict.BOUNCE] + seen[Verdict.HIT] > FRAMES // 10, seen
    assert not [verdict for verdict in REASONS if not seen[verdict]], seen
