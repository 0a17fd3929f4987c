# SPDX-License-Identifier: Apache-2.0
"""Mutated frames: only what Python too reads as a proper request is answered, rightly so."""

from __future__ import annotations

import random
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from scapy.utils import checksum

from carom.include import libbpf
from carom.include.abi import Fast, Verdict
from prog.host import Host
from prog.packets import (
    CLIENT_PORT,
    HEADERS,
    HOST,
    HOST_MAC,
    PORT,
    cached_reply,
    pseudo_sum,
    reply,
    request,
)

SEED = 20240607
FRAMES = 2500

MAC = bytes.fromhex(HOST_MAC.replace(":", ""))
ADDRESS = socket.inet_aton(HOST)


ETHERNET = ((0, 6), (6, 6), (12, 2))
IPV4 = ((14, 1), (15, 1), (16, 2), (18, 2), (20, 2), (22, 1), (23, 1), (24, 2), (26, 4), (30, 4))
UDP = ((34, 2), (36, 2), (38, 2), (40, 2))
FIELDS = ETHERNET + IPV4 + UDP
"""Offset and size of each."""


class Asked(NamedTuple):
    """A proper request, as read from its bytes."""

    client_mac: bytes
    client: bytes
    port: int
    ttl: int
    id: int
    flags: int
    partial: bool
    payload: bytes
    padding: bytes


def words(data: bytes) -> int:
    """The folded one's-complement sum."""
    return 0xFFFF ^ checksum(data)


def read(frame: bytes, skb_mode: bool) -> Asked | None:
    """Read a frame from the first byte to the last, and give it up at the first thing amiss."""
    if len(frame) < HEADERS or frame[:6] != MAC or frame[6] & 1 or frame[12:14] != b"\x08\x00":
        return None
    ip, udp = frame[14:34], frame[34:42]
    (first, _, total, ident, fragment, ttl, protocol, _, client, address) = struct.unpack(
        "!BBHHHBBH4s4s", ip
    )
    source, port, length, check = struct.unpack("!4H", udp)
    if first != 0x45 or protocol != 17 or words(ip) != 0xFFFF:
        return None
    if fragment & 0x3FFF or ttl < 32:  # more fragments, or an offset
        return None
    if length < 8 or total != 20 + length or 14 + total > len(frame):
        return None
    if address != ADDRESS or port != PORT or source < 1024 or source == PORT:
        return None
    if client[0] in (0, 127) or client[0] >= 224 or client == ADDRESS:
        return None
    payload, padding = frame[HEADERS : 14 + total], frame[14 + total :]
    pseudo = client + address + struct.pack("!HH", 17, length)
    whole = check == 0 or words(pseudo + udp + payload) == 0xFFFF
    partial = check == words(pseudo)
    if not (whole or partial) or (skb_mode and whole and partial):
        return None
    flags = fragment >> 13
    return Asked(frame[6:12], client, source, ttl, ident, flags, partial, payload, padding)


def answer(asked: Asked, payload: bytes, skb_mode: bool) -> dict[str, Any]:
    """The arguments of the reply's builder."""
    client = socket.inet_ntoa(asked.client)
    half_made = {}
    if skb_mode and asked.partial:
        half_made = {"chksum": pseudo_sum(len(payload), src=HOST, dst=client)}
    mac = ":".join(f"{byte:02x}" for byte in asked.client_mac)
    return {
        "payload": payload,
        "eth": {"dst": mac},
        "ip": {
            "dst": client,
            "ttl": asked.ttl - 1,
            "id": asked.id,
            "flags": asked.flags,
        },
        "udp": {"dport": asked.port} | half_made,
    }


def right_sums(frame: bytes) -> bytes:
    """The frame with the checksums that its other bytes ask for, where it has room for them."""
    if len(frame) < HEADERS:
        return frame
    ip = frame[14:24] + b"\0\0" + frame[26:34]
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    end = max(8, struct.unpack_from("!H", frame, 38)[0])
    udp = frame[34:40] + b"\0\0" + frame[42 : 34 + end]
    pseudo = ip[12:20] + struct.pack("!HH", 17, end)
    check = checksum(pseudo + udp) or 0xFFFF
    return frame[:14] + ip + udp[:6] + struct.pack("!H", check) + frame[42:]


def flip_bits(rng: random.Random, frame: bytearray) -> None:
    for _ in range(rng.randint(1, 4)):
        frame[rng.randrange(min(len(frame), rng.choice((HEADERS, 2000))))] ^= 1 << rng.randrange(8)


def set_field(rng: random.Random, frame: bytearray) -> None:
    """A field of the headers gets an edge's number, its own give or take one, or any."""
    at, size = rng.choice(FIELDS)
    top = 256**size - 1
    now = int.from_bytes(frame[at : at + size], "big")
    number = rng.choice([0, 1, top, top // 2, now + 1, now - 1, rng.randint(0, top)])
    frame[at : at + size] = max(0, min(top, number)).to_bytes(size, "big")


def cut(rng: random.Random, frame: bytearray) -> None:
    del frame[rng.randint(14, len(frame)) :]


def extend(rng: random.Random, frame: bytearray) -> None:
    frame += rng.randbytes(rng.randint(1, 60))


def scramble(rng: random.Random, frame: bytearray) -> None:
    start = rng.randrange(len(frame))
    frame[start:] = rng.randbytes(len(frame) - start)


def replace(rng: random.Random, frame: bytearray) -> None:
    frame[:] = rng.randbytes(rng.randint(14, 200))


MUTATIONS = (flip_bits, set_field, cut, extend, scramble, replace)
WEIGHTS = (5, 8, 3, 3, 1, 1)


def frames(payloads: list[bytes]) -> Iterator[bytes]:
    """Seeded frames: proper ones, mutated once to three times, some with their checksums mended."""
    rng = random.Random(SEED)
    for _ in range(FRAMES):
        payload = rng.choice(payloads)
        frame = bytearray(
            request(
                payload,
                ip={"ttl": rng.choice((64, 32, 255)), "flags": rng.choice((0, "DF"))},
                udp={"sport": rng.choice((CLIENT_PORT, 1024, PORT + 1))}
                | rng.choice(({}, {"chksum": 0}, {"chksum": pseudo_sum(len(payload))})),
                padding=bytes(rng.choice((0, 0, 18))),
            )
        )
        for mutate in rng.choices(MUTATIONS, WEIGHTS, k=rng.randint(0, 3)):
            mutate(rng, frame)
        yield right_sums(bytes(frame)) if rng.random() < 0.5 else bytes(frame)


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


def wanted(frame: bytes, fast: Fast, skb_mode: bool) -> bytes | None:
    """The reply that must come of a frame, or None."""
    asked = read(frame, skb_mode)
    if asked is None:
        return None
    if fast is Fast.BOUNCE:
        return reply(**answer(asked, asked.payload, skb_mode), padding=asked.padding)
    stored = REPLIES.get(asked.payload)
    return None if stored is None else cached_reply(**answer(asked, stored, skb_mode))


@pytest.mark.parametrize("skb_mode", [False, True], ids=["native", "skb"])
@pytest.mark.parametrize("fast", ASKED, ids=lambda fast: fast.name.lower())
def test_answers_only_what_it_should(host: Host, fast: Fast, skb_mode: bool) -> None:
    host.serve(fast)
    host.describe(skb_mode=skb_mode)
    for payload, stored in REPLIES.items():
        host.fill(payload, stored)
    seen: Counter[Verdict] = Counter()
    for frame in frames(ASKED[fast]):
        out = wanted(frame, fast, skb_mode)
        verdict, *became = host.run(frame)
        seen[verdict] += 1
        expected = [libbpf.XDP_PASS, frame] if out is None else [libbpf.XDP_TX, out]
        assert became == expected, f"{verdict!r} on {frame.hex()}"
    assert seen[Verdict.BOUNCE] + seen[Verdict.HIT] > FRAMES // 10, seen
    assert not [verdict for verdict in REASONS if seen[verdict] < 3], seen
