# SPDX-License-Identifier: Apache-2.0
"""What is not answered by choice: other prefixes, long replies; and what XDP leaves to TC."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from carom.daemon import fastpath as fastpaths
from carom.daemon.fastpath import FastPath
from carom.kernel import libbpf
from carom.kernel.abi import HANDED_OVER, Fast, Hook, Verdict
from prog.host import Action, Host, Setting, passed, sent
from prog.packets import PLAIN, WIRES, Wire
from prog.test_cache import answer, question

PAYLOAD, ANSWER = b"a question", b"and what there is to say"
_seconds = itertools.count(30_000, 10)
"""In which no other test has spent anything."""

LONG = 100
"""Bytes that a frame may grow by in the driver of these tests."""


def sources(wire: Wire) -> dict[str, str]:
    """Of requests, by what they are to the prefixes."""
    if wire.version == 4:
        return {"first": "198.18.4.0", "last": "198.18.7.255", "below": "198.18.3.255"} | {
            "above": "198.18.8.0",
            "one": "203.0.113.7",
            "next": "203.0.113.6",
        }
    return {"first": "2001:db8:4::", "last": "2001:db8:7:ffff:ffff:ffff:ffff:ffff"} | {
        "below": "2001:db8:3:ffff::1",
        "above": "2001:db8:8::",
        "one": "2001:db8:ffff::7",
        "next": "2001:db8:ffff::6",
    }


PREFIXES = {
    4: ("198.18.4.0/22", "203.0.113.7/32"),
    6: ("2001:db8:4::/46", "2001:db8:ffff::7/128"),
}
EVERYBODY = {4: "0.0.0.0/0", 6: "::/0"}


@pytest.fixture(params=["bounce", "cache"])
def ready(request: pytest.FixtureRequest, any_host: Host) -> Host:
    """A host that answers PAYLOAD in either way."""
    any_host.fill(PAYLOAD, ANSWER)
    any_host.serve(Fast[request.param.upper()])
    return any_host


def verdicts(host: Host) -> dict[str, Verdict]:
    """On a request of each source; what passes is untouched."""
    found = {}
    for name, source in sources(host.wire).items():
        frame = host.wire.request(PAYLOAD, ip={"src": source})
        outcome = host.run(frame)
        found[name] = outcome.verdict
        if outcome.verdict is Verdict.PASS_ALLOW:
            assert outcome == passed(Verdict.PASS_ALLOW, frame)
        else:
            assert outcome.action is Action.ANSWER
    return found


def expected(host: Host, *answered: str) -> dict[str, Verdict]:
    answer_ = Verdict.BOUNCE if host.fast is Fast.BOUNCE else Verdict.HIT
    return {
        name: answer_ if name in answered else Verdict.PASS_ALLOW for name in sources(host.wire)
    }


class TestAllow:
    """An allow-list."""

    def test_prefixes(self, ready: Host) -> None:
        ready.describe(allow_list=True)
        assert verdicts(ready) == expected(ready)
        ready.fastpath.allow(PREFIXES[4] + PREFIXES[6])
        assert verdicts(ready) == expected(ready, "first", "last", "one")
        ready.fastpath.allow(PREFIXES[ready.wire.version][1:])
        assert verdicts(ready) == expected(ready, "one")
        ready.describe(allow_list=False)
        assert verdicts(ready) == expected(ready, *sources(ready.wire))

    def test_everybody(self, ready: Host) -> None:
        ready.describe(allow_list=True)
        ready.fastpath.allow([EVERYBODY[ready.wire.version]])
        assert verdicts(ready) == expected(ready, *sources(ready.wire))

    def test_everybody_of_the_other_ip_is_nobody(self, ready: Host) -> None:
        """Though ::/0 holds every address, as services are kept."""
        ready.describe(allow_list=True)
        ready.fastpath.allow([EVERYBODY[10 - ready.wire.version], "::/64"])
        assert verdicts(ready) == expected(ready)

    def test_other_reasons_hold(self, ready: Host) -> None:
        ready.describe(allow_list=True)
        ready.fastpath.allow(EVERYBODY.values())
        frame = ready.wire.request(PAYLOAD, udp={"chksum": 1})
        assert ready.run(frame) == passed(Verdict.PASS_CHECKSUM, frame)
        frame = ready.wire.request(PAYLOAD, ip={"src": ready.wire.host})
        assert ready.run(frame) == passed(Verdict.PASS_SOURCE_OWN, frame)


class TestAmplify:
    """A bound on replies, in payloads of their requests."""

    @pytest.mark.parametrize("multiple", [1, 3, 16, 1472])
    @pytest.mark.parametrize("size", [1, 2, 20, 61, 256])
    def test_bound(self, any_host: Host, size: int, multiple: int) -> None:
        any_host.describe(multiple=multiple)
        payload = question(size)
        for reply_size in {0, 1, size * multiple - 1, size * multiple, size * multiple + 1, 1472}:
            if reply_size > 1472:
                continue
            any_host.fill(payload, answer(reply_size))
            expected = (
                any_host.hit(answer(reply_size))
                if reply_size <= size * multiple
                else any_host.missed(Verdict.PASS_AMPLIFY, payload)
            )
            assert any_host.asks(payload) == expected

    def test_none(self, any_host: Host) -> None:
        any_host.fill(b"k", answer(1472))
        any_host.describe(multiple=0)
        assert any_host.asks(b"k") == any_host.hit(answer(1472))

    def test_padding_buys_nothing(self, any_host: Host) -> None:
        any_host.fill(b"k", answer(100))
        any_host.describe(multiple=99)
        frame = any_host.wire.request(b"k", padding=bytes(500))
        assert any_host.run(frame) == passed(Verdict.PASS_AMPLIFY, frame)


class TestHandover:
    """A driver without room to grow, made of a build whose frames grow by LONG bytes at most."""

    @pytest.fixture(scope="class")
    @classmethod
    def cramped(cls) -> Iterator[FastPath]:
        """Such a build."""
        grow = "bpf_xdp_adjust_tail(xdp,by)"
        define = {grow: f"((by)>{LONG}?-22:bpf_xdp_adjust_tail(xdp,by))"}

        recipe = fastpaths.recipe(define)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fastpaths, "recipe", lambda: recipe)
            made = FastPath(test_clock=True)
        with made:
            yield made

    @pytest.fixture(params=WIRES, ids=str)
    def host(self, request: pytest.FixtureRequest, cramped: FastPath) -> Host:
        """A host at XDP with TC behind it."""
        host = Host(cramped, Setting(Hook.XDP, request.param))
        host.describe(hands_over=True)
        return host

    def handed_over(self, host: Host, frame: bytes) -> tuple[int, bytes, bytes]:
        """The action, the packet and the metadata before it."""
        result = libbpf.test_run(host.program, frame, metadata=True)
        start = len(result.data) - len(frame)
        return result.retval, result.data[start:], result.data[:start]

    def test_left_to_tc_untouched(self, host: Host) -> None:
        """But for a word beside it."""
        size = len(PAYLOAD) + LONG + 1
        host.fill(PAYLOAD, answer(size))
        frame = host.wire.request(PAYLOAD)
        before = host.fastpath.verdicts(Hook.XDP)
        action, packet, word = self.handed_over(host, frame)
        after = host.fastpath.verdicts(Hook.XDP)
        assert (action, packet) == (libbpf.XDP_PASS, frame)
        assert word == HANDED_OVER.to_bytes(4, "little")
        assert after[Verdict.PASS_TO_TC] == before[Verdict.PASS_TO_TC] + 1
        assert sum(after.values()) == sum(before.values()) + 1

    def test_what_has_room_is_not(self, host: Host) -> None:
        host.fill(PAYLOAD, answer(len(PAYLOAD) + LONG))
        assert host.asks(PAYLOAD) == host.hit(answer(len(PAYLOAD) + LONG))
        _, _, word = self.handed_over(host, host.wire.request(b"not there"))
        assert word == b""

    def test_nothing_is_handed_over(self, host: Host) -> None:
        host.describe(hands_over=False)
        host.fill(PAYLOAD, answer(500))
        assert host.asks(PAYLOAD) == host.missed(Verdict.PASS_ROOM, PAYLOAD)
        _, packet, word = self.handed_over(host, host.wire.request(PAYLOAD))
        assert (packet, word) == (host.wire.request(PAYLOAD), b"")

    def test_no_room_in_the_mtu(self, host: Host) -> None:
        host.fill(PAYLOAD, answer(500))
        host.describe(mtu=500)
        assert host.asks(PAYLOAD) == host.missed(Verdict.PASS_ROOM, PAYLOAD)

    def test_what_is_left_to_tc_is_paid_there(self, host: Host) -> None:
        """Once: what XDP looks at costs nothing, however often."""
        size = len(PAYLOAD) + LONG + 1
        bytes_ = host.wire.headers + size
        host.clock.advance(next(_seconds))
        host.fill(PAYLOAD, answer(size))
        host.describe(prefix_rate=3 * bytes_, total_rate=3 * bytes_ + 1)
        frame = host.wire.request(PAYLOAD)
        for _ in range(10):
            assert host.run(frame).verdict is Verdict.PASS_TO_TC
        second = host.clock.now()
        at_tc = Host(host.fastpath, Setting(Hook.TC, host.wire))
        at_tc.fastpath.clock[0] = second
        at_tc.fill(PAYLOAD, answer(size))
        at_tc.describe(prefix_rate=3 * bytes_, total_rate=3 * bytes_ + 1, hands_over=True)
        found = []
        for _ in range(4):
            found.append(host.run(frame).verdict)
            found.append(at_tc.run(frame).verdict)
        assert found == [*[Verdict.PASS_TO_TC, Verdict.HIT] * 3, *[Verdict.PASS_RATE] * 2]

    def test_too_large_a_multiple_goes_to_the_server(self, host: Host) -> None:
        host.fill(PAYLOAD, answer(500))
        host.describe(multiple=49)
        assert host.asks(PAYLOAD) == host.missed(Verdict.PASS_AMPLIFY, PAYLOAD)


def test_tc_passes_what_was_not_left_to_it(load_fastpath: Callable[..., FastPath]) -> None:
    """Without the word it counts nothing, reads nothing and answers nothing."""
    for wire in WIRES:
        host = Host(load_fastpath(policy="lru", test_clock=True), Setting(Hook.TC, wire))
        host.fill(PAYLOAD, ANSWER)
        before = [host.fastpath.verdicts(hook) for hook in Hook]
        frame = wire.request(PAYLOAD)
        result = libbpf.test_run(host.fastpath.handover_program, frame)
        assert (result.retval, result.data) == (0xFFFFFFFF, frame)
        assert [host.fastpath.verdicts(hook) for hook in Hook] == before
        assert host.asks(PAYLOAD) == host.hit(ANSWER)


@pytest.mark.parametrize("fast", [Fast.CACHE, Fast.BOUNCE])
def test_a_super_packet_passes_at_tc(load_fastpath: Callable[..., FastPath], fast: Fast) -> None:
    """Many datagrams in one, whether or not they are counted yet."""
    host = Host(load_fastpath(policy="lru", test_clock=True), Setting(Hook.TC, PLAIN))
    host.fill(PAYLOAD, ANSWER)
    host.serve(fast)
    frame = PLAIN.request(PAYLOAD)
    for segments, size in ((2, 5), (0, 5), (1, 5), (5, 2)):
        before = host.fastpath.verdicts(Hook.TC)[Verdict.PASS_LENGTH]
        result = libbpf.test_run(host.program, frame, gso=(segments, size))
        assert (result.retval, result.data) == (0xFFFFFFFF, frame)
        assert host.fastpath.verdicts(Hook.TC)[Verdict.PASS_LENGTH] == before + 1
    assert libbpf.test_run(host.program, frame, gso=(0, 0)).retval == 7


@pytest.mark.parametrize("wire", WIRES, ids=str)
def test_the_storm_of_two_bouncers_ends(load_fastpath: Callable[..., FastPath], wire: Wire) -> None:
    """Two hosts that bounce, each to the other's served port: every reply has a hop less."""
    host = Host(load_fastpath(policy="lru", test_clock=True), Setting(Hook.XDP, wire))
    host.serve(Fast.BOUNCE)
    other = 51_142
    # One fast path plays both: it knows the one port only while it is that host.
    ends = [
        host.place,
        host.place._replace(address=type(host.place.address)(wire.client), port=other),
    ]
    ends[1] = ends[1]._replace(mac=bytes.fromhex("020000000002"))
    frame = wire.request(PAYLOAD, ip=wire.ttl(255), udp={"sport": other})
    replies = 0
    while True:
        end = ends[replies % 2]
        host.fastpath.refuse([end.address])
        host.fastpath.answer_at([end])
        outcome = host.run(frame)
        if outcome.action is not Action.ANSWER:
            break
        assert outcome == sent(Verdict.BOUNCE, outcome.frame)
        frame = outcome.frame
        replies += 1
    assert outcome == passed(Verdict.PASS_TTL, frame)
    assert replies == 255 - 31
