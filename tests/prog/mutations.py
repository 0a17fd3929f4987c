# SPDX-License-Identifier: Apache-2.0
"""Seeded frames: proper requests by scapy, mutated, some with their checksums mended."""

from __future__ import annotations

import functools
import random
import struct
from collections.abc import Iterator, Sequence

from scapy.utils import checksum

from prog.packets import CLIENT_PORT, PORT, Wire

SEED = 20240607
BROADCAST = "198.18.255.255"
"""Of a host whose address ends in /16."""

SOURCE_PORTS = (CLIENT_PORT, 1024, PORT + 1)

IPV4 = ((0, 1), (1, 1), (2, 2), (4, 2), (6, 2), (8, 1), (9, 1), (10, 2), (12, 4), (16, 4))
IPV6 = ((0, 1), (0, 4), (4, 2), (6, 1), (7, 1), (8, 16), (8, 1), (15, 4), (24, 16), (39, 1))
NEXT_HEADERS = (0, 43, 44, 51, 60, 135)
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


def half_made_at(wire: Wire, frame: bytes) -> int | None:
    """Where the UDP header is, if its checksum is the pseudo-header's sum only."""
    _, _, network = read_tags(frame)
    at = network + wire.transport - wire.network
    if len(frame) < at + 8:
        return None
    addresses = frame[network + (12 if wire.version == 4 else 8) : at]
    length, check = frame[at + 4 : at + 6], frame[at + 6 : at + 8]
    half = words(addresses + struct.pack("!H", 17) + length)
    return at if half == int.from_bytes(check, "big") != 0 else None


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


def say_more_follows(rng: random.Random, frame: bytearray, wire: Wire) -> None:
    """The IP header speaks of options, or of another header behind it."""
    if wire.version == 4:
        frame[wire.network : wire.network + 1] = bytes([0x45 + rng.randint(1, 10)])
    else:
        frame[wire.network + 6 : wire.network + 7] = bytes([rng.choice(NEXT_HEADERS)])


def cut(rng: random.Random, frame: bytearray, _: Wire) -> None:
    del frame[rng.randint(15, len(frame)) :]


def extend(rng: random.Random, frame: bytearray, _: Wire) -> None:
    frame += rng.randbytes(rng.randint(1, 60))


def scramble(rng: random.Random, frame: bytearray, _: Wire) -> None:
    start = rng.randrange(len(frame))
    frame[start:] = rng.randbytes(len(frame) - start)


def replace(rng: random.Random, frame: bytearray, _: Wire) -> None:
    frame[:] = rng.randbytes(rng.randint(15, 200))


MUTATIONS = (flip_bits, set_field, say_more_follows, cut, extend, scramble, replace)
WEIGHTS = (5, 8, 1, 3, 3, 1, 1)


def client_of(rng: random.Random, wire: Wire) -> str:
    """A client's address: nearly each has one of its own, but some are no host's."""
    if wire.version == 6:
        return f"2001:db8:1::{rng.randrange(1, 2**16):x}"
    if rng.random() < 0.02:
        return BROADCAST
    return f"198.19.{rng.randrange(256)}.{rng.randrange(1, 255)}"


def proper(rng: random.Random, wire: Wire, payload: bytes) -> bytes:
    """A request that may well be answered."""
    client = client_of(rng, wire)
    half = {"chksum": wire.pseudo_sum(len(payload), src=client)}
    flags = {"flags": rng.choice((0, "DF"))} if wire.version == 4 else {}
    return wire.request(
        payload,
        ip={"src": client} | wire.ttl(rng.choice((64, 64, 255, 32, 31))) | flags,
        udp={"sport": rng.choice(SOURCE_PORTS)} | rng.choice(({}, {"chksum": 0}, half)),
        padding=bytes(rng.choice((0, 0, 18))),
    )


def made_up(wire: Wire, payloads: Sequence[bytes], count: int) -> Iterator[bytes]:
    """Proper requests, mutated up to three times, some with their checksums mended."""
    rng = random.Random(f"{SEED} {wire}")
    for _ in range(count):
        frame = bytearray(proper(rng, wire, rng.choice(payloads)))
        for mutate in rng.choices(MUTATIONS, WEIGHTS, k=rng.randint(0, 3)):
            mutate(rng, frame, wire)
        yield right_sums(wire, bytes(frame)) if rng.random() < 0.5 else bytes(frame)


@functools.cache
def frames(wire: Wire, payloads: tuple[bytes, ...], count: int) -> list[bytes]:
    """The same, made once."""
    return list(made_up(wire, payloads, count))
