# SPDX-License-Identifier: Apache-2.0
"""What is malformed, foreign or refused goes on untouched, and its nearest good neighbour does not.

Every row is one change to a request that is answered, at either hook, for either IP, behind no, one
or two VLAN tags, in a host that bounces and in one whose cache holds a reply. BPF_PROG_TEST_RUN
takes frames from 15 bytes, so none is cut inside its Ethernet header; it leaves tags in the frame
at TC too, where the kernel takes the outermost off (tests/netns sees to those).
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Iterator

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, LLC, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw, raw

from carom.kernel.abi import Fast, Hook, Verdict
from prog.host import START, Host, Outcome, passed, sent
from prog.packets import CLIENT_MAC, CLIENT_PORT, HOST, PLAIN, PORT, WIRES, Fields, Wire

PAYLOAD = b"the question that has an answer!"
ANSWER = b"an answer of its own, of some length"

Row = tuple[str, bytes, Verdict]


def good(wire: Wire) -> bytes:
    """The request that is answered."""
    return wire.request(PAYLOAD)


def patched(frame: bytes, at: int, data: bytes) -> bytes:
    return frame[:at] + data + frame[at + len(data) :]


def plus(frame: bytes, at: int, number: int) -> bytes:
    """A frame whose 16-bit field at `at` is off by so much, modulo 2**16."""
    field = struct.unpack_from("!H", frame, at)[0]
    return patched(frame, at, struct.pack("!H", (field + number) % 0x10000))


def network(wire: Wire, **fields: object) -> Packet:
    """An IP header from client to host, whose protocol is that of what follows."""
    kind = IP if wire.version == 4 else IPv6
    return kind(**{"src": wire.client, "dst": wire.host} | fields)


def datagram(wire: Wire) -> Packet:
    """A request without its Ethernet header."""
    return network(wire) / UDP(sport=CLIENT_PORT, dport=PORT) / Raw(PAYLOAD)


def cut_headers(wire: Wire) -> Iterator[Row]:
    """Frames that end early, with and without lengths that say so."""
    frame = good(wire)
    for n in range(15, len(frame)):
        verdict = Verdict.PASS_TRUNCATED if n < wire.headers else Verdict.PASS_LENGTH
        yield f"cut-{n}", frame[:n], verdict
    for n in range(wire.transport, wire.headers):
        honest = wire.request(PAYLOAD, ip=wire.length(n - wire.transport))
        yield f"cut-udp-{n}", honest[:n], Verdict.PASS_TRUNCATED


def foreign(wire: Wire) -> Iterator[Row]:
    """Other protocols' frames."""
    arp = ARP(psrc="198.18.0.2", pdst=HOST)
    yield "arp", wire.ethernet(arp), Verdict.PASS_ETHERTYPE
    type_at = wire.network - 2
    for name, number in {
        "802.3": 0x40,
        "swapped": 0x0008,
        "next": 0x86DE,
        "all": 0xFFFF,
    }.items():
        frame = patched(good(wire), type_at, struct.pack("!H", number))
        yield f"type-{name}", frame, Verdict.PASS_ETHERTYPE
    llc = raw(Ether(good(PLAIN)[:12] + b"\0\x40") / LLC() / Raw(PAYLOAD))
    yield "802.3-llc", llc, Verdict.PASS_ETHERTYPE
    other = Wire(10 - wire.version, wire.tags)
    yield "other-ip", good(other), Verdict.PASS_SERVICE
    if wire.version == 4:  # no IPv6 address, though services are kept by it (RFC 4291)
        mapped = other.request(PAYLOAD, ip={"dst": f"::ffff:{HOST}"})
        yield "other-ip-mapped", mapped, Verdict.PASS_SERVICE
    echo = ICMP() if wire.version == 4 else ICMPv6EchoRequest()
    tcp = network(wire) / TCP(sport=CLIENT_PORT, dport=PORT) / Raw(PAYLOAD)
    yield "tcp", wire.ethernet(tcp), Verdict.PASS_PROTOCOL
    yield "tcp-cut", wire.ethernet(tcp)[: wire.transport + 2], Verdict.PASS_PROTOCOL
    yield "icmp", wire.ethernet(network(wire) / echo / Raw(PAYLOAD)), Verdict.PASS_PROTOCOL


def wrong_tags(wire: Wire) -> Iterator[Row]:
    """Tags that are not the service's: more, fewer, others, swapped."""
    for tags in ((), (6,), (7,), (8,), (7, 8), (7, 9), (6, 8), (8, 7), (7, 0), (0, 7)):
        if tags not in (wire.tags, (*wire.tags, 0)):
            yield f"tags-{tags}", good(Wire(wire.version, tags)), Verdict.PASS_SERVICE
    for number in (7 ^ 0x800, 0xFFF):
        if wire.tags:
            other = Wire(wire.version, (*wire.tags[:-1], number))
            yield f"vlan-{number}", good(other), Verdict.PASS_SERVICE
    for inner in (0, 9):
        yield f"three-{inner}", good(Wire(wire.version, (7, 8, inner))), Verdict.PASS_ETHERTYPE
    four = Dot1Q(vlan=7) / Dot1AD(vlan=8) / Dot1Q(vlan=9) / Dot1Q(vlan=10) / datagram(wire)
    yield "four", PLAIN.ethernet(four), Verdict.PASS_ETHERTYPE
    for n in range(15, 22):  # a tag, and a second, cut off
        two = good(Wire(wire.version, (7, 8)))
        yield f"tag-cut-{n}", two[:n], Verdict.PASS_TRUNCATED


def wrong_ip(wire: Wire) -> Iterator[Row]:
    """Versions, header lengths, options, fragments, other protocols."""
    for number in sorted({0, 4, 5, 6, 7, 15} - {wire.version}):
        frame = wire.request(PAYLOAD, ip={"version": number})
        yield f"version-{number}", frame, Verdict.PASS_VERSION
    yield from wrong_ipv4(wire) if wire.version == 4 else wrong_ipv6(wire)


def wrong_ipv4(wire: Wire) -> Iterator[Row]:
    def ip(**fields: object) -> bytes:
        return wire.request(PAYLOAD, ip=fields)

    for number in range(5):
        yield f"ihl-{number}", ip(ihl=number), Verdict.PASS_VERSION
    one, many = (ip(options=[IPOption_NOP()] * n) for n in (4, 40))
    assert (one[wire.network], many[wire.network]) == (0x46, 0x4F)
    yield "options", one, Verdict.PASS_OPTIONS
    yield "options-40-bytes", many, Verdict.PASS_OPTIONS
    yield "ihl-6-without-options", ip(ihl=6), Verdict.PASS_OPTIONS
    yield "fragment-first", ip(flags="MF"), Verdict.PASS_FRAGMENT
    yield "fragment-first-df", ip(flags="MF+DF"), Verdict.PASS_FRAGMENT
    for offset in (1, 0x100, 0x1000, 0x1FFF):
        yield f"fragment-later-{offset}", ip(frag=offset), Verdict.PASS_FRAGMENT
        yield f"fragment-middle-{offset}", ip(frag=offset, flags="MF"), Verdict.PASS_FRAGMENT
    for number in (0, 16, 18, 41, 136, 255):
        yield f"protocol-{number}", ip(proto=number), Verdict.PASS_PROTOCOL


def wrong_ipv6(wire: Wire) -> Iterator[Row]:
    """Extension headers, real ones and by number alone; numbers that are none."""
    inner = UDP(sport=CLIENT_PORT, dport=PORT) / Raw(PAYLOAD)
    for name, header, verdict in (
        ("hop-by-hop", IPv6ExtHdrHopByHop(), Verdict.PASS_OPTIONS),
        ("routing", IPv6ExtHdrRouting(), Verdict.PASS_OPTIONS),
        ("destination", IPv6ExtHdrDestOpt(), Verdict.PASS_OPTIONS),
        ("fragment-only", IPv6ExtHdrFragment(), Verdict.PASS_FRAGMENT),
        ("fragment-first", IPv6ExtHdrFragment(m=1), Verdict.PASS_FRAGMENT),
        ("fragment-later", IPv6ExtHdrFragment(offset=9), Verdict.PASS_FRAGMENT),
        ("both", IPv6ExtHdrHopByHop() / IPv6ExtHdrFragment(), Verdict.PASS_OPTIONS),
    ):
        yield name, wire.ethernet(network(wire) / header / inner), verdict
    for number, verdict in (
        (0, Verdict.PASS_OPTIONS),
        (43, Verdict.PASS_OPTIONS),
        (44, Verdict.PASS_FRAGMENT),
        (51, Verdict.PASS_OPTIONS),
        (60, Verdict.PASS_OPTIONS),
        (135, Verdict.PASS_OPTIONS),
        *((n, Verdict.PASS_PROTOCOL) for n in (1, 4, 6, 16, 18, 41, 50, 58, 59, 132, 136, 255)),
    ):
        yield f"next-{number}", wire.request(PAYLOAD, ip={"nh": number}), verdict


def wrong_lengths(wire: Wire) -> Iterator[Row]:
    """Lengths of frame, IP and UDP that disagree; a jumbogram's 0 (RFC 2675)."""
    udp = 8 + len(PAYLOAD)
    field = next(iter(wire.length(0)))
    base = wire.length(0)[field]

    def rows() -> Iterator[tuple[str, Fields, Fields, bytes]]:
        whole = base + udp
        near = (0, 8, base - 1, base, base + 7, base + 8, whole - 1, whole + 1, whole + 2)
        for number in sorted({*near, 1500, 0x7FFF, 0xFFFF} - {-1}):
            yield f"ip-{number}", {field: number}, {}, b""
        yield "ip-takes-padding", wire.length(udp + 2), {}, b"\0\0"
        for number in (0, 1, 7, 8, udp - 1, udp + 1, udp + 20, 0xFFFF):
            yield f"udp-{number}", {}, {"len": number}, b""
        for number in (0, 1, 7, udp + 1, udp + 2):
            yield f"both-{number}", wire.length(number), {"len": number}, b""
        if wire.version == 4:
            yield "udp-wraps", {"len": 19}, {"len": 0xFFFF}, b""

    for name, ip, transport, padding in rows():
        frame = wire.request(PAYLOAD, ip=ip, udp=transport, padding=padding)
        yield name, frame, Verdict.PASS_LENGTH


def not_ours(wire: Wire) -> Iterator[Row]:
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
        "33:33:00:00:00:01",
        "ff:ff:ff:ff:ff:ff",
        "00:00:00:00:00:00",
        CLIENT_MAC,
    ):
        yield f"mac-{mac}", wire.request(PAYLOAD, eth={"dst": mac}), Verdict.PASS_MAC
    for address in not_our_addresses(wire):
        frame = wire.request(PAYLOAD, ip={"dst": address})
        yield f"address-{address}", frame, Verdict.PASS_SERVICE
    for port in (PORT - 1, PORT + 1, int.from_bytes(PORT.to_bytes(2, "big"), "little"), 0):
        frame = wire.request(PAYLOAD, udp={"dport": port})
        yield f"port-{port}", frame, Verdict.PASS_SERVICE


def not_our_addresses(wire: Wire) -> Iterator[str]:
    """The host's with one bit another in each byte, and some of everybody."""
    ours = ipaddress.ip_address(wire.host)
    for byte in range(len(ours.packed)):
        yield str(ipaddress.ip_address(patched(ours.packed, byte, bytes([ours.packed[byte] ^ 4]))))
    if wire.version == 4:
        yield from ("1.0.18.198", "224.0.0.1", "255.255.255.255")
    else:
        yield from ("::", "::1", "ff02::1", "ff02::1:ff00:1", f"::ffff:{HOST}")


REFUSED_SOURCES = {
    4: {
        Verdict.PASS_SOURCE_OWN: (HOST,),
        Verdict.PASS_SOURCE_NOBODY: ("0.0.0.0", "0.1.2.3", "0.255.255.255"),
        Verdict.PASS_SOURCE_LOOPBACK: ("127.0.0.0", "127.0.0.1", "127.255.255.255"),
        Verdict.PASS_SOURCE_GROUP: (
            *("224.0.0.0", "224.0.0.1", "239.255.255.255", "240.0.0.1"),
            *("255.255.255.254", "255.255.255.255"),
        ),
    },
    6: {
        Verdict.PASS_SOURCE_OWN: ("2001:db8::1",),
        Verdict.PASS_SOURCE_NOBODY: (
            *("::", "::2", "::198.18.0.2", "::ffff:198.18.0.2", "::ffff:127.0.0.1"),
            *("::1:0:1", "::100:0:0:1", "::ffff:ffff:ffff:ffff"),
        ),
        Verdict.PASS_SOURCE_LOOPBACK: ("::1",),
        Verdict.PASS_SOURCE_GROUP: (
            *("ff00::", "ff02::1", "ff0e::2001:db8"),
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ),
    },
}
"""Our own, of nobody, loopback, of many; IPv6 addresses that stand for IPv4 ones are nobody's."""


def refused(wire: Wire) -> Iterator[Row]:
    """Sources that a reply must not go to, and TTLs near their end."""
    for verdict, addresses in REFUSED_SOURCES[wire.version].items():
        for address in addresses:
            yield f"source-{address}", wire.request(PAYLOAD, ip={"src": address}), verdict
    for mac in ("01:00:5e:00:00:01", "33:33:00:00:00:01", "03:00:00:00:00:02", "ff:" * 5 + "ff"):
        yield f"source-{mac}", wire.request(PAYLOAD, eth={"src": mac}), Verdict.PASS_SOURCE_MAC
    for port in (0, 1, 7, 19, 53, 1023, PORT):
        frame = wire.request(PAYLOAD, udp={"sport": port})
        low = Verdict.PASS_SOURCE_LOW
        yield f"source-port-{port}", frame, Verdict.PASS_SOURCE_SERVED if port == PORT else low
    for number in (0, 1, 2, 31):
        yield f"ttl-{number}", wire.request(PAYLOAD, ip=wire.ttl(number)), Verdict.PASS_TTL


def wrong_sums(wire: Wire) -> Iterator[Row]:
    """Checksums that are not right; each bit counts."""
    frame, check = good(wire), wire.check.start
    places = {"udp": check} | ({"ip": wire.network + 10} if wire.version == 4 else {})
    for name, at in places.items():
        right = struct.unpack_from("!H", frame, at)[0]
        for bit in range(16):
            wrong = struct.pack("!H", right ^ 1 << bit)
            yield f"{name}-bit-{bit}", patched(frame, at, wrong), Verdict.PASS_CHECKSUM
        complement = struct.pack("!H", 0xFFFF ^ right)
        yield f"{name}-complement", patched(frame, at, complement), Verdict.PASS_CHECKSUM
    for number in (1, 0xFFFF):
        wrong = struct.pack("!H", number)
        yield f"udp-{number}", patched(frame, check, wrong), Verdict.PASS_CHECKSUM
    if wire.version == 4:
        yield "ip-0", wire.request(PAYLOAD, ip={"chksum": 0}), Verdict.PASS_CHECKSUM
        yield "ip-id-changed", plus(frame, wire.network + 4, 1), Verdict.PASS_CHECKSUM
        yield "ttl-changed", plus(frame, wire.network + 8, -0x100), Verdict.PASS_CHECKSUM
    else:  # none was made, which IPv6 forbids
        yield "udp-0", patched(frame, check, b"\0\0"), Verdict.PASS_CHECKSUM
    for at in range(wire.transport - (8 if wire.version == 4 else 32) + 3, wire.transport, 4):
        if wire.version == 6 and at < wire.transport - 16:  # the source's: still one to answer
            yield f"address-byte-{at}", plus(frame, at - 1, 1), Verdict.PASS_CHECKSUM


TABLES = (cut_headers, foreign, wrong_tags, wrong_ip, wrong_lengths, not_ours, refused, wrong_sums)
ROWS = {(wire, table): list(table(wire)) for wire in WIRES for table in TABLES}


@pytest.fixture(params=["bounce", "cache"])
def ready(request: pytest.FixtureRequest, any_host: Host) -> Host:
    """A host that answers a good request, in the one way or the other."""
    if request.param == "bounce":
        any_host.serve(Fast.BOUNCE)
    else:
        any_host.fill(PAYLOAD, ANSWER)
    return any_host


def answer_of(host: Host, **fields: Fields) -> Outcome:
    """What the host of `ready` says to a good request."""
    if host.fast is Fast.BOUNCE:
        return sent(Verdict.BOUNCE, host.wire.reply(PAYLOAD, **fields))
    return host.hit(ANSWER, **fields)


@pytest.mark.parametrize("table", TABLES)
def test_passes_untouched(ready: Host, table: Callable[[Wire], Iterator[Row]]) -> None:
    wrong = {}
    for name, frame, verdict in ROWS[ready.wire, table]:
        if ready.hook == Hook.TC and not ready.wire.tags and len(frame) < ready.wire.transport:
            continue  # no skb of such is made for a test
        outcome = ready.run(frame)
        if outcome != passed(verdict, frame):
            wrong[name] = f"{outcome.verdict!r}, not {verdict!r}", outcome.action, frame.hex()
    assert not wrong
    assert ready.asks(PAYLOAD) == answer_of(ready), "a good request still is"


def test_rows_differ() -> None:
    """From a good request, and each by its name."""
    for (wire, table), rows in ROWS.items():
        names = [name for name, _, _ in rows]
        assert len(names) == len(set(names)) > 5, (wire, table)
        assert good(wire) not in [frame for _, frame, _ in rows], (wire, table)


NEIGHBOURS: dict[int, tuple[tuple[dict[str, Fields], dict[str, Fields]], ...]] = {
    4: (
        ({"ip": {"flags": "DF"}}, {"ip": {"flags": "DF"}}),
        ({"ip": {"ttl": 32}}, {"ip": {"ttl": 31}}),
        ({"ip": {"ttl": 255}}, {"ip": {"ttl": 254}}),
        ({"ip": {"tos": 0}}, {}),
        ({"ip": {"tos": 0xFF}}, {}),
        ({"ip": {"id": 0}}, {"ip": {"id": 0}}),
        ({"ip": {"id": 0xFFFF}}, {"ip": {"id": 0xFFFF}}),
    ),
    6: (
        ({"ip": {"hlim": 32}}, {"ip": {"hlim": 31}}),
        ({"ip": {"hlim": 255}}, {"ip": {"hlim": 254}}),
        ({"ip": {"tc": 0, "fl": 0}}, {}),
        ({"ip": {"tc": 0xFF, "fl": 0xFFFFF}}, {}),
        ({"ip": {"tc": 3, "fl": 1}}, {}),
    ),
}
"""What the next request to a good one asks, and what changes in its reply."""

GOOD_SOURCES = {
    4: (
        "1.0.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "223.255.255.255",
        "198.18.0.0",
        "198.18.0.255",
    ),
    6: (
        "0:0:0:1::",
        "0:1::",
        "1::",
        "64:ff9b::198.18.0.2",
        "2001:db8::",
        "2001:db8::1:1",
        "2001:db8:1::1",
        "fd00::1",
        "fe80::1",
        "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ),
}


def test_good_neighbours_are_answered(ready: Host) -> None:
    sources = GOOD_SOURCES[ready.wire.version]
    for asked, answered in (
        ({}, {}),
        *NEIGHBOURS[ready.wire.version],
        *(({"ip": {"src": address}}, {"ip": {"dst": address}}) for address in sources),
        *(({"udp": {"sport": n}}, {"udp": {"dport": n}}) for n in (1024, PORT - 1, 65535)),
        ({"eth": {"src": "fe:ff:ff:ff:ff:ff"}}, {"eth": {"dst": "fe:ff:ff:ff:ff:ff"}}),
    ):
        frame = ready.wire.request(PAYLOAD, **asked)
        assert ready.run(frame) == answer_of(ready, **answered), asked


def test_a_priority_tag_is_no_tag(ready: Host) -> None:
    """VLAN id 0 says a priority only (802.1Q): answered as without it, and it stays."""
    version, tags = ready.wire
    if len(tags) == 2:
        pytest.skip("two tags are as many as are read")
    tagged = Wire(version, (*tags, 0))
    expected = (
        sent(Verdict.BOUNCE, tagged.reply(PAYLOAD))
        if ready.fast is Fast.BOUNCE
        else sent(Verdict.HIT, tagged.cached_reply(ANSWER))
    )
    assert ready.run(tagged.request(PAYLOAD)) == expected


def test_another_interface(ready: Host) -> None:
    ready.describe(ifindex=ready.place.ifindex + 1)
    assert ready.asks(PAYLOAD) == ready.missed(Verdict.PASS_SERVICE, PAYLOAD)


@pytest.mark.parametrize("length", [0, 257, 1472])
def test_no_key_of_this_length(any_host: Host, length: int) -> None:
    payload = b"x" * length
    assert any_host.asks(payload) == any_host.missed(Verdict.PASS_SIZE, payload)


@pytest.mark.parametrize("length", [1473, 2000])
def test_too_long_to_bounce(any_bouncer: Host, length: int) -> None:
    payload = b"x" * length
    assert any_bouncer.asks(payload) == any_bouncer.missed(Verdict.PASS_SIZE, payload)


def test_service_off(ready: Host) -> None:
    ready.serve(Fast.OFF)
    assert ready.asks(PAYLOAD) == ready.missed(Verdict.PASS_OFF, PAYLOAD)


def test_another_address_of_ours_is_no_source(ready: Host) -> None:
    other = "198.18.0.77" if ready.wire.version == 4 else "2001:db8::77"
    frame = ready.wire.request(PAYLOAD, ip={"src": other})
    assert ready.run(frame) == answer_of(ready, ip={"dst": other})
    ready.fastpath.refuse(map(ipaddress.ip_address, (ready.wire.host, other)))
    assert ready.run(frame) == passed(Verdict.PASS_SOURCE_OWN, frame)


@pytest.mark.parametrize("port", [1024, 1087, 1088, 40_000, 65_535])
def test_a_served_port_is_no_source(ready: Host, port: int) -> None:
    """Any service's: a reply to it could be answered there, and so on."""
    frame = ready.wire.request(PAYLOAD, udp={"sport": port})
    assert ready.run(frame) == answer_of(ready, udp={"dport": port})
    ready.fastpath.answer_at([ready.place, ready.place._replace(port=port, service=1)])
    assert ready.run(frame) == passed(Verdict.PASS_SOURCE_SERVED, frame)
    beside = ready.wire.request(PAYLOAD, udp={"sport": port ^ 1})
    assert ready.run(beside) == answer_of(ready, udp={"dport": port ^ 1})
    ready.fastpath.answer_at([ready.place])
    assert ready.run(frame) == answer_of(ready, udp={"dport": port})


def test_service_withdrawn(ready: Host) -> None:
    ready.fastpath.answer_at(())
    assert ready.asks(PAYLOAD) == ready.missed(Verdict.PASS_SERVICE, PAYLOAD)


@pytest.mark.parametrize("until", [0, 1, START - 1, START])
def test_lease_run_out(ready: Host, until: int) -> None:
    ready.fastpath.lease[0] = until
    assert ready.asks(PAYLOAD) == ready.missed(Verdict.PASS_LEASE, PAYLOAD)


def test_lease_runs_out_by_the_clock(ready: Host) -> None:
    ready.fastpath.lease[0] = START + 3
    for _ in range(3):
        assert ready.asks(PAYLOAD) == answer_of(ready)
        ready.clock.advance(1)
    assert ready.asks(PAYLOAD) == ready.missed(Verdict.PASS_LEASE, PAYLOAD)
    ready.fastpath.lease[0] += 1
    assert ready.asks(PAYLOAD) == answer_of(ready)


def test_reasons_hold_without_a_lease(ready: Host) -> None:
    ready.fastpath.lease[0] = 0
    for changes, verdict in (
        ({"eth": {"dst": CLIENT_MAC}}, Verdict.PASS_MAC),
        ({"ip": ready.wire.ttl(31)}, Verdict.PASS_TTL),
        ({"udp": {"sport": 1}}, Verdict.PASS_SOURCE_LOW),
    ):
        frame = ready.wire.request(PAYLOAD, **changes)
        assert ready.run(frame) == passed(verdict, frame)
    if ready.wire.version == 4:
        frame = ready.wire.request(PAYLOAD, ip={"chksum": 1})
        assert ready.run(frame) == passed(Verdict.PASS_CHECKSUM, frame)
