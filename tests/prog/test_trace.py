# SPDX-License-Identifier: Apache-2.0
"""What `carom trace` is given: a sample of each packet that is asked for, which changes nothing."""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether

from carom.daemon.tracing import A_SECOND, Wanted
from carom.errors import BusyError, UsageError
from carom.kernel import libbpf
from carom.kernel.abi import SAMPLE, SNAP_MAX, Hook, Verdict
from carom.kernel.bpf import Module
from carom.lab.tools import bench as bench_tool
from carom.lab.tools.bench import Bench
from carom.protocols import SPECS
from carom.traced import Reader, Service, Traced
from prog.test_verified import VERIFIED_MAX, leeway
from prog.test_walker import frames, taken

FRAMES = 500
"""Of each protocol, at each hook."""

MAC = bench_tool.MAC
SERVED = 51_141
ANSWERED = (Verdict.HIT, Verdict.BOUNCE, Verdict.SLIP)
SERVICES = [
    Service(spec.port or SERVED, spec.name)
    for spec in sorted(SPECS.values(), key=lambda one: one.number)
]


class Looked(Bench):
    """Every protocol's service, its samples in the cache; and programs that are looked at."""

    def __init__(self, stack: contextlib.ExitStack, **options: object):
        super().__init__(stack, counted=len(SPECS), **options)  # type: ignore[arg-type]
        self.fill(b"known", b"reply")
        bench_tool._protocols(self)

    @contextlib.contextmanager
    def traced(self, room: int = 2**22, **wanted: object) -> Iterator[Look]:
        """Look on, as these are asked for."""
        packed = Wanted(**{"seconds": 60, **wanted}).packed()  # type: ignore[arg-type]
        with self.fastpath.traced(packed, room) as twin:
            yield Look(twin)


class Look:
    """What is seen meanwhile."""

    def __init__(self, twin: Module):
        self.twin = twin
        self.programs = {Hook.XDP: twin.program("xdp_traced"), Hook.TC: twin.program("tc_traced")}
        self._reader = Reader({1: "lo"}, SERVICES)
        self._samples = list[bytes]()
        self._ring = libbpf.Ring(twin.map("samples"), self._samples.append)
        self._samplers = twin.map("samplers")

    def run(self, frame: bytes, hook: Hook = Hook.XDP) -> bytes:
        """Have it come; the frame afterwards."""
        return libbpf.test_run(self.programs[hook], frame).data

    def samples(self) -> list[Traced]:
        """Those since the last time."""
        self._ring.drain()
        came, self._samples[:] = list(self._samples), []
        return [self._reader.read(one) for one in came]

    def of(self, *frames: bytes, hook: Hook = Hook.XDP) -> list[Traced]:
        """Those of these frames."""
        for frame in frames:
            self.run(frame, hook)
        return self.samples()

    def left_out(self) -> tuple[int, int]:
        """Samples beyond the most in a second, and unread ones in their way."""
        size, cpus = libbpf.map_shape(self._samplers)[0].value_size, libbpf.possible_cpus()
        value = libbpf.lookup(self._samplers, bytes(4), size * cpus) or b""
        counts = [struct.unpack_from("=QQ", value, at * size) for at in range(cpus)]
        return sum(one for one, _ in counts), sum(one for _, one in counts)


@pytest.fixture(scope="module")
def looked() -> Iterator[Looked]:
    with contextlib.ExitStack() as stack:
        yield Looked(stack, prefix_rate=2**40, total_rate=2**40, echoes=1_000)


def plain(payload: bytes = b"known", *, port: int = SERVED, **of_ip: object) -> bytes:
    """A request over IPv4."""
    ip = IP(**{"src": "198.18.0.1", "dst": bench_tool.SERVER[0], "ttl": 255, **of_ip})
    return bytes(Ether(src=MAC, dst=MAC) / ip / UDP(sport=40_000, dport=port) / payload)


def over_ipv6(source: str, *tags: int, port: int = SERVED) -> bytes:
    """A request to an address that no service has."""
    frame = Ether(src=MAC, dst=MAC)
    for tag in tags:
        frame /= Dot1Q(vlan=tag)
    udp = UDP(sport=40_000, dport=port)
    return bytes(frame / IPv6(src=source, dst="2001:db8::2") / udp / b"x")


@pytest.mark.parametrize("hook", list(Hook), ids=lambda hook: hook.name.lower())
@pytest.mark.parametrize("name", SPECS)
def test_each_packet_has_its_verdict(
    looked: Looked, hook: Hook, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that is counted; with the packet as it came, and the reply as it is sent."""
    monkeypatch.setattr("carom.daemon.tracing.A_SECOND", 2**32 - 1)
    seen: Counter[Verdict] = Counter()
    last = looked.fastpath.verdicts(hook)
    with looked.traced() as look:
        for frame in frames(SPECS[name], FRAMES):
            if not taken(frame, hook):
                continue
            after = look.run(frame, hook)
            (sample,) = look.samples()
            counts = looked.fastpath.verdicts(hook)
            assert [one for one in Verdict if counts[one] != last[one]] == [sample.verdict]
            assert sum(counts.values()) == sum(last.values()) + 1
            last = counts
            seen[sample.verdict] += 1
            assert (sample.frame, sample.length) == (frame, len(frame))
            answered = sample.verdict in ANSWERED
            assert (sample.reply, sample.reply_length) == (
                (after, len(after)) if answered else (b"", 0)
            )
            assert (sample.interface, sample.hook) == ("lo", hook)
    known = seen[Verdict.HIT] + seen[Verdict.MISS_VOID]  # a write in between may void all
    assert known > 20 and len(seen) > 10, seen


def verdicts(samples: Sequence[Traced]) -> list[Verdict]:
    return [one.verdict for one in samples]


def test_key_and_service(looked: Looked) -> None:
    """Of each protocol: the key as the cache has it, and none where none was read."""
    with looked.traced() as look:
        for name, spec in SPECS.items():
            for sample in spec.samples("198.18.0.1"):
                frame = bench_tool.frame(sample.request, spec.port or SERVED)
                (one,) = look.of(frame)
                assert one.service == Service(spec.port or SERVED, name)
                if one.verdict is Verdict.HIT:
                    assert one.key
        (raw,) = look.of(plain())
        assert (raw.key, raw.verdict) == (b"known", Verdict.HIT)
        (one,) = look.of(bench_tool.frame(b"", 9))
        assert (one.key, one.service) == (b"", None)
        get = SPECS["memcached"].asking(b"get a-key-of-twenty-bytes") or b""
        (one,) = look.of(bench_tool.frame(get, 11_211))
        assert one.key == b"ga-key-of-twenty-bytes"
        stats = SPECS["memcached"].asking(b"stats") or b""
        (one,) = look.of(bench_tool.frame(stats, 11_211, 80))
        assert one.key == b"", "what was left of the one before"


def test_one_in_so_many(looked: Looked) -> None:
    with looked.traced(one_in=7) as look:
        assert len(look.of(*[plain()] * 70)) == 10
    with looked.traced(one_in=7, verdicts=["miss"]) as look:
        found = look.of(*[plain(), plain(b"unknown"), plain(port=9)] * 70)
    assert verdicts(found) == [Verdict.MISS] * 10


def test_only_some_verdicts(looked: Looked) -> None:
    asked = [plain(), plain(b"unknown"), plain(port=9), plain(ttl=3)]
    wanted = {"hit": Verdict.HIT, "miss": Verdict.MISS, "pass-service": Verdict.PASS_SERVICE}
    for name, verdict in wanted.items():
        with looked.traced(verdicts=[name]) as look:
            assert verdicts(look.of(*asked)) == [verdict]
    with looked.traced(verdicts=["hit", "pass_ttl"]) as look:
        assert verdicts(look.of(*asked)) == [Verdict.HIT, Verdict.PASS_TTL]


@pytest.mark.parametrize("hook", list(Hook), ids=lambda hook: hook.name.lower())
def test_only_some_sources(looked: Looked, hook: Hook) -> None:
    tagged = over_ipv6("2001:db8::5", 3)
    here = [
        plain(),
        plain(src="198.19.0.1"),
        over_ipv6("2001:db8::1"),
        tagged,
        over_ipv6("2001:db8::5", 3, 4),
        plain(src="198.18.0.1", options=b"\x01\x01\x01\x01"),
    ]
    for source, wanted in {
        "198.18.0.1": [0, 5],
        "198.18.0.0/16": [0, 5],
        "198.18.0.0/15": [0, 1, 5],
        "0.0.0.0/0": [0, 1, 5],
        "2001:db8::5": [3, 4],
        "2001:db8::/64": [2, 3, 4],
        "::/0": [0, 1, 2, 3, 4, 5],  # as the programs have IPv4's, in ::ffff:0:0/96
        "198.18.0.2": [],
    }.items():
        with looked.traced(source=source) as look:
            found = look.of(*here, hook=hook)
        assert [one.frame for one in found] == [here[at] for at in wanted], source


@pytest.mark.parametrize("hook", list(Hook), ids=lambda hook: hook.name.lower())
def test_only_one_port(looked: Looked, hook: Hook) -> None:
    """Of UDP, and where a packet has its ports: not in a later fragment, or of TCP."""
    with looked.traced(port=SERVED) as look:
        here = [
            plain(),
            plain(options=b"\x01" * 40),
            over_ipv6("2001:db8::1"),
            over_ipv6("2001:db8::1", 3, 4),
            plain(flags="MF"),
        ]
        others = [
            plain(port=SERVED + 1),
            plain(frag=1),
            plain(proto=6),
            over_ipv6("2001:db8::1", port=9),
            bytes(Ether(src=MAC, dst=MAC, type=0x0806) / bytes(46)),
            plain()[:34],
        ]
        found = look.of(*here, *others, hook=hook)
    assert [one.frame for one in found] == here


def test_how_much_of_each(looked: Looked) -> None:
    with looked.traced(snap=64) as look:
        (hit,) = look.of(plain(b"known"))
        (miss,) = look.of(plain(bytes(256)))
    assert (len(hit.frame), len(hit.reply), hit.length) == (len(plain()), hit.reply_length, 47)
    assert (miss.frame, miss.length) == (plain(bytes(256))[:64], 42 + 256)
    with looked.traced() as look:
        long = plain(bytes(2_900))
        (one,) = look.of(long)
    assert (one.frame, one.length) == (long[:SNAP_MAX], len(long))


def test_the_most_in_a_second() -> None:
    """By the programs' own clock; the others are counted, and answered as ever."""
    with contextlib.ExitStack() as stack:
        looked = Looked(stack)
        before = looked.fastpath.verdicts(Hook.XDP)[Verdict.HIT]
        with looked.traced() as look:
            times, began = 3 * A_SECOND, time.monotonic()
            found = look.of(*[plain()] * times)
            moments = 10 * (time.monotonic() - began) + 2
            limited, lost = look.left_out()
        assert lost == 0
        assert len(found) + limited == times
        cpus = len(os.sched_getaffinity(0))
        assert A_SECOND // 10 <= len(found) <= moments * cpus * A_SECOND // 10
        assert limited, "so many are more than there may be"
        assert looked.fastpath.verdicts(Hook.XDP)[Verdict.HIT] == before + times


def test_unread_samples_are_lost(looked: Looked) -> None:
    with looked.traced(room=4096) as look:
        for _ in range(50):
            look.run(plain())
        found = look.samples()
        assert len(found) + look.left_out()[1] == 50 and 1 < len(found) < 20
        assert look.of(plain()), "there is room again"


def test_no_program_comes_near_the_verifiers_limit(looked: Looked) -> None:
    with looked.traced() as look:
        compiler = looked.fastpath._module._compiled.compiler
        walked = {
            name: libbpf.verified_instructions(program)
            for name, program in look.twin._programs.items()
        }
    assert {"xdp_traced", "xdp_verdict", "tc_traced", "tc_verdict"} <= walked.keys()
    most = leeway(compiler) * VERIFIED_MAX
    assert {name: count for name, count in walked.items() if count > most} == {}


def test_one_at_a_time(looked: Looked) -> None:
    with looked.traced(), pytest.raises(BusyError, match="traced already"), looked.traced():
        pass
    with looked.traced() as look:
        assert look.of(plain())


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"verdicts": ["hits"]}, "no verdict hits"),
        ({"source": "nobody"}, "--from nobody is no address"),
        ({"one_in": 0}, "one in 0"),
        ({"snap": SNAP_MAX + 1}, "one in 0"),
        ({"seconds": 0}, "one in 0"),
        ({"port": 65_536}, "no UDP port"),
    ],
)
def test_what_cannot_be_asked_for(wanted: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Wanted(**{"seconds": 1, **wanted}).packed()  # type: ignore[arg-type]


def test_the_tag_beside_a_packet_is_in_it_again() -> None:
    """TC keeps the outermost tag beside the packet."""
    frame = plain()
    head = SAMPLE.pack(1, 1, 0x81000005, 47, 0, 47, 0, 1, Verdict.MISS, 0, 0, 0, b"")
    one = Reader({1: "lo"}, []).read(head + frame)
    assert one.frame == frame[:12] + b"\x81\x00\x00\x05" + frame[12:]
    assert one.length == 51
