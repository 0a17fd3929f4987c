# SPDX-License-Identifier: Apache-2.0
"""Replies no longer than the way back is known to take; IPv4's may be fragmented on it."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether

from carom.kernel.abi import REPLY_SAFE, Fast, Verdict
from prog.host import Host
from prog.packets import PLAIN
from prog.test_cache import answer

ASKED = bytes(1300)
WHOLE = 68 - 28
"""Bytes of payload that every link carries in one piece."""


def test_no_longer_than_what_was_set(any_host: Host) -> None:
    any_host.fill(b"k", answer(500))
    any_host.describe(max_reply=500)
    assert any_host.asks(b"k") == any_host.hit(answer(500))
    any_host.describe(max_reply=499)
    assert any_host.asks(b"k") == any_host.missed(Verdict.PASS_MTU, b"k")


def test_the_route_is_asked_from_there_on(any_host: Host) -> None:
    """And says nothing: loopback does not forward. The entry stays."""
    any_host.fill(b"k", answer(REPLY_SAFE))
    any_host.fill(b"longer", answer(REPLY_SAFE + 1))
    any_host.describe(unasked=REPLY_SAFE)
    assert any_host.asks(b"k") == any_host.hit(answer(REPLY_SAFE))
    assert any_host.asks(b"longer") == any_host.missed(Verdict.PASS_MTU, b"longer")
    any_host.describe(unasked=REPLY_SAFE + 1)
    assert any_host.asks(b"longer") == any_host.hit(answer(REPLY_SAFE + 1))


def test_bounced(any_host: Host) -> None:
    any_host.serve(Fast.BOUNCE)
    any_host.describe(unasked=REPLY_SAFE)
    assert any_host.asks(ASKED[:REPLY_SAFE]).verdict is Verdict.BOUNCE
    longer = ASKED[: REPLY_SAFE + 1]
    assert any_host.asks(longer) == any_host.missed(Verdict.PASS_MTU, longer)


class TestFragments:
    """Whether routers may fragment a reply of IPv4's."""

    def replies(self, host: Host, size: int, **ip: object) -> list[IP]:
        host.fill(b"k", answer(size))
        frame = PLAIN.request(b"k", ip=ip)
        outcomes = [host.run(frame) for _ in range(8)]
        assert {one.verdict for one in outcomes} == {Verdict.HIT}
        found = [Ether(one.frame)[IP] for one in outcomes]
        for one in found:
            sent, made = one.chksum, one.copy()
            del made.chksum
            assert IP(bytes(made)).chksum == sent
        return found

    def test_whoever_sends_df_gets_none(self, host: Host) -> None:
        """And ids that are not the request's, nor each other's."""
        found = self.replies(host, WHOLE + 1, flags="DF", id=7)
        assert {int(one.flags) for one in found} == {0}
        assert len({one.id for one in found}) > 4

    def test_what_every_link_takes_stays(self, host: Host) -> None:
        found = self.replies(host, WHOLE, flags="DF", id=7)
        assert {(str(one.flags), one.id) for one in found} == {("DF", 7)}

    def test_an_id_of_the_clients_own_stays(self, host: Host) -> None:
        """Without DF a request has one that tells it apart, and its reply too."""
        assert {one.id for one in self.replies(host, 500, id=7)} == {7}
        assert len({one.id for one in self.replies(host, 500, id=0)}) > 4

    @pytest.mark.parametrize("size", [WHOLE, WHOLE + 1, 600])
    def test_bounced(self, bouncer: Host, size: int) -> None:
        frame = PLAIN.request(bytes(size), ip={"flags": "DF", "id": 7})
        reply = Ether(bouncer.run(frame).frame)[IP]
        assert (str(reply.flags) == "DF") == (size <= WHOLE)
