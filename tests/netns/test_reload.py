# SPDX-License-Identifier: Apache-2.0
"""`carom reload` and SIGHUP under traffic: what can change does, or nothing does."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from carom.daemon import control
from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient
from netns.process import DEADLINE, INTERFACE, Carom, Ended, at_tc, run, start, until
from netns.test_firewall import put, table
from netns.wire import Client

ON = f'interfaces = ["{INTERFACE}"]\nhook = "tc"\n'
ECHO = '[[service]]\napp = "echo"\nechoes = 0\n'
"""Every request has its reply: of an echo, one in 1,000 is left out otherwise."""
MEMCACHED = '[[service]]\nprotocol = "memcached"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration file, which serves an echo."""
    file = tmp_path / "carom.toml"
    file.write_text(ON + ECHO)
    return file


def running(line: Line, file: Path) -> Carom:
    """`carom run FILE`."""
    return Carom(line.server, str(file), interface=None, command="run")


def reload(line: Line, carom: Carom) -> Ended:
    """`carom reload`, to its end."""
    return run(line.server, "reload", "--pid", str(carom.pid))


@contextmanager
def asking(ask: Callable[[], object]) -> Iterator[Callable[[], int]]:
    """Ask again and again meanwhile, and fail if one goes unanswered; gives how often it was."""
    asked, failed, stopping = 0, list[BaseException](), threading.Event()

    def loop() -> None:
        nonlocal asked
        try:
            while not stopping.is_set():
                ask()
                asked += 1
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield lambda: asked
    finally:
        stopping.set()
        thread.join()
    assert not failed, failed


def until_asked_more(asked: Callable[[], int]) -> None:
    """Until it was asked some more times."""
    before = asked()
    until(lambda: asked() > before + 20, "requests")


CHANGES = (
    'ttl = "9m"\nprefix_rate = 0\ntotal_rate = 0\n',
    "amplify = 3\nmax_reply = 1000\nprefix_rate = '1G'\n",
    "",
)


def test_no_request_is_lost_and_the_cache_is_kept(straight: Line, file: Path) -> None:
    """Each request is a hit, before, during and after."""
    with running(straight, file) as carom, Client(straight.client, straight.address) as client:
        assert client.ask(b"kept") == b"kept"
        assert client.ask(b"kept") == b"kept"
        before = carom.counters()
        with asking(lambda: client.ask(b"kept")) as asked:
            for _ in range(5):
                for change in CHANGES:
                    file.write_text(ON + ECHO + change)
                    ended = reload(straight, carom)
                    assert ended.code == 0, ended
                    until_asked_more(asked)
        carom.expect(before, hit=asked())


SWAPS, MANY_SWAPS = 4, 500
"""Of the ordinary suite, and of the long form."""


def test_programs_are_swapped(straight: Line, file: Path, long_form: bool) -> None:
    """A limit is part of the programs: others take their places, and no request is lost."""
    with running(straight, file) as carom, Client(straight.client, straight.address) as client:
        assert client.ask(b"kept") == b"kept"
        programs, chains = set[int](), set[int]()
        with asking(lambda: client.ask(b"kept")) as asked:
            for limit in range(MANY_SWAPS if long_form else SWAPS, 0, -1):
                file.write_text(ON + ECHO + f"max_hits_per_cpu = {limit}\n")
                assert control.call("reload", carom.pid, timeout=DEADLINE)
                until_asked_more(asked)
                programs |= set(at_tc(straight.server))
                chains.add(len(open_programs(carom.pid)))
        assert len(programs) == (MANY_SWAPS if long_form else SWAPS)
        assert len(chains) <= 2, "those that were swapped are freed"
        assert carom.counters()["pass_cpu"]


def open_programs(pid: int) -> list[str]:
    """Of a process' descriptors, those of programs."""
    return [
        info.name
        for info in Path(f"/proc/{pid}/fdinfo").iterdir()
        if "prog_tag" in info.read_text()
    ]


def test_whom_it_allows(straight: Line, file: Path) -> None:
    """With a list, with another, and without; nobody goes without an answer."""
    mine, other = f'allow = ["{straight.client_address}/32"]\n', 'allow = ["203.0.113.0/24"]\n'
    with running(straight, file) as carom, Client(straight.client, straight.address) as client:
        client.ask(b"kept")
        with asking(lambda: client.ask(b"kept")) as asked:
            for allow, verdict in ((mine, "hit"), (other, "pass_allow"), ("", "hit")) * 2:
                file.write_text(ON + allow + ECHO)
                assert reload(straight, carom).code == 0
                before = carom.counters()
                until(lambda b=before, v=verdict: carom.since(b).get(v, 0) > 20, verdict)  # type: ignore[misc]
                assert asked()
        before = carom.counters()
        assert client.ask(b"kept") == b"kept"
        carom.expect(before, hit=1)


def test_rates_count(straight: Line, file: Path) -> None:
    """What is beyond the new bound is the server's, and no longer once it is gone."""
    with running(straight, file) as carom, Client(straight.client, straight.address) as client:
        client.ask(b"kept")
        for rate, verdict in (("total_rate = 1\n", "pass_rate"), ("", "hit")):
            file.write_text(ON + ECHO + rate)
            assert reload(straight, carom).code == 0
            before = carom.counters()
            for _ in range(5):
                assert client.ask(b"kept") == b"kept"
            assert carom.since(before)[verdict] >= 4


def test_how_long_replies_live(straight: Line, file: Path) -> None:
    """Those that are stored from then on."""

    def left(carom: Carom, key: str) -> float:
        told = run(straight.server, "cache", "ls", "--json", "--pid", str(carom.pid))
        (entry,) = [
            one for one in json.loads(told.stdout)["entries"] if one["key"] == key.encode().hex()
        ]
        return float(entry["ttl_seconds"])

    with running(straight, file) as carom, Client(straight.client, straight.address) as client:
        client.ask(b"before")
        file.write_text(ON + ECHO + 'ttl = "1h"\n')
        assert reload(straight, carom).stdout == "service[0].ttl: 60.0 -> 3600.0\n"
        client.ask(b"after")
        assert left(carom, "before") <= 60 < left(carom, "after") <= 3600


NO = {
    "a wrong file": (ON + ECHO + "ttl = 'soon'\nprefix_rate = 5\n", "carom.toml:6: service[0].ttl"),
    "no TOML": ("x", "it is not TOML"),
    "a port": (ON + ECHO + "ttl = 5\nport = 9\n", "carom.toml:7: service[0].port: needs a restart"),
    "a hook": (ON.replace("tc", "xdp") + ECHO, "carom.toml:2: hook: needs a restart: 'xdp'"),
    "an app": (ON + '[[service]]\napp = "kept"\n', "service[0].app: needs a restart: 'kept'"),
    "interfaces": ('interfaces = ["a"]\nhook = "tc"\n' + ECHO, "carom.toml:1: interfaces: needs"),
    "one more": (ON + ECHO + MEMCACHED, "carom.toml:6: service[1]: needs a restart: a service on"),
    "too many prefixes": (
        ON + f"allow = {[f'10.{n >> 8}.{n & 255}.0/24' for n in range(20_000)]}\n" + ECHO,
        "20,001 allowed prefixes are too many",
    ),
}


@pytest.mark.parametrize(("text", "said"), NO.values(), ids=NO)
def test_all_or_nothing(straight: Line, file: Path, text: str, said: str) -> None:
    with running(straight, file) as carom, Client(straight.client, straight.address) as client:
        client.ask(b"kept")
        options = carom.status()["options"]
        file.write_text(text)
        ended = reload(straight, carom)
        assert (ended.code, ended.stdout) == (1, "")
        assert said in ended.stderr
        assert "Traceback" not in ended.stderr + carom.stderr()
        assert carom.status()["options"] == options
        before = carom.counters()
        assert client.ask(b"kept") == b"kept"
        carom.expect(before, hit=1)
        file.write_text(ON + ECHO + "ttl = 7\n")
        assert reload(straight, carom).code == 0


def test_the_file_is_gone(straight: Line, file: Path) -> None:
    with running(straight, file) as carom:
        file.unlink()
        ended = reload(straight, carom)
        assert ended.code == 1
        assert f"cannot read {file}" in ended.stderr


def test_a_firewall(own_line: Line, file: Path) -> None:
    """Carom does not go on as it would not start. A TTL is no matter of a firewall's."""
    bypass = "bypass_firewall = true\n"
    put(own_line.server, table(f"ip saddr {own_line.client_address} accept", policy="drop"))
    file.write_text(ON + ECHO + bypass)
    with running(own_line, file) as carom:
        file.write_text(ON + ECHO)
        ended = reload(own_line, carom)
        assert ended.code == 1
        assert "the firewall drops by default what would be answered on port 51141" in ended.stderr
        assert carom.status()["options"]["bypass_firewall"]
        file.write_text(ON + ECHO + bypass + "ttl = 5\n")
        assert reload(own_line, carom).stdout == "service[0].ttl: 60.0 -> 5.0\n"
        file.write_text(ON + ECHO + f'allow = ["{own_line.client_address}/32"]\n')
        ended = reload(own_line, carom)
        assert ended.code == 0, ended
        with Client(own_line.client, own_line.address) as client:
            until(lambda: hit(carom, client), "a hit")


def hit(carom: Carom, client: Client) -> bool:
    """Whether the kernel answers."""
    before = carom.counters()["hit"]
    assert client.ask(b"kept") == b"kept"
    return carom.counters()["hit"] > before


def test_hung_up_at_once(straight: Line, file: Path) -> None:
    """A SIGHUP that comes during the start waits for its end."""
    process = start(straight.server, "run", str(file), "--json")
    try:
        until(lambda: caught(process.pid), "its handlers")
        for _ in range(50):
            process.send_signal(signal.SIGHUP)
        assert process.stdout and process.stdout.readline().startswith('{"services"')
    finally:
        process.terminate()
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "reloaded" in stderr and "Traceback" not in stderr


def caught(pid: int) -> bool:
    """Whether a process has a handler of SIGHUP."""
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = re.findall(r"^SigCgt:\s+(\w+)$", status, re.MULTILINE)
    return bool(int(mask, 16) & 1 << signal.SIGHUP - 1)


@pytest.mark.parametrize("command", ["run", "serve", "front"])
def test_hung_up(straight: Line, file: Path, command: str) -> None:
    """With a file SIGHUP has it read again, also while requests are served, and by and by."""
    front = command == "front"
    service = MEMCACHED if front else ECHO
    file.write_text(ON + service)
    words = (str(file),) if command == "run" else ("--config", str(file))
    with (
        Memcached(straight.server),
        Carom(straight.server, *words, interface=None, command=command) as carom,
        Client(straight.client, straight.address) as client,
    ):
        ask: Callable[[], object] = (lambda: None) if front else lambda: client.ask(b"kept")
        with asking(ask):
            for ttl in (5, 6, 7):
                file.write_text(ON + service + f"ttl = {ttl}\n")
                for _ in range(20):
                    carom.signal(signal.SIGHUP)
                until(lambda t=ttl: carom.status()["options"]["ttl"] == t, "it to be read")  # type: ignore[misc]
        file.write_text("x")
        carom.signal(signal.SIGHUP)
        until(lambda: "not reloaded: nothing has changed" in carom.stderr(), "the log")
        assert carom.status()["options"]["ttl"] == 7


def test_without_a_file(straight: Line) -> None:
    """SIGHUP ends it, as it always did."""
    with Carom(straight.server, "--hook", "tc") as carom:
        ended = reload(straight, carom)
        assert ended.code == 1
        assert "this carom has no configuration file" in ended.stderr
        carom.signal(signal.SIGHUP)
        ended = carom.wait()
        carom.check_clean(ended)


def test_both_kinds_in_one(straight: Line, file: Path) -> None:
    """A Python service and a fronted server, in one carom; a reload changes both."""
    file.write_text(ON + MEMCACHED + ECHO)
    with (
        Memcached(straight.server),
        running(straight, file) as carom,
        Client(straight.client, straight.address) as client,
        UDPClient(straight.client, straight.address) as udp,
        TCPClient(straight.client, straight.address) as tcp,
    ):
        tcp.set(b"key", b"value")

        def hits() -> bool:
            before = carom.counters()["hit"]
            assert client.ask(b"ask") == b"ask"
            assert udp.get(b"key") == b"value"
            return carom.counters()["hit"] == before + 2

        until(hits, "both to hit")
        file.write_text("ttl = 30\n" + ON + ECHO + MEMCACHED + "total_rate = 0\n")
        ended = reload(straight, carom)
        assert ended.stdout.splitlines() == [
            "ttl: 60.0 -> 30.0",
            "ttl: 60.0 -> 30.0",
            "service[1].total_rate: 16777216 -> 0",
        ]
        assert hits()
