# SPDX-License-Identifier: Apache-2.0
"""`carom replay`: what it says of a capture is what a model of the cache says."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.utils import wrpcap, wrpcapng

from carom.errors import UsageError
from carom.exchanges import exchanges
from carom.lab.tools.replay import Exchange, replay
from carom.protocols import SPECS, kv

RAW, DNS_SPEC, MEMCACHED, KV = (SPECS[name] for name in ("raw", "dns", "memcached", "kv"))
Capture = list[tuple[float, bytes]]
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
"""Said, so that nobody is asked for it."""


def frames(
    requests: list[tuple[float, bytes, bytes | None]], port: int, delay: float = 0.001
) -> Capture:
    """A capture of requests by several clients, each with the reply that it got."""
    found = []
    for number, (time, request, reply) in enumerate(requests):
        client, own = f"198.18.0.{number % 7 + 1}", 2000 + number % 60_000
        there = ETHER / IP(src=client, dst="198.18.1.1") / UDP(sport=own, dport=port)
        back = ETHER / IP(src="198.18.1.1", dst=client) / UDP(sport=port, dport=own)
        found.append((time, bytes(there / request)))
        if reply is not None:
            found.append((time + delay, bytes(back / reply)))
    return sorted(found, key=lambda one: one[0])


def model(asked: list[Exchange], ttl: int) -> int:
    """Hits of a cache that has room for all, where nothing is ever written."""
    expires, coming, hits = dict[bytes, int](), list[tuple[float, bytes]](), 0
    for one in asked:
        for at, key in [early for early in coming if early[0] <= one.at]:
            expires[key] = int(at) + ttl
            coming.remove((at, key))
        if int(one.at) < expires.get(one.request, -1):
            hits += 1
        elif one.reply is not None:
            coming.append((one.replied, one.request))
    return hits


def drawn(count: int, seed: int) -> Iterator[tuple[float, bytes, bytes | None]]:
    source, time = random.Random(seed), 1e9
    for _ in range(count):
        time += source.expovariate(20)
        key = b"key %d" % min(int(source.paretovariate(0.5)), 300)
        yield time, key, None if source.random() < 0.05 else key[::-1]


@pytest.mark.parametrize("ttl", [1, 5, 1000])
@pytest.mark.parametrize("delay", [0.001, 0.2])
def test_hits_are_a_models(ttl: int, delay: float) -> None:
    """Also where replies come after the next request for the same key."""
    asked = exchanges(frames(list(drawn(1500, ttl)), 7000, delay), 7000, RAW.id)
    assert len(asked) == 1500
    done = replay(asked, RAW, 10_000, ttl)
    assert done.hits == model(asked, ttl) > 50
    assert done.verdicts["hit"] == done.hits
    assert sum(done.verdicts.values()) == done.requests == 1500
    assert done.hit_ns > 0 < done.miss_ns


def test_a_small_cache_has_fewer() -> None:
    asked = exchanges(frames(list(drawn(1500, 9)), 7000), 7000, RAW.id)
    small, large = (replay(asked, RAW, size, 1000) for size in (4, 1000))
    assert 0 < small.hits < large.hits
    assert small.entries <= 4 < large.entries
    assert small.memory < large.memory


def query(number: int, name: str) -> tuple[bytes, bytes]:
    question = DNSQR(qname=name)
    answer = DNSRR(rrname=name, ttl=3, rdata="198.18.0.9")
    return (
        bytes(DNS(id=number, rd=1, qd=question)),
        bytes(DNS(id=number, qr=1, rd=1, ra=1, qd=question, an=answer)),
    )


def test_the_servers_ttl_is_heeded() -> None:
    requests = [(100.0 + n, *query(n + 1, "www.example.org")) for n in range(12)]
    done = replay(exchanges(frames(requests, 53), 53, DNS_SPEC.id), DNS_SPEC, 100, 60)
    assert done.hits == 8, "each reply is good for three seconds: for the next two requests"
    done = replay(exchanges(frames(requests, 53), 53, DNS_SPEC.id), DNS_SPEC, 100, 2)
    assert done.hits == 6


def test_replies_belong_to_requests_by_their_ids() -> None:
    """Two at once by one client, answered the other way round."""
    first, second = query(1, "a.example.org"), query(2, "b.example.org")
    ends = {"sport": 4000, "dport": 53}
    back = {"sport": 53, "dport": 4000}
    there = IP(src="198.18.0.1", dst="198.18.1.1")
    home = IP(src="198.18.1.1", dst="198.18.0.1")
    capture = [
        (0.0, bytes(ETHER / there / UDP(**ends) / first[0])),
        (0.1, bytes(ETHER / there / UDP(**ends) / second[0])),
        (0.2, bytes(ETHER / home / UDP(**back) / second[1])),
        (0.3, bytes(ETHER / home / UDP(**back) / first[1])),
    ]
    asked = exchanges(capture, 53, DNS_SPEC.id)
    assert [one.reply for one in asked] == [first[1], second[1]]
    assert [one.replied for one in asked] == pytest.approx([0.3, 0.2])


def test_writes_void() -> None:
    """As requests over UDP say them; a reply that was on its way is not kept."""
    head = b"\0\1\0\0\0\1\0\0"
    get, value = head + b"get k\r\n", head + b"VALUE k 0 1\r\nx\r\nEND\r\n"
    put, stored = head + b"set k 0 0 1\r\ny\r\n", head + b"STORED\r\n"
    requests = [
        (1.0, get, value),
        (2.0, get, value),
        (3.0, put, stored),
        (4.0, get, value),
        (5.0, get, value),
    ]
    done = replay(exchanges(frames(requests, 11211), 11211, MEMCACHED.id), MEMCACHED, 100, 60)
    assert (done.hits, done.verdicts["pass_write"]) == (2, 1)
    late = exchanges(frames([*requests[:1], (1.5, put, stored)], 11211, 1.0), 11211, MEMCACHED.id)
    late.append(Exchange(3.0, get))
    assert replay(late, MEMCACHED, 100, 60).hits == 0


def test_a_python_services_writes_void() -> None:
    put, get = kv.Command(b"PUT", 7, 5).encode(), kv.Command(b"GET", 7).encode()
    requests = [
        (1.0, get, b"4"),
        (2.0, get, b"4"),
        (3.0, put, None),
        (9.0, get, b"5"),
        (9.5, get, b"5"),
    ]
    done = replay(exchanges(frames(requests, 7), 7, KV.id), KV, 100, 60)
    assert (done.hits, done.verdicts["pass_write"]) == (2, 1)


def test_what_is_no_whole_request_is_left_out() -> None:
    good = ETHER / Dot1Q(vlan=5) / IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP(dport=9) / b"a"
    ends = {"src": "198.18.0.1", "dst": "198.18.1.1"}
    fragment = ETHER / IP(flags="MF", **ends) / UDP(dport=9) / b"b"
    tcp = ETHER / IP(proto=6, **ends) / b"c"
    cut = bytes(ETHER / IP(**ends) / UDP(dport=9) / bytes(100))[:60]
    capture = [
        (float(n), bytes(one)) for n, one in enumerate((fragment, tcp, cut, good, b"", b"x" * 9))
    ]
    assert [one.request for one in exchanges(capture, 9, RAW.id)] == [b"a"]
    with pytest.raises(UsageError, match="no whole UDP request to port 10"):
        exchanges(capture, 10, RAW.id)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-P", "-m", "carom", "replay", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("write", [wrpcap, wrpcapng], ids=["pcap", "pcapng"])
def test_the_command(tmp_path: Path, write: object) -> None:
    packets = []
    for time, frame in frames([(1.5 + n, b"k", b"v") for n in range(5)], 7000):
        packets.append(Ether(frame))
        packets[-1].time = time
    file = str(tmp_path / "capture")
    write(file, packets)  # type: ignore[operator]
    done = run(file, "-p", "7000", "--capacity", "10,100", "--ttl", "2s,1m", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["requests"], said["replied"]) == (5, 5)
    found = {(one["capacity"], one["ttl"]): one["hits"] for one in said["caches"]}
    assert found == {(10, 2): 2, (10, 60): 4, (100, 2): 2, (100, 60): 4}
    shown = run(file, "-p", "7000", "--capacity", "10", "--ttl", "1m")
    assert "80.0%" in shown.stdout
    assert "5 requests in 4 s, 5 of them with a reply" in shown.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("none.pcap", "-p", "7"), "cannot read none.pcap: No such file"),
        (("/dev/null", "-p", "7"), "cannot read /dev/null"),
        ((__file__, "-p", "7"), "cannot read"),
        (("x",), "raw has no usual port"),
        (("x", "-p", "0"), "there is no UDP port 0"),
        (("x", "--protocol", "http"), "protocol 'http' is unknown"),
        (("x", "-p", "7", "--capacity", "0"), "'0' is no number of entries"),
        (("x", "-p", "7", "--capacity", "many"), "'many' is no number of entries"),
        (("x", "-p", "7", "--ttl", "soon"), "'soon' is not a duration"),
    ],
)
def test_what_is_wrong_is_said(words: tuple[str, ...], said: str) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
