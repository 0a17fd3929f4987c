# SPDX-License-Identifier: Apache-2.0
"""dns: responses a second to one prefix, and what becomes of those beyond."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from scapy.layers.dns import DNS, DNSQR, DNSRR, DNSRROPT, DNSRRSOA
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether

from carom.daemon.fastpath import FastPath
from carom.daemon.learning import before_reply
from carom.kernel import libbpf
from carom.kernel.abi import Verdict
from carom.protocols import spec
from prog.conftest import GENERIC, SETTINGS
from prog.host import Host, passed

NAME, MIXED = "www.example.org", "wwW.exAMPle.cOm"
LIMIT = 4
_seconds = itertools.count(20_000, 10)


DNS_SPEC = spec("dns")


@pytest.fixture(params=SETTINGS + GENERIC, ids=str)
def host(request: pytest.FixtureRequest, load_fastpath: Callable[..., FastPath]) -> Host:
    """One that knows the address of NAME, and that NOPE is not."""
    options = {"languages": (DNS_SPEC,), "test_clock": True}
    host = Host(load_fastpath(**options), request.param)
    host.clock.advance(next(_seconds))
    host.describe(protocol=DNS_SPEC, service=DNS_SPEC.number)
    address = DNSRR(rrname="www.example.org", ttl=3600, rdata="198.18.0.9")
    soa = DNSRRSOA(rrname="example.org", ttl=60, mname="ns", rname="x", minimum=60)
    ar = DNSRROPT(rclass=1232)
    for reply in (
        DNS(qr=1, aa=1, rd=0, qd=DNSQR(qname="www.example.org"), an=address),
        DNS(qr=1, aa=1, rd=0, qd=DNSQR(qname="www.example.org"), an=address, ar=ar),
        DNS(qr=1, rd=1, ra=1, qd=DNSQR(qname="www.example.org"), an=address),
        DNS(qr=1, aa=1, rd=0, cd=1, qd=DNSQR(qname=MIXED), an=address),
        DNS(qr=1, aa=1, rd=0, rcode=3, qd=DNSQR(qname="nope.example.org"), ns=soa),
    ):
        learn = host.fastpath.load("learn_frame")
        asked = DNS(id=1, rd=reply.rd, cd=reply.cd, qd=reply.qd, ar=reply.ar)
        front = before_reply(DNS_SPEC, bytes(asked), host.fastpath.store.voids[0])
        assert libbpf.test_run(learn, front + bytes(reply)).retval == libbpf.XDP_PASS
    return host


def query(name: str = NAME, **fields: object) -> bytes:
    return bytes(DNS(**{"id": 0xBEEF, "rd": 0} | fields, qd=DNSQR(qname=name)))


def beyond(host: Host, message: bytes, times: int, source: str | None = None) -> list[Verdict]:
    fields = {"ip": {"src": source}} if source else {}
    frame = host.wire.request(message, **fields)
    found = []
    for _ in range(times):
        outcome = host.run(frame)
        if outcome.verdict is Verdict.PASS_RESPONSES:
            assert outcome == passed(Verdict.PASS_RESPONSES, frame)
        found.append(outcome.verdict)
    return found


@pytest.mark.parametrize("slip", [0, 1, 2, 3])
def test_limit_and_slip(host: Host, slip: int) -> None:
    """Within a second so many; then every so manieth is truncated. The next begins anew."""
    host.describe(responses=LIMIT, slip=slip)
    for _ in range(2):
        found = beyond(host, query(), LIMIT + 6)
        assert found[:LIMIT] == [Verdict.HIT] * LIMIT
        for number, verdict in enumerate(found[LIMIT:], 1):
            turn = slip and number % slip == 0
            assert verdict is (Verdict.SLIP if turn else Verdict.PASS_RESPONSES)
        host.clock.advance(1)


def test_prefixes(host: Host) -> None:
    """/24 and /56, as BIND's rate-limit has them; all names together."""
    host.describe(responses=1, slip=0)
    one, same, other = (
        ("198.18.5.1", "198.18.5.254", "198.18.6.1")
        if host.wire.version == 4
        else ("2001:db8:0:500::1", "2001:db8:0:5ff:1::1", "2001:db8:0:600::1")
    )
    assert beyond(host, query(), 1, one) == [Verdict.HIT]
    assert beyond(host, query("nope.example.org"), 1, same) == [Verdict.PASS_RESPONSES]
    assert beyond(host, query(), 1, other) == [Verdict.HIT]


def test_no_bound(host: Host) -> None:
    assert set(beyond(host, query(), 50)) == {Verdict.HIT}


def slipped(host: Host, message: bytes) -> DNS:
    """The truncated reply, with a right checksum, by a frame that was answered."""
    host.describe(responses=1, slip=1)
    frame = host.wire.request(message)
    host.run(frame)
    outcome = host.run(frame)
    assert outcome.verdict is Verdict.SLIP
    payload = bytes(Ether(outcome.frame)[UDP].payload)[: Ether(outcome.frame)[UDP].len - 8]
    assert outcome.frame == host.wire.cached_reply(payload)
    return DNS(payload)


@pytest.mark.parametrize(
    ("message", "flags"),
    [
        (query(), {"aa": 1, "rd": 0, "ra": 0, "rcode": 0}),
        (query(MIXED, cd=1), {"aa": 1, "rd": 0, "ra": 0, "cd": 1, "rcode": 0}),
        (query(rd=1), {"aa": 0, "rd": 1, "ra": 1, "rcode": 0}),
        (query("nope.example.org"), {"aa": 1, "rd": 0, "ra": 0, "rcode": 3}),
        (query(ar=DNSRROPT(rclass=4096)), {"aa": 1, "rd": 0, "ra": 0, "rcode": 0}),
    ],
    ids=["plain", "0x20", "recursion", "nxdomain", "edns"],
)
def test_what_is_truncated(host: Host, message: bytes, flags: dict[str, int]) -> None:
    """The question as it was asked, no record, TC; OPT where there was one."""
    reply, asked = slipped(host, message), DNS(message)
    assert (reply.id, reply.qr, reply.tc, reply.opcode) == (asked.id, 1, 1, 0)
    assert {name: getattr(reply, name) for name in flags} == flags
    assert bytes(reply.qd[0]) == bytes(asked.qd[0])
    assert not reply.an
    assert not reply.ns
    assert len(bytes(reply)) == len(message), "never longer than what was asked"
    assert bool(reply.ar) == bool(asked.ar)
    if reply.ar:
        assert (reply.ar[0].type, reply.ar[0].rclass, reply.ar[0].rdata) == (41, 1232, [])


def test_whoever_sent_a_cookie_is_left_to_the_server(host: Host) -> None:
    """A client that insists on its cookie would take no reply without one."""
    host.describe(responses=1, slip=1)
    cookie = b"\0\x0a\0\x08" + b"client's"
    plain = query()
    message = plain[:11] + b"\1" + plain[12:] + b"\0\0\x29\x04\xd0\0\0\x80\0\0\x0c" + cookie
    assert beyond(host, message, 3) == [Verdict.PASS_COOKIE] * 3
