# SPDX-License-Identifier: Apache-2.0
"""The programs of the experiments with four ports: what they answer, queue and leave alone."""

from __future__ import annotations

import ipaddress
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from carom.kernel import libbpf
from carom.kernel.bpf import Module
from carom.kernel.recipe import Recipe
from carom.lab.experiments.ports import ports
from carom.lab.experiments.ports import server as port_server
from carom.lab.experiments.ports import worker as port_worker
from carom.lab.experiments.ports.ports import FIRST_PORT, PORTS
from prog.packets import (
    CLIENT,
    CLIENT_PORT,
    PLAIN,
    WIRES,
    Fields,
    pseudo_sum,
    reply,
    request,
    sum_of_words,
    tuned,
)

LAB = Path(port_server.__file__).parent
LOOPS = (1400, 1000, 10, 500)
NUMBERS = (0, 1, 2, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1_234_567_890)
DIGITS = ("0000000", "0000001", "1000099", "9999999", "4294967")
QUEUE = 3


class Program:
    """A program loaded from the lab's folder, and what it does with a frame."""

    def __init__(self, module: Module, name: str):
        self.module, self.name = module, name
        self.fd = module.program(name)

    def run(self, frame: bytes) -> tuple[int, bytes]:
        found = libbpf.test_run(self.fd, frame)
        return found.retval, found.data

    def generic(self, on: bool) -> None:
        libbpf.update(self.module.map("generic"), bytes(4), struct.pack("=I", on))

    def counts(self) -> list[int]:
        """What it has counted: answered, or queued and then lost, by port."""
        name, length = ("answered", 4) if self.name == "concurrency" else ("counts", 8)
        cells = (
            libbpf.lookup(self.module.map(name), struct.pack("=I", index), 8)
            for index in range(length)
        )
        return [int.from_bytes(one or b"", "little") for one in cells]


def load(source: str, **defines: int) -> Module:
    defines["FIRST_PORT"] = FIRST_PORT
    return Module(Recipe(LAB / source, include=(LAB,), defines=defines))


def concurrency_module(loops: tuple[int, ...]) -> Module:
    return load("concurrency.c", **{f"LOOPS_{which}": loops[which] for which in PORTS})


@pytest.fixture(scope="module")
def compiled() -> Iterator[tuple[Program, Program]]:
    """Both programs, compiled once."""
    with concurrency_module(LOOPS) as worker, load("demux.c", QUEUE=QUEUE) as queues:
        yield Program(worker, "concurrency"), Program(queues, "demux")


@pytest.fixture
def concurrency(compiled: tuple[Program, Program]) -> Program:
    compiled[0].generic(False)
    return compiled[0]


@pytest.fixture
def demux(compiled: tuple[Program, Program]) -> Program:
    """With queues that are empty."""
    for which in PORTS:
        while libbpf.pop(compiled[1].module.map(f"jobs_{which}"), 12):
            pass
    compiled[1].generic(False)
    return compiled[1]


def to(which: int, payload: bytes, **fields: object) -> bytes:
    udp = {"dport": FIRST_PORT + which, **fields.pop("udp", {})}  # type: ignore[dict-item]
    return request(payload, udp=udp, **fields)  # type: ignore[arg-type]


def word(number: int) -> bytes:
    return number.to_bytes(4, "big")


def worked(number: int, loops: int) -> int:
    """The work, written once more: each step by the one before it."""
    for i in range(loops):
        number ^= number >> 15
        number = number * 0x2C1B3C6D % 2**32
        number = (number + i) % 2**32
    return number


def test_the_work_is_what_it_is_said_to_be() -> None:
    step = lambda value, i: ((value ^ value >> 15) * 0x2C1B3C6D + i) % 2**32  # noqa: E731
    assert step(step(step(1, 0), 1), 2) == ports.worked(1, 3) == worked(1, 3)
    assert ports.worked(7, 0) == 7
    assert len({ports.worked(1, loops) for loops in range(1500)}) == 1500


@pytest.mark.parametrize("which", PORTS)
def test_every_port_replies_with_its_own_work(concurrency: Program, which: int) -> None:
    for number in NUMBERS:
        before = concurrency.counts()
        right = word(worked(number, LOOPS[which]))
        answer = reply(right, udp={"sport": FIRST_PORT + which})
        assert concurrency.run(to(which, word(number))) == (libbpf.XDP_TX, answer)
        before[which] += 1
        assert concurrency.counts() == before


def test_ports_differ(concurrency: Program) -> None:
    found = {concurrency.run(to(which, word(5)))[1][-4:] for which in PORTS}
    assert len(found) == len(PORTS)


@pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler")
def test_the_process_in_c_does_the_same_work(tmp_path: Path) -> None:
    work = port_worker.library(str(port_server.compiled(tmp_path))).work
    for number in NUMBERS:
        for loops in (0, 1, *LOOPS):
            assert work(number, loops) == worked(number, loops)


def test_every_loop_is_there() -> None:
    """The verifier walks through a loop each time round: what clang leaves out it does not see."""
    seen = []
    for loops in ((0, 0, 0, 0), (1000, 500, 0, 250)):
        with concurrency_module(loops) as module:
            seen.append(libbpf.verified_instructions(module.program("concurrency")))
    # At least a shift, two that combine and a product each time.
    assert seen[1] - seen[0] >= 4 * 1750


@pytest.mark.parametrize("which", PORTS)
def test_checksums(concurrency: Program, which: int) -> None:
    """A half-made one is left half-made where skbs are seen, and made whole where not."""
    right = word(worked(9, LOOPS[which]))
    half = {"chksum": pseudo_sum(4)}
    port: Fields = {"sport": FIRST_PORT + which}
    whole = libbpf.XDP_TX, reply(right, udp=port)
    assert concurrency.run(to(which, word(9), udp=half)) == whole
    assert concurrency.run(to(which, word(9), udp={"chksum": 0})) == whole
    concurrency.generic(True)
    assert concurrency.run(to(which, word(9), udp=half)) == (
        libbpf.XDP_TX,
        reply(right, udp={**port, **half}),
    )
    assert concurrency.run(to(which, word(9))) == whole


def test_every_reply_sums_to_ones(concurrency: Program) -> None:
    for number in range(200):
        _, frame = concurrency.run(to(number % 4, word(number * 7919)))
        assert sum_of_words(frame) == 0xFFFF


STRANGE = {
    "the port below": {"udp": {"dport": FIRST_PORT - 1}},
    "the port above": {"udp": {"dport": FIRST_PORT + 4}},
    "a wrong checksum": {"udp": {"chksum": 0x1234}},
    "a length too long": {"udp": {"len": 200}},
    "a length too short": {"udp": {"len": 7}},
    "a fragment": {"ip": {"flags": "MF"}},
    "a later fragment": {"ip": {"frag": 5}},
    "TCP": {"ip": {"proto": 6}},
    "a wrong header checksum": {"ip": {"chksum": 1}},
    "an old packet": {"ip": {"ttl": 31}},
    "from loopback": {"ip": {"src": "127.0.0.1"}},
    "from a port that is well known": {"udp": {"sport": 53}},
    "not IP": {"eth": {"type": 0x88B5}},
}


@pytest.mark.parametrize("fields", STRANGE.values(), ids=STRANGE)
def test_what_is_not_understood_passes_untouched(
    concurrency: Program, demux: Program, fields: dict[str, Fields]
) -> None:
    for program, payload in ((concurrency, word(1)), (demux, b"1000001")):
        before = program.counts()
        frame = to(0, payload, **fields)
        assert program.run(frame) == (libbpf.XDP_PASS, frame)
        assert program.counts() == before


def test_other_lengths_pass_untouched(concurrency: Program, demux: Program) -> None:
    for program, length in ((concurrency, 4), (demux, 7)):
        before = program.counts()
        for size in (*range(12), 100, 1472):
            for fields in ({}, {"chksum": 0}) if size != length else ():
                frame = to(1, b"1" * size, udp=fields)
                assert program.run(frame) == (libbpf.XDP_PASS, frame)
        assert program.counts() == before


def test_frames_cut_short_pass_untouched(concurrency: Program, demux: Program) -> None:
    for program, payload in ((concurrency, word(1)), (demux, b"1000001")):
        before = program.counts()
        whole = to(0, payload)
        for length in range(14, len(whole)):
            assert program.run(whole[:length]) == (libbpf.XDP_PASS, whole[:length])
        assert program.counts() == before


def test_ipv6_passes_untouched(concurrency: Program, demux: Program) -> None:
    six = next(one for one in WIRES if one.version == 6)
    for program, payload in ((concurrency, word(1)), (demux, b"1000001")):
        frame = six.request(payload)
        assert program.run(frame) == (libbpf.XDP_PASS, frame)


def test_an_ambiguous_checksum_passes_where_skbs_are_seen(concurrency: Program) -> None:
    payload = tuned(pseudo_sum(4), word(77))
    frame = request(payload)
    right = reply(word(worked(int.from_bytes(payload, "big"), LOOPS[0])))
    assert concurrency.run(frame) == (libbpf.XDP_TX, right)
    concurrency.generic(True)
    assert concurrency.run(frame) == (libbpf.XDP_PASS, frame)


@pytest.mark.parametrize("which", PORTS)
def test_a_request_is_queued_at_its_port(demux: Program, which: int) -> None:
    before = demux.counts()
    for at, digits in enumerate(DIGITS[:QUEUE]):
        frame = to(which, digits.encode(), udp={"sport": CLIENT_PORT + at})
        assert demux.run(frame)[0] == libbpf.XDP_DROP
    for at, digits in enumerate(DIGITS[:QUEUE]):
        found = libbpf.pop(demux.module.map(f"jobs_{which}"), 12)
        assert found
        value, address, port, _ = port_worker.JOB.unpack(found)
        assert value == int(digits)
        assert ipaddress.IPv4Address(address) == ipaddress.IPv4Address(CLIENT)
        assert port.to_bytes(2, "little") == (CLIENT_PORT + at).to_bytes(2, "big")
    for one in PORTS:
        assert libbpf.pop(demux.module.map(f"jobs_{one}"), 12) is None
    before[which] += QUEUE
    assert demux.counts() == before


def test_a_full_queue_counts_what_it_loses(demux: Program) -> None:
    before = demux.counts()
    for _ in range(QUEUE + 2):
        assert demux.run(to(2, b"3000001"))[0] == libbpf.XDP_DROP
    assert demux.run(to(1, b"2000001"))[0] == libbpf.XDP_DROP  # another's has room
    before[2] += QUEUE
    before[1] += 1
    before[4 + 2] += 2
    assert demux.counts() == before


@pytest.mark.parametrize(
    "payload", [b"100000x", b"/000001", b":000001", b" 000001", b"-000001", b"1000.01", bytes(7)]
)
def test_what_are_no_digits_passes_untouched(demux: Program, payload: bytes) -> None:
    before = demux.counts()
    frame = to(0, payload)
    assert demux.run(frame) == (libbpf.XDP_PASS, frame)
    assert demux.counts() == before


def test_plain_requests_are_for_the_first_port() -> None:
    assert PLAIN.request(word(1)) == to(0, word(1))
