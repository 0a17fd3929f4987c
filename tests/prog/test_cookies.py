# SPDX-License-Identifier: Apache-2.0
"""DNS cookies: RFC 9018's vectors, what is right and fresh, and hits that return them."""

from __future__ import annotations

import dataclasses
import struct
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import dns.edns
import dns.message
import pytest

from carom.daemon.cache import Cache
from carom.daemon.fastpath import FastPath
from carom.daemon.thread import Thread
from carom.kernel import libbpf
from carom.kernel.abi import (
    COOKIE_SECRETS,
    COOKIE_SIGHT,
    Verdict,
    sum_of,
)
from carom.protocols.dns import SPEC as DNS_SPEC
from carom.protocols.dns.cookie import server_cookie
from carom.protocols.dns.cookies import Cookies
from carom.protocols.spec import Around
from prog.conftest import SETTINGS
from prog.dns_bench import (
    AA,
    COOKIE,
    DO,
    ECS,
    NSID,
    QR,
    RD,
    TXT,
    DNSBench,
    Stored,
    address,
    opt,
    option,
    packed_cookies,
    query,
    reply,
    returned,
    text,
)
from prog.host import Host, Setting, passed, sent
from reference import dns as reference

SECRET, OTHER = bytes.fromhex("e5e973e5a6b2a43f48e7dc849e37bfcf"), bytes(range(16))
CLIENT_COOKIE = b"8 bytes."
NOW = 1_750_000_000
BADCOOKIE = 23


@pytest.fixture(scope="module")
def bench() -> Iterator[DNSBench]:
    with DNSBench() as bench:
        yield bench


def asking(data: bytes, **fields: object) -> bytes:
    """A query with a COOKIE."""
    return query(edns=opt(option(COOKIE, data), **fields))  # type: ignore[arg-type]


class Vector(NamedTuple):
    client: str
    secrets: tuple[str, ...]
    client_cookie: str
    made: int
    server_cookie: str


# RFC 9018, appendix A. In A.3 the server has just made a new secret, and takes both.
OLD, NEW = "dd3bdf9344b678b185a6f5cb60fca715", "445536bcd2513298075a5d379663c962"
FIRST = "e5e973e5a6b2a43f48e7dc849e37bfcf"
VECTORS = {
    "A.1": Vector(
        "198.51.100.100",
        (FIRST,),
        "2464c4abcf10c957",
        1559731985,
        "010000005cf79f111f8130c3eee29480",
    ),
    "A.2": Vector(
        "203.0.113.203",
        (FIRST,),
        "fc93fc62807ddb86",
        1559734700,
        "010000005cf7a9acf73a7810aca2381e",
    ),
    "A.3": Vector(
        "2001:db8:220:1:59de:d0f4:8769:82b8",
        (OLD, NEW),
        "22681ab97d52c298",
        1559741961,
        "010000005cf7c609a6bb79d16625507a",
    ),
}


@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)
def test_the_rfcs_own(bench: DNSBench, vector: Vector) -> None:
    secrets = [bytes.fromhex(one) for one in vector.secrets]
    client = bytes.fromhex(vector.client_cookie)
    whole = client + bytes.fromhex(vector.server_cookie)
    asked = asking(whole)
    assert bench.cookie(asked, vector.client, secrets, vector.made) == (True, True)
    assert any(
        server_cookie(one, client, vector.client, vector.made) == whole[8:] for one in secrets
    )
    assert not bench.cookie(asked, vector.client, [OTHER], vector.made)[0]
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 0x10
        right, _ = bench.cookie(asking(bytes(changed)), vector.client, secrets, vector.made)
        assert not right, at


@pytest.mark.parametrize("client", ["198.18.0.1", "2001:db8::1", "::1", "2001:db8::ffff:c612:1"])
@pytest.mark.parametrize("place", range(COOKIE_SECRETS))
def test_every_secret_is_tried(bench: DNSBench, client: str, place: int) -> None:
    keys = [bytes([n]) * 16 for n in range(COOKIE_SECRETS)]
    whole = CLIENT_COOKIE + server_cookie(keys[place], CLIENT_COOKIE, client, NOW)
    assert bench.cookie(asking(whole), client, keys, NOW) == (True, True)
    assert bench.cookie(asking(whole), client, keys[: place + 1], NOW)[0]
    assert not bench.cookie(asking(whole), client, keys[:place], NOW)[0]
    assert not bench.cookie(asking(whole), "198.18.0.9", keys, NOW)[0]


def test_another_version_is_not_known(bench: DNSBench) -> None:
    """Its hash is over the same bytes."""
    for version in (0, 2, 255):
        made = server_cookie(SECRET, CLIENT_COOKIE, "198.18.0.1", NOW, version=version)
        assert not bench.cookie(asking(CLIENT_COOKIE + made), "198.18.0.1", [SECRET], NOW)[0]


AGES = {0: True, 1: True, 1800: True, 1801: False, 3600: False, -300: True, -301: False}
AGES |= {2**31: False, 2**31 - 1: False, 2**32 - 1: True}


@pytest.mark.parametrize("now", [NOW, 100, 2**32 - 5])
@pytest.mark.parametrize(("age", "fresh"), AGES.items())
def test_ages(bench: DNSBench, now: int, age: int, fresh: bool) -> None:
    """Also where the count of seconds begins anew."""
    made = server_cookie(SECRET, CLIENT_COOKIE, "198.18.0.1", now - age)
    found = bench.cookie(asking(CLIENT_COOKIE + made), "198.18.0.1", [SECRET], now)
    assert found == (True, fresh)


def wholes() -> bytes:
    return CLIENT_COOKIE + server_cookie(SECRET, CLIENT_COOKIE, "198.18.0.1", NOW)


REPLIES = {
    "even": reply(address(), additional=(opt(),)),
    "odd": reply(text(b"odd"), qtype=TXT, additional=(opt(),)),
    "with a cookie": reply(address(), additional=(opt(option(COOKIE, bytes(24))),)),
    "DO": reply(address(), additional=(opt(ttl=DO),)),
    "many": reply(*[text(bytes(n), ttl=n + 1) for n in range(12)], qtype=TXT, additional=(opt(),)),
}


@pytest.mark.parametrize("message", REPLIES.values(), ids=REPLIES)
def test_a_hit_returns_the_requests_own(bench: DNSBench, message: bytes) -> None:
    """As dns.py has it, and dnspython reads it; nothing else is changed."""
    stored, learned = bench.learned(message), reference.learn(message, 1000, returned(message))
    assert stored
    assert learned
    asked = query(
        "WWW.Example",
        int.from_bytes(stored.key[-3:-1]),
        edns=opt(option(COOKIE, wholes()), ttl=DO if stored.key[-1] & 2 else 0),
    )
    given = bench.answer_returning(stored.for_all(), asked, 7)
    assert given == reference.answer(learned, asked, 7, returned=True, spelled=True)
    assert given
    plain = bench.given(stored.for_all(), asked, 7)
    assert plain
    parsed = dns.message.from_wire(given)
    (found,) = parsed.options
    assert isinstance(found, dns.edns.CookieOption)
    assert found.client + found.server == wholes()
    assert len(given) == len(plain) + 28
    assert parsed == dns.message.from_wire(plain)
    assert given[: len(plain) - 2] == plain[:-2]


def test_a_reply_whose_opt_record_is_not_last_passes(bench: DNSBench) -> None:
    """Also one that ends with bytes as an OPT record has them."""
    looks_so = text(b"\0\0\x29\4\xd0\0\0\0\0\0\0")
    for last in (address(), looks_so):
        message = reply(address(), additional=(opt(), last))
        stored, learned = bench.learned(message), reference.learn(message, 1000, returned(message))
        assert stored
        assert learned
        asked = asking(wholes())
        assert bench.given(stored, asked, 0) is not None
        assert bench.answer_returning(stored, asked, 0) is None
        assert reference.answer(learned, asked, 0, returned=True) is None


@pytest.mark.parametrize("short", [0, 1])
def test_the_size_that_a_client_takes_counts_the_cookie(bench: DNSBench, short: int) -> None:
    words = [text(b"x" * size) for size in (250, 250, 99)]
    message = reply(*words, qtype=TXT, additional=(opt(),))
    stored, learned = bench.learned(message), reference.learn(message, 1000, returned(message))
    assert stored
    assert learned
    size = len(message) + 28 - short
    asked = query(qtype=TXT, edns=opt(option(COOKIE, wholes()), size=size))
    given = bench.answer_returning(stored, asked, 0)
    assert given == reference.answer(learned, asked, 0, returned=True)
    assert (given is None) == bool(short)


def test_badcookie_is_never_learned(bench: DNSBench) -> None:
    for flags in (QR | AA | RD | BADCOOKIE & 0xF, QR | AA | RD):
        message = reply(
            address(),
            flags=flags,
            additional=(opt(option(COOKIE, bytes(24)), ttl=BADCOOKIE >> 4 << 24),),
        )
        assert bench.learned(message) is None
        assert reference.learn(message, 1000, returned(message)) is None


# The whole fast path, at both hooks, for both IPs, behind tags.


class DNSHost(Host):
    """A host that fronts a name server whose cookies are made by SECRET; the time is NOW."""

    def __init__(self, fastpath: FastPath, setting: Setting):
        super().__init__(fastpath, setting)
        self.describe(protocol=DNS_SPEC)
        spec = dataclasses.replace(DNS_SPEC, key_of=reference.key_of)
        self.cache = Cache(fastpath.store, self.clock, 1000, 0, spec)
        self.cache.flush()
        self.tell([SECRET])
        self.set_wall(NOW)

    def set_wall(self, seconds: int) -> None:
        """Say what the wall clock shows."""
        ahead = (seconds - self.clock.now()) % 2**64
        libbpf.update(self.fastpath.map("wall"), bytes(4), struct.pack("=Q", ahead))

    def tell(self, secrets: list[bytes], **facts: int) -> None:
        value = packed_cookies(secrets, **facts)
        libbpf.update(self.fastpath.map("cookies"), bytes(4), value)
        self.seen(0)

    def seen(self, epoch: int, *, wrong: int = 0) -> None:
        """Say in which epoch a reply carried a cookie, and by which secrets it was not."""
        value = COOKIE_SIGHT.pack(epoch, 1, 0, wrong)
        libbpf.update(self.fastpath.map("cookie_sights"), bytes(4), value)

    def learn(self, request: bytes, stored: Stored) -> None:
        """Fill as the kernel does: with what the protocol keeps behind the reply."""
        self.cache.fill(request, stored.stored, self.cache.take(request))
        entry = self.entry(stored.key)
        entry["length"] = stored.length
        entry["sum"] = sum_of(stored.stored[: stored.length])

    def whole(self, made: int = NOW, *, secret: bytes = SECRET, client: str | None = None) -> bytes:
        return CLIENT_COOKIE + server_cookie(
            secret, CLIENT_COOKIE, client or self.wire.client, made
        )


@pytest.fixture(params=SETTINGS, ids=str)
def dns_host(request: pytest.FixtureRequest, load_fastpath: Callable[..., FastPath]) -> DNSHost:
    fastpath = load_fastpath(policy="lru", test_clock=True, languages=(DNS_SPEC,))
    return DNSHost(fastpath, request.param)


LENGTHS = {"short": [b"x"], "odd": [b"xy"], "medium": [b"x" * 200], "long": [b"x" * 250] * 4}


def told(bench: DNSBench, host: DNSHost, words: list[bytes]) -> reference.Learned:
    """Have a host learn a reply to a TXT query with EDNS."""
    message = reply(*map(text, words), qtype=TXT, additional=(opt(),))
    stored, learned = bench.learned(message), reference.learn(message, 1000, returned(message))
    assert stored
    assert learned
    host.learn(query(qtype=TXT, edns=opt()), stored.for_all())
    return learned


def ask(data: bytes, *, size: int = 1400, ident: int = 0x4321) -> bytes:
    return query("wWw.eXample", TXT, edns=opt(option(COOKIE, data), size=size), ident=ident)


@pytest.mark.parametrize("words", LENGTHS.values(), ids=LENGTHS)
def test_a_right_cookie_is_a_hit(bench: DNSBench, dns_host: DNSHost, words: list[bytes]) -> None:
    """The frame is right to the last bit, and so are its checksums and lengths."""
    learned = told(bench, dns_host, words)
    for asked in (ask(dns_host.whole()), ask(dns_host.whole(NOW - 1799), ident=1)):
        expected = reference.answer(learned, asked, 0, returned=True, spelled=True)
        assert expected
        assert dns_host.asks(asked) == sent(Verdict.HIT, dns_host.wire.cached_reply(expected))
    plain = query(qtype=TXT, edns=opt(size=1400))
    given = reference.answer(learned, plain, 0)
    assert given
    assert dns_host.asks(plain) == sent(Verdict.HIT, dns_host.wire.cached_reply(given))


def test_what_the_server_has_to_judge_passes(bench: DNSBench, dns_host: DNSHost) -> None:
    told(bench, dns_host, [b"x"])
    whole = dns_host.whole()
    for data in (
        CLIENT_COOKIE,
        CLIENT_COOKIE + bytes(8),
        whole[:-1],
        whole + b"\0",
        whole + bytes(16),
        whole[:-1] + bytes([whole[-1] ^ 1]),
        b"7 bytes." + whole[8:],
        dns_host.whole(NOW - 1801),
        dns_host.whole(NOW - 4000),
        dns_host.whole(NOW + 301),
        dns_host.whole(secret=OTHER),
        dns_host.whole(client="198.18.0.77"),
        dns_host.whole(client="2001:db8::77"),
    ):
        asked = ask(data)
        assert dns_host.asks(asked) == dns_host.missed(Verdict.PASS_COOKIE, asked), data.hex()


def test_what_is_not_understood_passes(bench: DNSBench, dns_host: DNSHost) -> None:
    told(bench, dns_host, [b"x"])
    whole = option(COOKIE, dns_host.whole())
    keepalive, padding = option(11, b""), option(12, bytes(8))
    subnet = option(ECS, b"\0\1\x18\0\xc0\0\2")
    for options in (
        option(COOKIE, b"7 bytes"),
        option(COOKIE, b""),
        option(COOKIE, bytes(9)),
        option(COOKIE, bytes(41)),
        whole + whole,
        *(whole + other for other in (option(NSID, b""), subnet, padding, keepalive)),
        *(other + whole for other in (option(NSID, b""), subnet, padding, keepalive)),
    ):
        asked = query(qtype=TXT, edns=opt(options))
        assert dns_host.asks(asked) == dns_host.missed(Verdict.PASS_REQUEST, asked)
    asked = query(qtype=TXT, counts=(1, 0, 0, 2), behind=opt(whole) + opt(whole))
    assert dns_host.asks(asked) == dns_host.missed(Verdict.PASS_REQUEST, asked)


def test_the_wall_clock_decides(bench: DNSBench, dns_host: DNSHost) -> None:
    """It goes on with the kernel's own, and where it is not known no cookie is fresh."""
    told(bench, dns_host, [b"x"])
    asked = ask(dns_host.whole())
    assert dns_host.asks(asked).verdict == Verdict.HIT
    dns_host.set_wall(NOW + 1790)
    assert dns_host.asks(asked).verdict == Verdict.HIT
    dns_host.clock.advance(11)
    assert dns_host.asks(asked) == dns_host.missed(Verdict.PASS_COOKIE, asked)
    dns_host.set_wall(NOW - 299)
    assert dns_host.asks(asked).verdict == Verdict.HIT
    libbpf.update(dns_host.fastpath.map("wall"), bytes(4), bytes(8))
    assert dns_host.asks(asked) == dns_host.missed(Verdict.PASS_COOKIE, asked)


def test_no_secret_no_hit(bench: DNSBench, dns_host: DNSHost) -> None:
    """What stands where a secret would is none: not the zeros either."""
    told(bench, dns_host, [b"x"])
    dns_host.tell([])
    for secret in (SECRET, bytes(16)):
        asked = ask(dns_host.whole(secret=secret))
        assert dns_host.asks(asked) == dns_host.missed(Verdict.PASS_COOKIE, asked)


def test_secrets_that_the_server_no_longer_has(bench: DNSBench, dns_host: DNSHost) -> None:
    """Its last cookie was not made by them: it may have been given others."""
    told(bench, dns_host, [b"x"])
    asked = ask(dns_host.whole())
    dns_host.tell([SECRET], version=2)
    dns_host.seen(1, wrong=1)  # by those before
    assert dns_host.asks(asked).verdict == Verdict.HIT
    dns_host.seen(1, wrong=2)
    assert dns_host.asks(asked) == dns_host.missed(Verdict.PASS_COOKIE, asked)
    dns_host.tell([SECRET], version=3)
    assert dns_host.asks(asked).verdict == Verdict.HIT


def test_a_server_that_gives_none(bench: DNSBench, dns_host: DNSHost) -> None:
    """Its clients have none of its cookies; whoever has one was given it, and waits for it."""
    learned = told(bench, dns_host, [b"x"])
    asked, whole = ask(CLIENT_COOKIE), ask(dns_host.whole(secret=OTHER))
    dns_host.tell([], epoch=3, none=3)
    expected = reference.answer(learned, asked, 0, spelled=True)
    assert expected
    assert dns_host.asks(asked) == sent(Verdict.HIT, dns_host.wire.cached_reply(expected))
    assert dns_host.asks(whole) == dns_host.missed(Verdict.PASS_COOKIE, whole)
    dns_host.seen(2)  # by the server that was before
    assert dns_host.asks(asked).verdict == Verdict.HIT
    dns_host.seen(3)
    assert dns_host.asks(asked) == dns_host.missed(Verdict.PASS_COOKIE, asked)
    dns_host.tell([], epoch=4, none=3)
    assert dns_host.asks(asked) == dns_host.missed(Verdict.PASS_COOKIE, asked)


def test_the_multiple_counts_the_cookie(bench: DNSBench, dns_host: DNSHost) -> None:
    learned = told(bench, dns_host, [b"xy"])  # without the cookie shorter than its request
    asked = ask(dns_host.whole())
    whole = reference.answer(learned, asked, 0, returned=True, spelled=True)
    assert whole
    assert len(whole) - 28 <= len(asked) < len(whole) <= 2 * len(asked)
    dns_host.describe(multiple=1)
    assert dns_host.asks(asked) == dns_host.missed(Verdict.PASS_AMPLIFY, asked)
    dns_host.describe(multiple=2)
    assert dns_host.asks(asked).verdict == Verdict.HIT


def test_the_mtu_counts_the_cookie(bench: DNSBench, dns_host: DNSHost) -> None:
    learned = told(bench, dns_host, [b"x" * 200])
    asked = ask(dns_host.whole())
    whole = reference.answer(learned, asked, 0, returned=True, spelled=True)
    assert whole
    room = dns_host.wire.headers - dns_host.wire.network + len(whole)
    dns_host.describe(mtu=room - 1)
    assert dns_host.asks(asked) == passed(Verdict.PASS_ROOM, dns_host.wire.request(asked))
    dns_host.describe(mtu=room)
    assert dns_host.asks(asked).verdict == Verdict.HIT


def test_a_stepping_clock_is_followed(
    bench: DNSBench, dns_host: DNSHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what the daemon does, on a host without a server to ask."""
    told(bench, dns_host, [b"x"])
    wall = float(NOW)
    monkeypatch.setattr("time.time", lambda: wall)
    around = Around(dns_host.fastpath.map, dns_host.clock, 0, 53, list, Thread)
    with Cookies(around, None):
        dns_host.tell([SECRET])
        asked = ask(dns_host.whole())
        assert dns_host.asks(asked).verdict == Verdict.HIT
        for step, verdict in ((86_400, Verdict.PASS_COOKIE), (-86_400, Verdict.HIT)):
            wall += step
            while dns_host.asks(asked).verdict != verdict:  # the test's own time limit ends it
                time.sleep(0.02)
