# SPDX-License-Identifier: Apache-2.0
"""`carom trace` before running caroms: what it shows, and that nothing is left of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from scapy.utils import RawPcapNgReader

from netns.fronted import fronted_memcached
from netns.held import held, until_gone
from netns.line import Line
from netns.process import (
    CAROM,
    INTERFACE,
    Carom,
    Ended,
    at_tc,
    attached,
    end_of,
    environment,
    until,
)
from netns.services import sized_reply, sized_request
from netns.sized import sized_service
from netns.test_why import HOSTILE
from netns.wire import Client, Tap

DEADLINE = 60


class Trace:
    """`carom trace` beside a carom, while it looks on; leaving it ends it by Ctrl-C."""

    def __init__(self, carom: Carom, *arguments: str, stdout: int | None = None):
        command = [*CAROM, "trace", "--pid", str(carom.pid), *arguments]
        before = programs_of(carom)
        self._files = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115 - wait closes
        self.process = subprocess.Popen(
            command, stdout=stdout or self._files[0], stderr=self._files[1], env=environment()
        )
        until(lambda: programs_of(carom) != before or self.process.poll(), "the trace")

    def end(self, number: int = signal.SIGINT) -> Ended:
        """What it has said at its end."""
        time.sleep(0.2)  # it looks ten times a second
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> Ended:
        """The same, where it ends by itself."""
        self.process.wait(DEADLINE)
        said = []
        for file in self._files:
            file.seek(0)
            said.append(file.read().decode("latin-1"))
            file.close()
        return Ended(self.process.pid, self.process.returncode, *said)

    def packets(self, number: int = signal.SIGINT) -> list[dict[str, Any]]:
        """What `--json` has said, of requests."""
        ended = self.end(number)
        assert ended.code == 0, ended
        lines = [json.loads(line) for line in ended.stdout.splitlines()]
        return [one for one in lines if one["protocol"]]


def programs_of(carom: Carom) -> list[int]:
    """The ids of the programs that packets come to first."""

    xdp = attached(carom.namespace)
    return [*([xdp["id"]] if xdp else []), *at_tc(carom.namespace)]


@pytest.fixture(scope="module", params=["native", "generic", "tc"])
def served(straight: Line, request: pytest.FixtureRequest) -> Iterator[Carom]:
    """A Python service; some of its replies need TC."""
    with sized_service(straight.server, request.param) as carom:
        yield carom


def is_first_at(served: Carom) -> str:
    return str(served.ready["interfaces"][0]["hook"])


def test_packets_with_their_verdicts(straight: Line, served: Carom, client: Client) -> None:
    """Live, as JSON: the frames that were on the wire, and the counters as without it."""
    request = sized_request(40, 33)
    served.flush()
    before = served.counters()
    trace = Trace(served, "--json")
    with Tap(straight.server) as tap:
        for asked in (request, request, bytes(300)):
            client.ask(asked)
        frames = tap.frames()
    miss, hit, long = trace.packets()
    assert [one["verdict"] for one in (miss, hit, long)] == ["miss", "hit", "pass_size"]
    assert {one["hook"] for one in (miss, hit, long)} == {is_first_at(served)}
    assert {one["interface"] for one in (miss, hit, long)} == {INTERFACE}
    assert bytes.fromhex(hit["key"]) == bytes.fromhex(miss["key"]) == request
    assert bytes.fromhex(hit["frame"])[42:] == request
    assert bytes.fromhex(hit["reply"])[42:82] == sized_reply(request)
    assert not miss["reply"] and "the same request again" in miss["change"]
    came = [frame.data for frame in frames if not frame.outgoing]
    if is_first_at(served) == "tc":  # a tap sees what XDP has not answered
        assert [bytes.fromhex(one["frame"]) for one in (miss, hit, long)] == came
    assert abs(hit["time_seconds"] - time.time()) < 30
    served.expect(before, miss=1, hit=1, pass_size=1, replies=2, fills=1, unfit=1)


def test_what_xdp_leaves_to_tc(served: Carom, client: Client) -> None:
    """Seen at each hook."""
    request = sized_request(1_400, 20)
    client.ask(request)
    trace = Trace(served, "--json")
    client.ask(request)
    seen = [(one["hook"], one["verdict"]) for one in trace.packets()]
    left = [("xdp", "pass_to_tc")] if is_first_at(served) == "xdp" else []
    assert seen == [*left, ("tc", "hit")]


def test_lines(served: Carom, client: Client, straight: Line) -> None:
    request = sized_request(40, 33)
    client.ask(request)
    trace = Trace(served, "--verdict", "hit", "--count", "2")
    for _ in range(5):
        client.ask(request)
    ended = trace.wait()
    assert ended.code == 0, ended
    lines = ended.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert f" {INTERFACE} {is_first_at(served)} {straight.client_address}:" in line
        assert f" to {straight.address}:51141, UDP with 33 bytes, raw 0x0028" in line
        assert line.endswith(": hit: answered from the cache, 82 bytes")
    assert ended.stderr == "2 packets\n"


def test_a_capture(served: Carom, client: Client, tmp_path: Path) -> None:
    """As pcapng with comments, which others can read."""
    request = sized_request(60, 33)
    client.ask(request)
    file = tmp_path / "some.pcapng"
    trace = Trace(served, "--write", str(file), "--port", "51141")
    began = time.time()
    client.ask(request)
    client.ask(bytes(300))
    ended = trace.end(signal.SIGTERM)
    assert (ended.code, ended.stdout) == (0, ""), ended
    with RawPcapNgReader(str(file)) as reader:
        hit, reply, long = list(reader)
    assert hit[0][42:] == request and reply[0][42:102] == sized_reply(request)
    said = [comment_of(one[1]) for one in (hit, reply, long)]
    assert "hit: answered from the cache" in said[0]
    assert said[1] == "the reply that was sent: hit"
    assert "pass size: " in said[2] and "what would change it: " in said[2]
    for _, about in (hit, reply, long):
        assert about.ifname in (INTERFACE, INTERFACE.encode())
        assert about.tsresol == 10**9
        at = (about.tshigh << 32 | about.tslow) / about.tsresol
        assert abs(at - began) < 30
    assert [about.direction for _, about in (hit, reply, long)] == [1, 2, 1]


def comment_of(about: Any) -> str:
    """The one comment of a packet: a list in newer versions of scapy."""
    found = about.comments[0] if hasattr(about, "comments") else about.comment
    return str(found.decode())


@pytest.mark.skipif(not shutil.which("tshark"), reason="no tshark is here")
def test_tshark_reads_it(served: Carom, client: Client) -> None:
    request = sized_request(60, 33)
    client.ask(request)
    trace = Trace(served, "--write", "-")
    client.ask(request)
    ended = trace.end()
    read = subprocess.run(
        ["tshark", "-r", "-", "-T", "fields", "-e", "frame.interface_name", "-e", "frame.comment"],
        input=ended.stdout.encode("latin-1"),
        capture_output=True,
        check=True,
    )
    hit, reply = read.stdout.decode().splitlines()
    assert hit.startswith(INTERFACE) and "hit: answered from the cache" in hit
    assert "the reply that was sent" in reply


def test_who_reads_no_more_ends_it(served: Carom, client: Client) -> None:
    """A reader of standard output that is gone."""
    out, into = os.pipe()
    trace = Trace(served, "--write", "-", stdout=into)
    os.close(into)
    os.close(out)
    client.ask(sized_request(40, 33))
    ended = trace.wait()
    assert ended.code == 0 and "Traceback" not in ended.stderr, ended


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_tracer_that_is_gone(served: Carom, client: Client, number: int) -> None:
    """Killed, or stopped beyond its time: nothing is left, and all is answered throughout."""
    request = sized_request(40, 33)
    client.ask(request)
    before, held_before = programs_of(served), held(served.pid)
    counters, asked = served.counters(), 0
    trace = Trace(served, "--seconds", "0.1" if number == signal.SIGSTOP else "600")
    meanwhile = held(served.pid) - held_before
    assert programs_of(served) != before
    trace.process.send_signal(number)
    while programs_of(served) != before:
        assert client.ask(request) == sized_reply(request)
        asked += 1
    served.expect(counters, hit=asked)
    trace.process.kill()
    trace.wait()
    until(lambda: held(served.pid) == held_before, "the daemon to hold what it had")
    assert meanwhile
    until_gone(meanwhile)


def test_begun_and_ended_under_load(served: Carom, client: Client) -> None:
    """Each request has its reply from the kernel, whichever programs are there."""
    request = sized_request(40, 33)
    client.ask(request)
    counters, asked = served.counters(), 0
    for _ in range(3):
        trace = Trace(served, "--seconds", "0.5", "--one-in", "3")
        while trace.process.poll() is None:
            assert client.ask(request) == sized_reply(request)
            asked += 1
        ended = trace.wait()
        assert ended.code == 0 and ended.stdout, ended
    served.expect(counters, hit=asked)


def test_the_most_in_a_second(served: Carom, client: Client) -> None:
    """A flood is answered as ever; what is left out is said."""
    request = sized_request(40, 33)
    client.ask(request)
    trace = Trace(served, "--json", "--seconds", "2")
    end, asked = time.monotonic() + 1, 0
    while time.monotonic() < end:
        client.ask(request)
        asked += 1
    ended = trace.wait()
    shown = len(ended.stdout.splitlines())
    counts = [
        int(number.replace(",", ""))
        for number in re.findall(r"[\d,]+ (?=packet|left|lost)", ended.stderr)
    ]
    assert counts[0] == shown and sum(counts) == asked
    assert shown <= 13 * 100 * (os.cpu_count() or 1)
    assert "left out: 1,000 a second of each CPU" in ended.stderr or asked < 2_000


def test_an_address_that_comes_meanwhile(own_line: Line) -> None:
    """IPv6 has programs of its own, which are loaded with its first address."""
    server = own_line.server
    server.run("ip", "-6", "address", "flush", "dev", INTERFACE)
    how = ("--mode", "generic", "--app", "services:sized", "--bind", "::")
    request = sized_request(40, 33)
    with Carom(server, *how) as carom:
        trace = Trace(carom, "--json")
        server.address(INTERFACE, own_line.address6, 64)
        before = carom.counters()
        with Client(own_line.client, own_line.address6) as client:

            def is_hit() -> bool:
                assert client.ask(request) == sized_reply(request)
                return carom.counters()["hit"] > before["hit"]

            until(is_hit, "the new address to be answered")
            seen = trace.packets()
            assert (seen[-1]["verdict"], seen[-1]["frame"][24:28]) == ("hit", "86dd")
            before = carom.counters()
            client.ask(request)
            carom.expect(before, hit=1)


def test_in_front_of_a_memcached(own_line: Line) -> None:
    """The key in words."""
    with fronted_memcached(own_line) as (carom, udp):
        trace = Trace(carom)
        assert udp.get(b"foo") == b"bar"
        assert udp.get(b"absent") is None
        ended = trace.end()
        hit, miss = [line for line in ended.stdout.splitlines() if "memcached" in line]
        assert "memcached gfoo: hit: " in hit and "memcached gabsent: miss: " in miss


@pytest.mark.parametrize("place", ["xdp", "tc"])
def test_behind_a_filter(own_line: Line, place: str) -> None:
    """What the filter accepts is seen, and the filter stays what is attached."""
    how = ("--hook", place, "--filter", "simple", "--filter-at", place)
    with Carom(own_line.server, "--app", "kv", "-p", "12345", *how) as carom:
        before = programs_of(carom)
        which = ("--port", "12345", "--count", "2")  # others are those that hosts send unasked
        trace = subprocess.Popen(
            [*CAROM, "trace", "--pid", str(carom.pid), "--json", *which],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        with Client(own_line.client, own_line.address, 12345) as client:
            while trace.poll() is None:
                client.send(b"GET\x07\0\0\0")
                time.sleep(0.05)
        ended = end_of(trace, DEADLINE)
        seen = [json.loads(line) for line in ended.stdout.splitlines()]
        assert {one["protocol"] for one in seen} == {"kv"}
        assert programs_of(carom) == before


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_requests_are_harmless(served: Carom, client: Client, text: str) -> None:
    payload = os.fsencode(text)[:256]
    trace = Trace(served)
    client.send(payload)
    ended = trace.end()
    assert ended.code == 0 and "raw" in ended.stdout, ended
    assert all(" " <= letter <= "~" or letter == "\n" for letter in ended.stdout)


def tell(carom: Carom, *arguments: str) -> Ended:
    process = subprocess.Popen(
        [*CAROM, "trace", "--pid", str(carom.pid), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    return end_of(process, DEADLINE)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--verdict", "hits"), "there is no verdict hits"),
        (("--from", "nobody"), "--from nobody is no address"),
        (("--write", "/nowhere/x"), "cannot write /nowhere/x: No such file"),
        (("--write", "/tmp"), "cannot write /tmp: Is a directory"),
        (("--write", "/dev/full"), "cannot write /dev/full: No space left"),
        (("--write", "x", "--json"), "a capture is no JSON"),
        (("--seconds", "0"), "--seconds"),
        (("--snaplen", "9000"), "--snaplen"),
    ],
)
def test_what_cannot_be_asked(served: Carom, arguments: Sequence[str], said: str) -> None:
    ended = tell(served, *arguments)
    assert (ended.code in (1, 2), ended.stdout) == (True, ""), ended
    assert said in ended.stderr and "Traceback" not in ended.stderr


def test_one_at_a_time(served: Carom) -> None:
    trace = Trace(served)
    ended = tell(served)
    assert ended.code == 1 and "this carom is traced already" in ended.stderr, ended
    trace.end()


def test_a_carom_that_ends_meanwhile(own_line: Line) -> None:
    with Carom(own_line.server, "--mode", "generic") as carom:
        trace = Trace(carom)
        carom.stop()
        ended = trace.wait()
    assert ended.code in (0, 1) and "Traceback" not in ended.stderr, ended


def test_without_a_fast_path(straight: Line) -> None:
    where = ("--hook", "none", "-p", "51142")
    with Carom(straight.server, *where, interface=None) as carom:
        ended = tell(carom)
        assert ended.code == 1 and "nothing is answered on an interface" in ended.stderr


def test_who_may_not(served: Carom) -> None:
    """Whoever may not use the control socket."""
    ended = subprocess.run(
        ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", *CAROM, "trace"],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    assert ended.returncode == 1, ended
    assert any(one in ended.stderr for one in ("no carom of this user", "may not look")), ended
