# SPDX-License-Identifier: Apache-2.0
"""Requests in the words of each protocol, as `carom why` takes them, and their frames."""

from __future__ import annotations

import ipaddress

import dns.message
import dns.rdatatype
import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether

from carom.frames import request_frame, summary
from carom.protocols import SPECS


@pytest.mark.parametrize(
    ("name", "words", "request_"),
    [
        ("raw", b"any text", b"any text"),
        ("kv", b"7", b"GET\x07\0\0\0"),
        ("kv", b"get 7", b"GET\x07\0\0\0"),
        ("kv", b"PUT 7 -1", b"PUT\x07\0\0\0" + b"\xff" * 8),
        ("kv", b"DELETE 4294967295", b"DELETE\xff\xff\xff\xff"),
        ("memcached", b"get foo", b"\0\1\0\0\0\1\0\0get foo\r\n"),
        ("coap", b"/a/b?c", b"\x40\x01\0\1\xb1a\x01b\x41c"),
    ],
)
def test_a_request(name: str, words: bytes, request_: bytes) -> None:
    assert SPECS[name].asking(words) == request_


@pytest.mark.parametrize(("words", "kind"), [(b"example.org", "A"), (b"example.org mx", "MX")])
def test_a_query(words: bytes, kind: str) -> None:
    request = SPECS["dns"].asking(words)
    assert request
    query = dns.message.from_wire(request)
    (question,) = query.question
    assert str(question.name) == "example.org."
    assert question.rdtype == dns.rdatatype.from_text(kind)
    assert query.flags == dns.message.make_query("x", "A").flags


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *(("kv", words) for words in (b"", b"GET", b"GET x", b"GET 4294967296", b"GET 1 2")),
        *(("kv", words) for words in (b"PUT 1", b"WHAT 1", b"GET -1")),
        *(("memcached", words) for words in (b"", b" ")),
        *(("dns", words) for words in (b"", b"example.org NOTYPE", b"a b c", b"x" * 64)),
        ("coap", b"/" + b"x" * 300),
    ],
)
def test_what_asks_for_nothing(name: str, words: bytes) -> None:
    assert SPECS[name].asking(words) is None


CLIENT, HOST = ("198.18.0.1", 40_000), ("198.18.0.2", 11_211)
CLIENT6, HOST6 = ("2001:db8::1", 40_000), ("2001:db8::2", 11_211)
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")


@pytest.mark.parametrize("ends", [(CLIENT, HOST), (CLIENT6, HOST6)], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("tags", [(), (7,), (7, 4094)])
@pytest.mark.parametrize("payload", [b"", b"x", b"get foo\r\n", bytes(range(256))])
def test_frames_are_scapys(
    ends: tuple[tuple[str, int], tuple[str, int]], tags: tuple[int, ...], payload: bytes
) -> None:
    (client, sport), (host, dport) = ends
    packet = Ether(src=MACS[0], dst=MACS[1])
    for tag in tags:
        packet /= Dot1Q(vlan=tag)
    network = IP(src=client, dst=host) if ":" not in host else IPv6(src=client, dst=host)
    made = bytes(packet / network / UDP(sport=sport, dport=dport) / payload)
    source, to = (ipaddress.ip_address(client), sport), (ipaddress.ip_address(host), dport)
    assert request_frame(payload, source, to, MACS, tags) == made
    shown = summary(made)
    assert client in shown and host in shown and f"UDP with {len(payload)} bytes" in shown


@pytest.mark.parametrize("cut", range(0, 46, 3))
def test_whatever_is_cut_off_is_told_of(cut: int) -> None:
    source, to = (ipaddress.ip_address(CLIENT[0]), 1), (ipaddress.ip_address(HOST[0]), 2)
    shown = summary(request_frame(b"some", source, to, MACS)[:cut])
    assert shown.isprintable() and shown
