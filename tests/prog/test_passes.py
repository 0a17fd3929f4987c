# SPDX-License-Identifier: Apache-2.0
"""What is malformed, foreign or refused goes on untouched, and its nearest good neighbour does not.

Every row is one change to a request that is answered, in a host that bounces and in one whose cache
holds a reply. BPF_PROG_TEST_RUN takes frames from 14 bytes, so none is cut inside its Ethernet
header.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, LLC, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw, raw

from carom.include.abi import Fast, Verdict
from prog.host import START, Host, Outcome, passed, sent
from prog.packets import (
    CLIENT,
    CLIENT_MAC,
    HEADERS,
    HOST,
    HOST_MAC,
    PORT,
    Fields,
    cached_reply,
    reply,
    request,
)

PAYLOAD = b"the question that has an answer!"
ANSWER = b"an answer of its own, of some length"
GOOD = request(PAYLOAD)

Row = tuple[str, bytes, Verdict]


def eth(**fields: object) -> bytes:
    return request(PAYLOAD, eth=fields)


def ip(**fields: object) -> bytes:
    return request(PAYLOAD, ip=fields)


def udp(**fields: object) -> bytes:
    return request(PAYLOAD, udp=fields)


def ethernet(inside: Packet, **fields: object) -> bytes:
    return raw(Ether(**{"src": CLIENT_MAC, "dst": HOST_MAC} | fields) / inside)


def patched(at: int, data: bytes, frame: bytes = GOOD) -> bytes:
    return frame[:at] + data + frame[at + len(data) :]


def plus(at: int, number: int, frame: bytes = GOOD) -> bytes:
    """A frame whose 16-bit field at `at` is off by so much, modulo 2**16."""
    field = struct.unpack_from("!H", frame, at)[0]
    return patched(at, struct.pack("!H", (field + number) % 0x10000), frame)


def cut_headers() -> Iterator[Row]:
    """Frames that end early, with and without lengths that say so."""
    for n in range(14, 34):
        yield f"cut-ip-{n}", GOOD[:n], Verdict.PASS_TRUNCATED
    for n in range(34, HEADERS):
        honest = request(PAYLOAD, ip={"len": n - 14})
        yield f"cut-udp-{n}", honest[:n], Verdict.PASS_TRUNCATED
    for n in range(34, len(GOOD)):
        yield f"cut-{n}", GOOD[:n], Verdict.PASS_TRUNCATED if n < HEADERS else Verdict.PASS_LENGTH


def foreign() -> Iterator[Row]:
    """Other protocols' frames."""
    datagram = IP(src=CLIENT, dst=HOST) / UDP(sport=40000, dport=PORT) / Raw(PAYLOAD)
    six = IPv6(src="2001:db8::2", dst="2001:db8::1") / UDP(sport=40000, dport=PORT) / Raw(PAYLOAD)
    yield "arp", ethernet(ARP(psrc=CLIENT, pdst=HOST)), Verdict.PASS_ETHERTYPE
    yield "ipv6", ethernet(six), Verdict.PASS_SERVICE
    yield "vlan", ethernet(Dot1Q(vlan=7) / datagram), Verdict.PASS_SERVICE
    qinq = Dot1AD(vlan=7) / Dot1Q(vlan=8)
    yield "qinq", ethernet(qinq / datagram), Verdict.PASS_SERVICE
    yield "three-tags", ethernet(qinq / Dot1Q(vlan=9) / datagram), Verdict.PASS_ETHERTYPE
    yield "802.3", raw(Ether(GOOD[:12] + b"\0\x40") / LLC() / Raw(PAYLOAD)), Verdict.PASS_ETHERTYPE
    yield "ethertype-swapped", eth(type=0x0008), Verdict.PASS_ETHERTYPE
    for name, inside in {
        "tcp": IP(src=CLIENT, dst=HOST) / TCP(sport=40000, dport=PORT) / Raw(PAYLOAD),
        "tcp-cut": IP(src=CLIENT, dst=HOST, proto=6) / Raw(b"\x9c\x40"),
        "icmp": IP(src=CLIENT, dst=HOST) / ICMP() / Raw(PAYLOAD),
    }.items():
        yield name, ethernet(inside), Verdict.PASS_PROTOCOL
    for number in (0, 16, 18, 136, 255):
        yield f"protocol-{number}", ip(proto=number), Verdict.PASS_PROTOCOL


def wrong_ipv4() -> Iterator[Row]:
    """Versions, header lengths and fragments."""
    for number in (0, 5, 6, 15):
        yield f"version-{number}", ip(version=number), Verdict.PASS_VERSION
    for number in range(5):
        yield f"ihl-{number}", ip(ihl=number), Verdict.PASS_VERSION
    one = request(PAYLOAD, ip={"options": [IPOption_NOP()] * 4})
    many = request(PAYLOAD, ip={"options": [IPOption_NOP()] * 40})
    assert (one[14], many[14]) == (0x46, 0x4F)
    yield "options", one, Verdict.PASS_OPTIONS
    yield "options-40-bytes", many, Verdict.PASS_OPTIONS
    yield "ihl-6-without-options", ip(ihl=6), Verdict.PASS_OPTIONS
    yield "fragment-first", ip(flags="MF"), Verdict.PASS_FRAGMENT
    yield "fragment-first-df", ip(flags="MF+DF"), Verdict.PASS_FRAGMENT
    for offset in (1, 0x100, 0x1000, 0x1FFF):
        yield f"fragment-later-{offset}", ip(frag=offset), Verdict.PASS_FRAGMENT
        yield f"fragment-middle-{offset}", ip(frag=offset, flags="MF"), Verdict.PASS_FRAGMENT


def wrong_lengths() -> Iterator[Row]:
    """Lengths of frame, IPv4 and UDP that disagree."""
    whole = len(GOOD) - 14
    for number in (whole + 1, whole + 2, 1500, 0x7FFF, 0xFFFF):
        yield f"ip-len-{number}", ip(len=number), Verdict.PASS_LENGTH
    for number in (0, 8, 19, 20, 27, 28, whole - 1):
        yield f"ip-len-{number}", ip(len=number), Verdict.PASS_LENGTH
    padded = request(PAYLOAD, ip={"len": whole + 2}, padding=b"\0\0")
    yield "ip-len-takes-padding", padded, Verdict.PASS_LENGTH
    for number in (0, 1, 7, 8, whole - 21, whole - 19, whole, 0xFFFF):
        yield f"udp-len-{number}", udp(len=number), Verdict.PASS_LENGTH
    for number in (0, 1, 7):
        both = request(PAYLOAD, ip={"len": 20 + number}, udp={"len": number})
        yield f"both-len-{number}", both, Verdict.PASS_LENGTH
    yield (
        "udp-len-wraps",
        request(PAYLOAD, ip={"len": 19}, udp={"len": 0xFFFF}),
        Verdict.PASS_LENGTH,
    )


def not_ours() -> Iterator[Row]:
    """Other hosts' and everybody's frames, and services that are not there."""
    for mac in (
        "02:00:00:00:00:03",
        "02:00:00:00:01:01",
        "02:00:00:01:00:01",
        "02:00:01:00:00:01",
        "02:01:00:00:00:01",
        "06:00:00:00:00:01",
        "03:00:00:00:00:01",
        "01:00:5e:12:00:01",
        "ff:ff:ff:ff:ff:ff",
        "00:00:00:00:00:00",
        CLIENT_MAC,
    ):
        yield f"mac-{mac}", eth(dst=mac), Verdict.PASS_MAC
    for address in ("198.18.0.3", "198.19.0.1", "1.0.18.198", "224.0.0.1", "255.255.255.255"):
        yield f"address-{address}", ip(dst=address), Verdict.PASS_SERVICE
    for port in (PORT - 1, PORT + 1, int.from_bytes(PORT.to_bytes(2, "big"), "little"), 0):
        yield f"port-{port}", udp(dport=port), Verdict.PASS_SERVICE


def refused() -> Iterator[Row]:
    """Sources that a reply must not go to, and TTLs near their end."""
    for address in (
        HOST,
        "0.0.0.0",
        "0.1.2.3",
        "0.255.255.255",
        "127.0.0.1",
        "127.255.255.255",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.254",
        "255.255.255.255",
    ):
        yield f"source-{address}", ip(src=address), Verdict.PASS_SOURCE
    for mac in ("01:00:5e:00:00:01", "03:00:00:00:00:02", "ff:ff:ff:ff:ff:ff"):
        yield f"source-{mac}", eth(src=mac), Verdict.PASS_SOURCE
    for port in (0, 1, 7, 19, 53, 1023, PORT):
        yield f"source-port-{port}", udp(sport=port), Verdict.PASS_SOURCE
    for number in (0, 1, 2, 31):
        yield f"ttl-{number}", ip(ttl=number), Verdict.PASS_TTL


def wrong_sums() -> Iterator[Row]:
    """Checksums that are not right; each bit counts."""
    for bit in range(16):
        mask = (1 << bit).to_bytes(2, "big")
        for name, at in {"ip": 24, "udp": 40}.items():
            wrong = bytes(a ^ b for a, b in zip(GOOD[at : at + 2], mask, strict=True))
            yield f"{name}-check-bit-{bit}", patched(at, wrong), Verdict.PASS_CHECKSUM
    yield "ip-check-0", ip(chksum=0), Verdict.PASS_CHECKSUM
    yield (
        "ip-check-complement",
        plus(24, -1 - 2 * struct.unpack_from("!H", GOOD, 24)[0]),
        (Verdict.PASS_CHECKSUM),
    )
    yield "udp-check-ffff", udp(chksum=0xFFFF), Verdict.PASS_CHECKSUM
    yield "udp-check-1", udp(chksum=1), Verdict.PASS_CHECKSUM
    yield "ip-id-changed", plus(18, 1), Verdict.PASS_CHECKSUM
    yield "ttl-changed", plus(22, -0x100), Verdict.PASS_CHECKSUM


ROWS = [
    pytest.param(frame, verdict, id=name)
    for rows in (
        cut_headers,
        foreign,
        wrong_ipv4,
        wrong_lengths,
        not_ours,
        refused,
        wrong_sums,
    )
    for name, frame, verdict in rows()
]


@pytest.fixture(params=["bounce", "cache"])
def ready(request: pytest.FixtureRequest, host: Host) -> Host:
    """A host that answers GOOD, in the one way or the other."""
    if request.param == "bounce":
        host.serve(Fast.BOUNCE)
    else:
        host.fill(PAYLOAD, ANSWER)
    return host


def answer_of(host: Host, **fields: Fields) -> Outcome:
    """What the host of `ready` says to GOOD."""
    if host.fast is Fast.BOUNCE:
        return sent(Verdict.BOUNCE, reply(PAYLOAD, **fields))
    return sent(Verdict.HIT, cached_reply(ANSWER, **fields))


@pytest.mark.parametrize(("frame", "verdict"), ROWS)
def test_passes_untouched(ready: Host, frame: bytes, verdict: Verdict) -> None:
    assert ready.run(frame) == passed(verdict, frame)


def test_rows_differ_from_a_good_request() -> None:
    assert not [row.id for row in ROWS if row.values[0] == GOOD]


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        pytest.param({}, {}, id="plain"),
        pytest.param({"ip": {"flags": "DF"}}, {"ip": {"flags": "DF"}}, id="df"),
        pytest.param({"ip": {"ttl": 32}}, {"ip": {"ttl": 31}}, id="ttl-32"),
        pytest.param({"ip": {"ttl": 255}}, {"ip": {"ttl": 254}}, id="ttl-255"),
        pytest.param({"ip": {"tos": 0}}, {}, id="tos-0"),
        pytest.param({"ip": {"tos": 0xFF}}, {}, id="tos-ff"),
        pytest.param({"ip": {"id": 0}}, {"ip": {"id": 0}}, id="id-0"),
        pytest.param({"ip": {"id": 0xFFFF}}, {"ip": {"id": 0xFFFF}}, id="id-ffff"),
        pytest.param({"udp": {"sport": 1024}}, {"udp": {"dport": 1024}}, id="source-port-1024"),
        pytest.param({"udp": {"sport": 65535}}, {"udp": {"dport": 65535}}, id="source-port-65535"),
        pytest.param(
            {"udp": {"sport": PORT - 1}}, {"udp": {"dport": PORT - 1}}, id="source-port-next"
        ),
        *(
            pytest.param({"ip": {"src": address}}, {"ip": {"dst": address}}, id=f"source-{address}")
            for address in (
                "1.0.0.0",
                "126.255.255.255",
                "128.0.0.0",
                "223.255.255.255",
                "198.18.0.0",
                "198.18.0.255",
            )
        ),
        pytest.param(
            {"eth": {"src": "fe:ff:ff:ff:ff:ff"}}, {"eth": {"dst": "fe:ff:ff:ff:ff:ff"}}, id="mac"
        ),
    ],
)
def test_good_neighbours_are_answered(
    ready: Host, asked: dict[str, Fields], answered: dict[str, Fields]
) -> None:
    assert ready.run(request(PAYLOAD, **asked)) == answer_of(ready, **answered)


@pytest.mark.parametrize("length", [0, 257, 1472])
def test_no_key_of_this_length(host: Host, length: int) -> None:
    frame = request(b"x" * length)
    assert host.run(frame) == passed(Verdict.PASS_SIZE, frame)


@pytest.mark.parametrize("length", [1473, 2000])
def test_too_long_to_bounce(bouncer: Host, length: int) -> None:
    frame = request(b"x" * length)
    assert bouncer.run(frame) == passed(Verdict.PASS_SIZE, frame)


def test_service_off(ready: Host) -> None:
    ready.serve(Fast.OFF)
    assert ready.run(GOOD) == passed(Verdict.PASS_OFF, GOOD)


def test_another_address_of_ours_is_no_source(ready: Host) -> None:
    other = "198.18.0.77"
    frame = ip(src=other)
    assert ready.run(frame) == answer_of(ready, ip={"dst": other})
    ready.fastpath.refuse(map(ipaddress.ip_address, (HOST, other)))
    assert ready.run(frame) == passed(Verdict.PASS_SOURCE, frame)


def test_service_withdrawn(ready: Host) -> None:
    ready.fastpath.serve(())
    assert ready.run(GOOD) == passed(Verdict.PASS_SERVICE, GOOD)


@pytest.mark.parametrize("until", [0, 1, START - 1, START])
def test_lease_run_out(ready: Host, until: int) -> None:
    ready.fastpath.lease[0] = until
    assert ready.run(GOOD) == passed(Verdict.PASS_LEASE, GOOD)


def test_lease_runs_out_by_the_clock(ready: Host) -> None:
    ready.fastpath.lease[0] = START + 3
    for _ in range(3):
        assert ready.run(GOOD) == answer_of(ready)
        ready.clock.advance(1)
    assert ready.run(GOOD) == passed(Verdict.PASS_LEASE, GOOD)
    ready.fastpath.lease[0] += 1
    assert ready.run(GOOD) == answer_of(ready)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        pytest.param({"eth": {"dst": CLIENT_MAC}}, Verdict.PASS_MAC, id="mac"),
        pytest.param({"ip": {"ttl": 31}}, Verdict.PASS_TTL, id="ttl"),
        pytest.param({"ip": {"chksum": 1}}, Verdict.PASS_CHECKSUM, id="checksum"),
    ],
)
def test_reasons_hold_without_a_lease(
    ready: Host, changes: dict[str, Fields], verdict: Verdict
) -> None:
    ready.fastpath.lease[0] = 0
    frame = request(PAYLOAD, **changes)
    assert ready.run(frame) == passed(verdict, frame)
