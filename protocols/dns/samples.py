# SPDX-License-Identifier: Apache-2.0
"""Queries whose hits and misses are measured."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence

from scapy.layers.dns import DNS, DNSQR, DNSRR, DNSRROPT, EDNS0TLV

from carom.kernel import libbpf
from carom.kernel.abi import COOKIES
from carom.protocols.dns.cookie import server_cookie
from carom.protocols.spec import Around, Sample

_QUESTION = DNSQR(qname="www.example.org")
_ADDRESS = DNSRR(rrname="www.example.org", ttl=3600, rdata="198.18.0.9")
_SECRET = bytes(range(16))


def samples(client: str) -> Sequence[Sample]:
    """One query without EDNS, one with it, and one with a right cookie of this client's."""
    ours = bytes(8)
    made = server_cookie(_SECRET, ours, client, int(time.time()))
    option = EDNS0TLV(optcode=10, optdata=ours + made)
    plain = bytes(DNS(id=7, rd=0, qd=_QUESTION))
    missing = plain.replace(b"org", b"com")
    edns, cookie = (
        bytes(DNS(id=7, rd=0, qd=_QUESTION, ar=DNSRROPT(rdata=options)))
        for options in ([], [option])
    )
    reply = bytes(DNS(id=7, qr=1, aa=1, rd=0, qd=_QUESTION, an=_ADDRESS))
    with_edns = bytes(DNS(id=7, qr=1, aa=1, rd=0, qd=_QUESTION, an=_ADDRESS, ar=DNSRROPT()))
    return [
        Sample("dns, www.example.org", plain, reply, miss=("dns, www.example.com", missing)),
        Sample("dns, EDNS", edns, with_edns),
        Sample("dns, EDNS with a cookie", cookie, with_edns, prepare=_prepare),
    ]


def _prepare(around: Around) -> None:
    """Give the kernel the secret, and the wall clock that tells whether a cookie is fresh."""
    number = struct.pack("=I", around.service)
    libbpf.update(around.map("cookies"), number, COOKIES.pack(1, 0, 1, 1, _SECRET))
    ahead = int(time.time() * around.clock.ticks(1.0)) - around.clock.now()
    libbpf.update(around.map("wall"), bytes(4), struct.pack("=Q", ahead % 2**64))
