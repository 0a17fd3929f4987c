# SPDX-License-Identifier: Apache-2.0
"""With --pin, what is in the kernel outlives its carom, and the next one goes on with it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from carom import __version__
from carom.daemon.marks import UNVOIDED
from carom.daemon.pinned import Record
from carom.kernel import libbpf
from carom.kernel.abi import MARK, MarkKind
from carom.vm.netns import attach_pass
from netns import line as lines
from netns import torture
from netns.fronted import hits_of, until_hit
from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient, value_of
from netns.pinning import PinningCarom, mounted, unpin
from netns.process import DEADLINE, INTERFACE, Carom, at_tc, attached, run, start, until
from netns.test_filters import PORT as KV_PORT
from netns.test_filters import get, put, tallies
from netns.test_torture_memcached import KEYS, jobs
from netns.torture import Cell, Shared
from netns.wire import Client

RESTARTS, MANY_RESTARTS = 4, 100
"""Of the ordinary suite, and of the long form."""

ADOPTIONS, MANY_ADOPTIONS = 4, 50
"""The same where no packet may be lost."""

_RECORD = struct.Struct("=I65532s")


@pytest.fixture(scope="module")
def pins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where caroms pin here."""
    with mounted(tmp_path_factory.mktemp("bpf")) as folder:
        yield folder


@contextlib.contextmanager
def asked(line: Line) -> Iterator[tuple[TCPClient, UDPClient]]:
    """A memcached of a test's own, and clients of it."""
    with (
        Memcached(line.server),
        TCPClient(line.client, line.address) as tcp,
        UDPClient(line.client, line.address) as udp,
    ):
        yield tcp, udp


def fronting(line: Line, *arguments: str) -> PinningCarom:
    """`carom front --pin` before a memcached."""
    return PinningCarom(line.server, *arguments, command="front")


@pytest.mark.parametrize("hook", ["xdp", "tc"])
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_warm_again(
    pins: Path,
    straight: Line,
    memcached: Memcached,
    udp: UDPClient,
    tcp: TCPClient,
    hook: str,
    end: signal.Signals,
) -> None:
    """What was cached before is a hit again, and what was written meanwhile is not."""
    before = fronting(straight, "--hook", hook, "--ttl", "1h")
    tcp.set(b"kept", b"value")
    tcp.set(b"written", b"old")
    until_hit(before, udp, b"kept", b"value")
    until_hit(before, udp, b"written", b"old")
    before.end(end)
    tcp.set(b"written", b"new")
    assert value_of(udp.ask(b"get written\r\n")) == b"new"
    assert value_of(udp.ask(b"get kept\r\n")) == b"value"
    with fronting(straight, "--hook", hook, "--ttl", "1h") as after:
        assert hits_of(after, udp, b"kept", b"value", 1) == 1
        assert value_of(udp.ask(b"get written\r\n")) == b"new"
        tcp.set(b"kept", b"newer")
        assert value_of(udp.ask(b"get kept\r\n")) == b"newer"
        assert after.status()["cache"]["capacity"] == 10_000


def test_nothing_is_answered_meanwhile(
    pins: Path, straight: Line, memcached: Memcached, udp: UDPClient, tcp: TCPClient
) -> None:
    """Once the lease is over, requests go to the server, by programs that stay attached."""
    with fronting(straight) as carom:
        program = attached(straight.server)
        tcp.set(b"kept", b"value")
        until_hit(carom, udp, b"kept", b"value")
        carom.end(signal.SIGTERM)
        assert attached(straight.server) == program
        memcached.stop()
        number = udp.send(b"get kept\r\n")
        time.sleep(0.2)
        memcached.go_on()
        assert value_of(udp.receive(number)) == b"value", "the server answers once it goes on"
        unpin(straight.server)
    assert attached(straight.server) is None


@pytest.mark.parametrize("whose", ["server", "carom"])
def test_a_server_that_begins_anew(pins: Path, line: Line, whose: str) -> None:
    """What it had is gone, and so is what was cached of it, whoever was away meanwhile."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Memcached(line.server))
        with (
            TCPClient(line.client, line.address) as tcp,
            UDPClient(line.client, line.address) as udp,
        ):
            carom = fronting(line)
            tcp.set(b"gone", b"value")
            until_hit(carom, udp, b"gone", b"value")
        if whose == "carom":
            carom.end(signal.SIGKILL)
        first.close()
        if whose == "server":
            carom.end(signal.SIGKILL)
        stack.enter_context(Memcached(line.server))
        with (
            fronting(line) as carom,
            UDPClient(line.client, line.address) as udp,
            TCPClient(line.client, line.address) as tcp,
        ):
            assert udp.ask(b"get gone\r\n") == b"END\r\n"
            tcp.set(b"gone", b"again")
            until_hit(carom, udp, b"gone", b"again")


@pytest.mark.parametrize("keep", [True, False])
def test_a_service_of_ones_own(pins: Path, straight: Line, client: Client, keep: bool) -> None:
    """Its replies are another process' state, unless it says that they are good for longer."""
    arguments = ("--app", "services:told", "-p", "51141", *(["--keep-replies"] if keep else []))
    before = PinningCarom(straight.server, *arguments)
    with Client(straight.client, straight.address, 51141) as client:
        assert client.ask(b"one") == b"one: 1"
        assert client.ask(b"one") == b"one: 1"
    before.end(signal.SIGKILL)
    with (
        PinningCarom(straight.server, *arguments) as after,
        Client(straight.client, straight.address, 51141) as client,
    ):
        counters = after.counters()
        assert client.ask(b"one") == b"one: 1", "the new process counts from one"
        assert bool(after.since(counters).get("hit")) is keep
        assert client.ask(b"two") == b"two: 1"
        counters = after.counters()
        assert client.ask(b"two") == b"two: 1"
        after.expect(counters, hit=1)


def test_other_options_begin_with_an_empty_cache(
    pins: Path, straight: Line, memcached: Memcached, udp: UDPClient, tcp: TCPClient
) -> None:
    """What was to live for an hour does not under a TTL of a minute; the links are taken over."""
    carom = fronting(straight, "--ttl", "1h")
    tcp.set(b"kept", b"value")
    until_hit(carom, udp, b"kept", b"value")
    carom.end(signal.SIGTERM)
    for arguments in (("--ttl", "1m"), ("--ttl", "1m", "--capacity", "100")):
        carom = fronting(straight, *arguments)
        assert "the cache begins empty" in carom.stderr()
        assert hits_of(carom, udp, b"kept", b"value", 1) == 0
        until_hit(carom, udp, b"kept", b"value")
        carom.end(signal.SIGTERM)
    with fronting(straight, "--ttl", "1m", "--hook", "tc"):
        assert attached(straight.server) is None
    assert not pins.exists()


def test_nothing_is_left(pins: Path, straight: Line, memcached: Memcached) -> None:
    with fronting(straight):
        pass
    assert not pins.exists()
    assert attached(straight.server) is None
    ended = run(straight.server, "unpin")
    assert (ended.code, "nothing is pinned" in ended.stderr) == (2, True)


def test_one_carom_at_a_time(pins: Path, straight: Line, memcached: Memcached) -> None:
    """A second one is refused, and so is taking all away while one runs."""
    with fronting(straight) as carom:
        second = run(straight.server, "front", "-i", INTERFACE, "--pin")
        assert second.code == 1
        assert "another carom runs with what is pinned" in second.stderr
        assert run(straight.server, "unpin").code == 1
        assert carom.status()


def test_without_pin_after_one_with_it(pins: Path, straight: Line, memcached: Memcached) -> None:
    """Its place is taken by what was left, and the message says how to take that away."""
    fronting(straight).end(signal.SIGTERM)
    ended = run(straight.server, "front", "-i", INTERFACE)
    assert ended.code == 1
    assert "`carom unpin`" in ended.stderr
    unpin(straight.server)
    with Carom(straight.server, command="front"):
        pass


def say_of_another(pins: Path, **changes: str) -> None:
    """Have the record say that another version made what is pinned."""
    descriptor = libbpf.pinned(pins / "daemon-record")
    try:
        value = libbpf.lookup(descriptor, bytes(4), _RECORD.size)
        assert value
        length, text = _RECORD.unpack(value)
        record = msgspec.json.decode(text[:length], type=Record)
        other = msgspec.json.encode(msgspec.structs.replace(record, **changes))
        libbpf.update(descriptor, bytes(4), _RECORD.pack(len(other), other))
    finally:
        os.close(descriptor)


def test_another_version(pins: Path, straight: Line, memcached: Memcached) -> None:
    """It is refused, with both versions, and nothing is changed."""
    fronting(straight).end(signal.SIGTERM)
    say_of_another(pins, version="9.9.9", abi="f" * 64)
    there = sorted(path.name for path in pins.iterdir())
    ended = run(straight.server, "front", "-i", INTERFACE, "--pin")
    assert ended.code == 2
    assert "carom 9.9.9" in ended.stderr
    assert f"carom {__version__}" in ended.stderr
    assert "`carom unpin`" in ended.stderr
    assert sorted(path.name for path in pins.iterdir()) == there
    unpin(straight.server)


def test_a_record_that_is_none(pins: Path, straight: Line, memcached: Memcached) -> None:
    fronting(straight).end(signal.SIGTERM)
    descriptor = libbpf.pinned(pins / "daemon-record")
    libbpf.update(descriptor, bytes(4), _RECORD.pack(2**32 - 1, b"{" * 65_532))
    os.close(descriptor)
    ended = run(straight.server, "front", "-i", INTERFACE, "--pin")
    assert (ended.code, "cannot be read" in ended.stderr) == (1, True), ended
    unpin(straight.server)


def test_what_somebody_has_removed(
    pins: Path, straight: Line, memcached: Memcached, udp: UDPClient, tcp: TCPClient
) -> None:
    """Without a map all others are of no use: the cache begins empty."""
    carom = fronting(straight)
    tcp.set(b"kept", b"value")
    until_hit(carom, udp, b"kept", b"value")
    carom.end(signal.SIGTERM)
    (pins / "versions").unlink()
    with fronting(straight) as carom:
        assert "somebody has removed versions" in carom.stderr()
        assert hits_of(carom, udp, b"kept", b"value", 1) == 0
        until_hit(carom, udp, b"kept", b"value")


def test_where_nothing_can_be_pinned(straight: Line, tmp_path: Path, pins: Path) -> None:
    """No BPF file system, or a folder that is not one's own alone."""
    arguments = ("serve", "-i", INTERFACE, "--pin")
    ended = run(straight.server, *arguments, CAROM_PINS=str(tmp_path / "pins"))
    assert (ended.code, "in no BPF file system" in ended.stderr) == (1, True), ended
    assert "mount" in ended.stderr
    pins.mkdir(parents=True, mode=0o755)
    try:
        pins.chmod(0o755)
        ended = run(straight.server, *arguments)
        assert (ended.code, "somebody else's" in ended.stderr) == (1, True), ended
    finally:
        pins.rmdir()
        pins.parent.rmdir()
    assert attached(straight.server) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--hook", "none"), "nothing does"),
        (("--fast", "off"), "nothing does"),
        (("--app", "kv", "--filter", "simple"), "ends with its carom"),
    ],
)
def test_what_cannot_be_pinned(straight: Line, arguments: tuple[str, ...], words: str) -> None:
    ended = run(straight.server, "serve", "-i", INTERFACE, "--pin", *arguments)
    assert (ended.code, words in ended.stderr) == (2, True), ended


KV = ("--app", "kv", "-p", str(KV_PORT))
EXAMPLE = Path(__file__).resolve().parents[2] / "filters/examples/clients.c"


@pytest.mark.parametrize("filter", ["simple", str(EXAMPLE)])
@pytest.mark.parametrize("place", ["xdp", "tc", "socket"])
def test_a_filter_is_refused(
    pins: Path, straight: Line, filter: str, place: str, tmp_path: Path
) -> None:
    """Carom's own or the user's, wherever it is to be, on the command line or in a file."""
    told = (*KV, "--filter", filter, "--filter-at", place)
    ended = run(straight.server, "serve", "-i", INTERFACE, "--pin", *told)
    assert ended.code == 2
    assert "a filter ends with its carom, and cannot be pinned" in ended.stderr
    file = tmp_path / "carom.toml"
    file.write_text(
        f'interfaces = ["{INTERFACE}"]\npin = true\nfilter = "{filter}"\nfilter_at = "{place}"\n'
        f'[[service]]\napp = "kv"\nport = {KV_PORT}\n'
    )
    for words in (("config", "check", str(file)), ("run", str(file))):
        ended = run(straight.server, *words)
        assert (ended.code, "cannot be pinned" in ended.stderr) == (2, True), ended
        assert f"{file}:2" in ended.stderr or f"{file}:3" in ended.stderr, ended
    assert not pins.exists() and attached(straight.server) is None


@pytest.mark.parametrize("hook", ["xdp", "tc"])
def test_a_filter_after_what_is_pinned(pins: Path, straight: Line, hook: str) -> None:
    """A carom with one goes on with nothing that was pinned: at XDP it does not start, and at TC it
    says what is there, and its filter sees all. What was pinned is for the next one with --pin."""
    at = (*KV, "--hook", hook)
    carom = PinningCarom(straight.server, *at, "--keep-replies")
    with Client(straight.client, straight.address, port=KV_PORT) as client:
        client.send(put(7, 70))

        def is_hit() -> bool:
            before = carom.counters()["hit"]
            return client.ask(get(7)) == b"70" and carom.counters()["hit"] > before

        until(is_hit, "a hit once the write's hold is over")
        used = run(straight.server, "filter", "use", "simple", "--pid", str(carom.pid))
        assert (used.code, "no filter runs here" in used.stderr) == (1, True), used
        carom.end(signal.SIGTERM)
        there = sorted(path.name for path in pins.iterdir())
        if hook == "xdp":
            ended = run(straight.server, "serve", "-i", INTERFACE, *at, "--filter", "simple")
            assert (ended.code, "`carom unpin`" in ended.stderr) == (1, True), ended
        else:
            with Carom(straight.server, *at, "--filter", "reject") as filtering:
                (note,) = [one for one in filtering.ready["notes"] if "--pin" in one]
                assert f"has left its programs in {pins}" in note
                assert not any("does not see" in one for one in filtering.ready["notes"])
                client.send(get(7))
                until(lambda: tallies(filtering)["valid_rejected"], "the filter to see it")
                assert filtering.counters()["hit"] == 0
        assert sorted(path.name for path in pins.iterdir()) == there
        with PinningCarom(straight.server, *at, "--keep-replies") as after:
            before = after.counters()
            assert client.ask(get(7)) == b"70"
            after.expect(before, hit=1)


def test_an_interface_that_is_made_again(pins: Path) -> None:
    """Its link is gone with it; those at servers' sockets stay, and so does the cache."""
    with lines.straight() as line, Memcached(line.server):
        carom = fronting(line)
        with (
            TCPClient(line.client, line.address) as tcp,
            UDPClient(line.client, line.address) as udp,
        ):
            tcp.set(b"kept", b"value")
            until_hit(carom, udp, b"kept", b"value")
        carom.end(signal.SIGTERM)
        line.server.run("ip", "link", "del", INTERFACE)
        ended = run(line.server, "front", "-i", INTERFACE, "--pin")
        assert (ended.code, "there is no interface" in ended.stderr) == (2, True) or ended.code == 1
        unpin(line.server)


def test_one_that_fails_half_way(pins: Path, line: Line) -> None:
    """It has put its programs into links, and cannot attach to another interface: it is refused,
    and the next begins with an empty cache."""
    with asked(line) as (tcp, udp):
        carom = fronting(line)
        tcp.set(b"key", b"old")
        until_hit(carom, udp, b"key", b"old")
        carom.end(signal.SIGKILL)
        line.server.run(*"ip link add taken up type veth peer name other".split())  # noqa: SIM905
        taken = attach_pass(line.server, "taken")
        ended = run(line.server, "front", "-i", INTERFACE, "-i", "taken", "--pin")
        os.close(taken)
        assert (ended.code, "already has an XDP program" in ended.stderr) == (1, True), ended
        tcp.set(b"key", b"new")
        assert udp.get(b"key") == b"new"
        with fronting(line) as carom:
            assert hits_of(carom, udp, b"key", b"new", 1) == 0
            until_hit(carom, udp, b"key", b"new")
        line.server.run("ip", "link", "del", "taken")


def test_a_connection_from_before_all_caroms(pins: Path, line: Line) -> None:
    """It says nothing until the second carom runs; then it writes, and is seen."""
    with asked(line) as (tcp, udp), TCPClient(line.client, line.address) as early:
        carom = fronting(line, "--ttl", "1h")
        tcp.set(b"key", b"old")
        until_hit(carom, udp, b"key", b"old")
        carom.end(signal.SIGKILL)
        with fronting(line, "--ttl", "1h") as carom:
            assert hits_of(carom, udp, b"key", b"old", 1) == 1
            early.set(b"key", b"new")
            assert udp.get(b"key") == b"new"


def test_one_that_is_killed_before_it_has_voided(pins: Path, line: Line) -> None:
    """Sockets were marked, and what is cached may be from before: the next one voids it."""
    with asked(line) as (tcp, udp):
        carom = fronting(line, "--ttl", "1h")
        tcp.set(b"key", b"value")
        until_hit(carom, udp, b"key", b"value")
        carom.end(signal.SIGKILL)
        marked = libbpf.pinned(pins / "sockets")
        doors = 0
        for count, keys, values in libbpf.batches(marked, 8, MARK.size):
            for n in range(count):
                service, _, kind = MARK.unpack_from(values, n * MARK.size)
                if kind == MarkKind.DOOR:
                    unvoided = MARK.pack(service, UNVOIDED.view, kind)
                    libbpf.update(marked, bytes(keys[8 * n :][:8]), unvoided)
                    doors += 1
        os.close(marked)
        assert doors
        with fronting(line, "--ttl", "1h") as carom:
            assert hits_of(carom, udp, b"key", b"value", 1) == 0
            until_hit(carom, udp, b"key", b"value")


def _dropped(line: Line) -> int:
    """How many datagrams the server's sockets had no room for."""
    udp = [row for row in line.server.run("cat", "/proc/net/snmp").splitlines() if "Udp:" in row]
    names, numbers = (row.split() for row in udp)
    return int(numbers[names.index("RcvbufErrors")])


def test_no_packet_is_lost(pins: Path, long_form: bool, tmp_path: Path) -> None:
    """Under load caroms end and begin again: what is not answered, the server had no room for."""
    requests = tmp_path / "requests"
    text = b"\0\1\0\0\0\1\0\0get key\r\n"
    requests.write_text(f"0x{text.hex()}\n")
    many = ("--prefix-rate", "0", "--total-rate", "0", "--ttl", "1h")
    with lines.bare() as line, Memcached(line.server):
        carom = fronting(line, *many)
        with (
            TCPClient(line.client, line.address) as tcp,
            UDPClient(line.client, line.address) as udp,
        ):
            tcp.set(b"key", b"value")
            until_hit(carom, udp, b"key", b"value")
        to = (line.address, "11211", "-i", INTERFACE, "--file", str(requests))
        load = start(line.client, "load", *to, "--rate", "2k", "--seconds", "600", "--json")
        until(lambda: attached(line.client), "the load")
        for number in range(MANY_ADOPTIONS if long_form else ADOPTIONS):
            before = carom.counters()["hit"]
            until(lambda before=before, carom=carom: carom.counters()["hit"] > before, "hits")
            carom.end(signal.SIGKILL if number % 2 else signal.SIGTERM)
            carom = fronting(line, *many)
        load.send_signal(signal.SIGINT)
        told = json.loads(load.communicate(timeout=DEADLINE)[0])
        trips = told["round_trips"]
        assert told["sent"] == trips["count"] + trips["reordered"] + trips["lost"]
        assert trips["lost"] == _dropped(line)
        assert carom.stop().code == 0


def test_writes_are_seen_all_the_time(pins: Path, line: Line, long_form: bool) -> None:
    """Under load caroms are killed, also while they start, and begin again: nothing is stale.

    None of the requests goes unanswered.
    """
    shared, chance, hits = Shared(KEYS), random.Random(5), 0
    arguments = ("--prefix-rate", "0", "--total-rate", "0", "--ttl", "1m", "--exptime", "ttl")
    with (
        Memcached(line.server, threads=2),
        torture.crowd(line.client, shared, *jobs(shared, line.address)),
    ):
        for number in range(MANY_RESTARTS if long_form else RESTARTS):
            if number % 2:
                half = start(line.server, "front", "-i", INTERFACE, "--pin", *arguments)
                time.sleep(chance.random())
                half.kill()
                half.communicate(timeout=DEADLINE)
            carom = fronting(line, *arguments)
            time.sleep(0.3 + chance.random())
            hits += carom.counters()["hit"]
            carom.end(chance.choice((signal.SIGKILL, signal.SIGTERM)))
            time.sleep(chance.random() / 2)
        unpin(line.server)
    print(shared, hits, "hits")
    assert shared.violations() == (0, 0)
    assert shared.cells[Cell.LOST] == 0
    assert hits, "without a hit it proves nothing"
    assert not pins.exists()
    assert at_tc(line.server) == []
    assert subprocess.run(["pgrep", "-f", "carom front --pin"], check=False).returncode
