# SPDX-License-Identifier: Apache-2.0
"""The load generator's program, frame by frame: what it sends, and how it judges what comes back.

Run here, frames come in by the interface `lo`: they are replies when the program is told that it is
there, and slots for requests when it is told otherwise.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carom.errors import UsageError
from carom.kernel import libbpf
from carom.kernel.links import Interface
from carom.lab.clients.buckets import bucket
from carom.lab.clients.load import PAYLOAD_MAX, Generator, Options, Target
from carom.lab.clients.mix import Choice, Mix
from prog.packets import (
    CLIENT,
    CLIENT_MAC,
    CLIENT_PORT,
    FRAME_MIN,
    HOST,
    HOST_MAC,
    PORT,
    pseudo_sum,
    reply,
    request,
    sum_of_words,
    tuned,
)

FIRST = 61_000
PORTS = 40
START = 10**12
"""The time when a test begins, ns."""
TIMEOUT = 100_000_000

LO, ELSEWHERE = 1, 2
SIZES = (1, 2, 7, 8, 9, 17, 18, 19, 32, 63, 64, 65, 511, 512, 1471, 1472)
DAMAGED = SIZES.index(8)
"""The port whose replies are damaged."""


def pattern(length: int) -> bytes:
    """Bytes that differ from their neighbours."""
    return bytes((i * 7 + i // 256 * 3 + 1) % 256 for i in range(length))


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


class Lab:
    """A generator that is driven slot by slot, reply by reply and ns by ns."""

    def __init__(self, generator: Generator, options: Options, *, verify: bool = True):
        self.generator = generator
        self._options = options
        self._verify = verify
        self.reset()

    def reset(self) -> None:
        self.generator.state[:] = 0
        self.generator.flights[:] = 0
        self.time = START

    @property
    def time(self) -> int:
        return int(self.generator.clock[0])

    @time.setter
    def time(self, ns: int) -> None:
        self.generator.clock[0] = ns

    def _be_at(self, ifindex: int) -> None:
        own = Interface(ifindex, "made-up", mac(CLIENT_MAC), 1500, True, "none", ())
        to = Target(
            own, ipaddress.IPv4Address(CLIENT), mac(HOST_MAC), ipaddress.IPv4Address(HOST), PORT
        )
        self.generator.configure(to, self._options, verify=self._verify)

    def slot(self, frame: bytes = b"\xa5" * 1514) -> bytes | None:
        """Use one slot, on a frame that was used before: what is sent, or None."""
        self._be_at(ELSEWHERE)
        found = libbpf.test_run(self.generator.program, frame)
        assert found.retval in (libbpf.XDP_REDIRECT, libbpf.XDP_DROP)
        return found.data if found.retval == libbpf.XDP_REDIRECT else None

    def counts(self) -> dict[str, int]:
        """All that is counted, of requests and of replies."""
        names = ("reads", "writes", "reads_lost", "writes_lost", "skipped", "faults")
        counts = {name: self.generator.counter(name) for name in names}
        return counts | self.generator.tally()[0]

    def hear(self, frame: bytes) -> str:
        """Give it a frame: which count rose by one; "" when it was passed untouched."""
        self._be_at(LO)
        before = self.counts()
        found = libbpf.test_run(self.generator.program, frame)
        after = self.counts()
        rose = {name: n - before[name] for name, n in after.items() if n != before[name]}
        if found.retval == libbpf.XDP_PASS:
            assert (rose, found.data) == ({}, frame)
            return ""
        assert found.retval == libbpf.XDP_DROP
        assert list(rose.values()) == [1]
        return next(iter(rose))

    def flying(self, port: int = 0) -> bool:
        """Has this source port a request outstanding?"""
        return bool(self.generator.flights[port, 0])


def made(mix: Mix, expect: Any, **options: object) -> Generator:
    own = Interface(ELSEWHERE, "made-up", mac(CLIENT_MAC), 1500, True, "none", ())
    to = Target(
        own, ipaddress.IPv4Address(CLIENT), mac(HOST_MAC), ipaddress.IPv4Address(HOST), PORT
    )
    given_ = Options(source_ports=PORTS, **options)  # type: ignore[arg-type]
    return Generator(to, mix, given_, expect, test_clock=True)


@pytest.fixture(scope="module")
def echo_generator() -> Iterator[Generator]:
    mix = Mix([pattern(size) for size in SIZES], [], Choice(draw="sequential"))
    with made(mix, lambda payload: payload) as generator:
        yield generator


@pytest.fixture
def lab(echo_generator: Generator) -> Lab:
    """Requests and replies of all SIZES in turn."""
    return Lab(echo_generator, Options(source_ports=PORTS))


def sent(payload: bytes, port: int = 0) -> bytes:
    """The frame that must leave."""
    frame = request(
        payload,
        ip={"tos": 0, "ttl": 64, "id": 0, "flags": "DF"},
        udp={"sport": FIRST + port},
    )
    return frame.ljust(FRAME_MIN, b"\0")


def answer(payload: bytes, port: int = 0, **fields: Any) -> bytes:
    """A service's frame to a source port."""
    fields["udp"] = {"dport": FIRST + port} | fields.get("udp", {})
    return reply(payload, **fields)


def test_requests_leave_in_turn_from_ports_in_turn(lab: Lab) -> None:
    for number in range(2 * len(SIZES)):
        payload = pattern(SIZES[number % len(SIZES)])
        assert lab.slot() == sent(payload, number)
        assert lab.generator.counter("reads") == number + 1
    assert lab.generator.outstanding() == (2 * len(SIZES), 0)


@pytest.mark.parametrize("length", [60, 61, 1000, 1514])
def test_any_frame_will_do(lab: Lab, length: int) -> None:
    assert lab.slot(b"\xff" * length) == sent(pattern(SIZES[0]))


def test_a_sum_of_zero_is_sent_as_ones() -> None:
    payload = tuned(0, pattern(32))
    with made(Mix([payload], [], Choice()), None, first_port=CLIENT_PORT) as generator:
        options = Options(source_ports=PORTS, first_port=CLIENT_PORT)
        frame = Lab(generator, options).slot()
    assert frame == sent(payload, CLIENT_PORT - FIRST)
    assert frame[40:42] == b"\xff\xff"


def test_a_port_with_a_request_outstanding_is_not_used(lab: Lab) -> None:
    for port in range(PORTS):
        assert lab.slot() == sent(pattern(SIZES[port % len(SIZES)]), port)
    assert lab.slot() is None
    assert lab.counts()["skipped"] == 1
    assert lab.hear(answer(pattern(SIZES[25 % len(SIZES)]), 25)) == "answered"
    payload = pattern(SIZES[PORTS % len(SIZES)])  # a skipped slot has not used its draw
    sent_by_25 = [frame for frame in (lab.slot() for _ in range(PORTS)) if frame]
    assert sent_by_25 == [sent(payload, 25)]


def test_an_unanswered_request_is_lost_after_twice_the_timeout(lab: Lab) -> None:
    for _ in range(PORTS):
        assert lab.slot()
    lab.time = START + 2 * TIMEOUT - 1
    assert lab.slot() is None
    assert lab.counts()["reads_lost"] == 0
    lab.time += 1
    assert lab.slot()
    counts = lab.counts()
    assert (counts["reads_lost"], counts["reads"], counts["skipped"]) == (1, PORTS + 1, 1)
    assert lab.generator.outstanding() == (PORTS, 0)


@pytest.mark.parametrize("size", SIZES)
def test_the_right_reply(lab: Lab, size: int) -> None:
    while lab.slot() != sent(pattern(size), port := lab.generator.counter("reads") - 1):
        pass
    frame = answer(pattern(size), port, padding=b"\xa5" * 18)
    assert lab.hear(frame) == "answered"
    assert not lab.flying(port)
    assert lab.hear(frame) == "duplicated"


def at_size(lab: Lab, size: int) -> int:
    """Send until a request of this size; its port."""
    lab.reset()
    for port, one in enumerate(SIZES):
        assert lab.slot()
        if one == size:
            return port
    raise AssertionError(size)


@pytest.mark.parametrize("size", SIZES)
def test_every_byte_counts(lab: Lab, size: int) -> None:
    payload = pattern(size)
    for at in {0, size // 3, size // 2, size - 1}:
        port = at_size(lab, size)
        bad = payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]
        assert lab.hear(answer(bad, port)) == "wrong"
        assert not lab.flying(port), "that was its reply"


@pytest.mark.parametrize("size", SIZES)
def test_other_lengths_are_wrong(lab: Lab, size: int) -> None:
    for length in {0, size - 1, size + 1, PAYLOAD_MAX, 1480} - {size}:
        port = at_size(lab, size)
        assert lab.hear(answer(pattern(length), port)) == "wrong", length


def wrong_sum(payload: bytes) -> int:
    return int.from_bytes(answer(payload)[40:42], "big") ^ 0x0100


@pytest.mark.parametrize("size", SIZES)
def test_checksums(lab: Lab, size: int) -> None:
    payload = pattern(size)
    for check, outcome in (
        (0, "answered"),
        (pseudo_sum(size, src=HOST, dst=CLIENT), "answered"),
        (wrong_sum(payload), "wrong"),
        (0xFFFF ^ pseudo_sum(size, src=HOST, dst=CLIENT), "wrong"),
    ):
        port = at_size(lab, size)
        frame = answer(payload, port, udp={"chksum": check})
        # By chance one of them may be right.
        expected = "answered" if sum_of_words(frame) == 0xFFFF else outcome
        assert lab.hear(frame) == expected, hex(check)


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(answer(pattern(8), DAMAGED, ip={"chksum": 1}), id="ipv4-checksum"),
        pytest.param(answer(pattern(8), DAMAGED, udp={"len": 17}), id="udp-longer-than-ip"),
        pytest.param(answer(pattern(8), DAMAGED, udp={"len": 15}), id="udp-shorter-than-ip"),
        pytest.param(answer(pattern(8), DAMAGED, udp={"len": 7}), id="udp-below-its-header"),
        pytest.param(answer(pattern(8), DAMAGED, ip={"len": 1000}), id="ip-longer-than-frame"),
        pytest.param(
            answer(pattern(8), DAMAGED, ip={"len": 40}, udp={"chksum": 0}, padding=bytes(4)),
            id="ip-longer-than-udp",
        ),
        pytest.param(answer(pattern(8), DAMAGED, ip={"len": 45}, udp={"len": 25}), id="cut-off"),
    ],
)
def test_a_damaged_reply_is_wrong(lab: Lab, frame: bytes) -> None:
    """Its bytes are those of the right reply to the port's request."""
    assert at_size(lab, 8) == DAMAGED
    assert lab.hear(frame) == "wrong"


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(answer(pattern(1), ip={"src": "198.18.0.9"}), id="another-host"),
        pytest.param(answer(pattern(1), ip={"dst": "198.18.0.9"}), id="to-another-host"),
        pytest.param(answer(pattern(1), udp={"sport": PORT + 1}), id="another-port"),
        pytest.param(answer(pattern(1), udp={"dport": FIRST - 1}), id="below-our-ports"),
        pytest.param(answer(pattern(1), udp={"dport": FIRST + PORTS}), id="above-our-ports"),
        pytest.param(answer(pattern(1), ip={"proto": 6}), id="tcp"),
        pytest.param(answer(pattern(1), ip={"flags": "MF"}), id="first-fragment"),
        pytest.param(answer(pattern(1), ip={"frag": 1}), id="later-fragment"),
        pytest.param(answer(pattern(1), eth={"type": 0x86DD}), id="not-ipv4"),
        pytest.param(answer(pattern(1))[:41], id="truncated"),
        pytest.param(answer(pattern(1))[:14], id="no-ip"),
    ],
)
def test_whatever_is_no_reply_to_us_passes_untouched(lab: Lab, frame: bytes) -> None:
    assert lab.slot()
    assert lab.hear(frame) == ""
    assert lab.flying()


def test_a_reply_after_the_timeout_is_reordered(lab: Lab) -> None:
    for _ in range(3):
        assert lab.slot()
    lab.time = START + TIMEOUT - 1
    assert lab.hear(answer(pattern(SIZES[0]), 0)) == "answered"
    lab.time += 1
    assert lab.hear(answer(pattern(SIZES[1]), 1)) == "reordered"
    assert lab.hear(answer(b"no", 2)) == "wrong"


def test_a_reply_with_nothing_outstanding_is_duplicated(lab: Lab) -> None:
    assert lab.hear(answer(pattern(SIZES[0]))) == "duplicated"


@settings(max_examples=300)
@given(rtt=st.integers(1, TIMEOUT - 1) | st.integers(0, 26).map(lambda n: 2**n))
def test_round_trips_are_counted_where_userspace_looks(echo_generator: Generator, rtt: int) -> None:
    lab = Lab(echo_generator, Options(source_ports=PORTS))
    before = echo_generator.tally()[1]
    assert lab.slot() == sent(pattern(SIZES[0]))
    lab.time = START + rtt
    assert lab.hear(answer(pattern(SIZES[0]))) == "answered"
    after = echo_generator.tally()[1]
    rose = after.counts - before.counts
    assert (rose.nonzero()[0].tolist(), int(rose.sum())) == ([bucket(rtt)], 1)
    assert after.total - before.total == rtt
    assert after.minimum == (min(before.minimum, rtt) if before.counts.any() else rtt)
    assert after.maximum == max(before.maximum, rtt)


def test_the_longest_timeout_has_its_buckets() -> None:
    longest = Options(source_ports=PORTS, timeout=30.0)
    mix = Mix([b"a"], [], Choice())
    with made(mix, lambda payload: payload, timeout=30.0) as generator:
        lab = Lab(generator, longest)
        assert lab.slot()
        lab.time = START + 30 * 10**9 - 1
        assert lab.hear(answer(b"a")) == "answered"
        assert generator.tally()[1].counts[bucket(30 * 10**9 - 1)] == 1


def test_writes_are_counted_apart_and_answered_by_anything() -> None:
    mix = Mix([b"read"], [b"write"], Choice(writes=0.5, seed=3))
    with made(mix, lambda payload: payload.upper()) as generator:
        lab = Lab(generator, Options(source_ports=PORTS))
        frames = [lab.slot() for _ in range(10)]
        writes = [port for port, frame in enumerate(frames) if frame == sent(b"write", port)]
        reads = [port for port, frame in enumerate(frames) if frame == sent(b"read", port)]
        assert (len(reads), len(writes)) == (5, 5)
        assert lab.hear(answer(b"READ", reads[0])) == "answered"
        assert lab.hear(answer(b"STORED", reads[1])) == "wrong"
        assert lab.hear(answer(b"STORED", writes[0])) == "write_answered"
        assert lab.hear(answer(b"STORED", writes[0])) == "duplicated"
        assert generator.outstanding() == (3, 4)
        lab.time = START + 2 * TIMEOUT
        for _ in range(PORTS):
            lab.slot()
        counts = lab.counts()
        assert (counts["reads_lost"], counts["writes_lost"]) == (3, 4)


def test_without_expectation_any_whole_reply_is_right() -> None:
    with made(Mix([b"request"], [], Choice()), None) as generator:
        lab = Lab(generator, Options(source_ports=PORTS), verify=False)
        for length in (0, 1, 31, 32, 1472):
            lab.reset()
            assert lab.slot()
            assert lab.hear(answer(pattern(length))) == "answered"
            lab.reset()
            assert lab.slot()
            bad = {"chksum": wrong_sum(pattern(length))}
            assert lab.hear(answer(pattern(length), udp=bad)) == "wrong"


def test_a_request_that_has_no_reply() -> None:
    with made(Mix([b"request"], [], Choice()), lambda payload: None) as generator:
        lab = Lab(generator, Options(source_ports=PORTS))
        for reply_ in (b"", b"request"):
            lab.reset()
            assert lab.slot()
            assert lab.hear(answer(reply_)) == "wrong"


def test_an_empty_reply() -> None:
    with made(Mix([b"request"], [], Choice()), lambda payload: b"") as generator:
        lab = Lab(generator, Options(source_ports=PORTS))
        assert lab.slot()
        assert lab.hear(answer(b"")) == "answered"
        lab.slot()
        assert lab.hear(answer(b"x", 1)) == "wrong"


@pytest.mark.parametrize(
    ("payload", "expect", "options", "words"),
    [
        (bytes(1473), None, {}, "a request of 1473 bytes"),
        (b"a", lambda payload: bytes(1473), {}, "a reply of 1473 bytes"),
        (b"a", None, {"first_port": PORT - 1}, "among the source ports"),
        (b"a", None, {"first_port": 1023}, "first-port 1023 is out of range"),
        (b"a", None, {"first_port": 65_500}, "source ports from 65500 on"),
        (b"a", None, {"timeout": 31.0}, "timeout 31 s"),
        (b"a", None, {"burst": 257}, "burst 257"),
        (b"a", None, {"count": 0}, "count 0"),
        (b"a", None, {"seconds": None}, "an end is needed"),
        (b"a", None, {"seconds": 0.0}, "seconds 0 is out of range"),
    ],
)
def test_what_cannot_be(payload: bytes, expect: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        made(Mix([payload], [], Choice()), expect, **options)
