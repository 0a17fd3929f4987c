# SPDX-License-Identifier: Apache-2.0
"""`--shadow`: hits that the server answers too, what differs, and what becomes of it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from carom.daemon import shadow
from carom.kernel.waiting import readable
from netns.fronted import Fake, value_reply
from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient
from netns.nameserver import NSD, ZONE, Resolver
from netns.process import INTERFACE, Carom, run, until
from netns.services import sized_reply, sized_request
from netns.test_errors import check_refused
from netns.test_metrics import one, samples, told
from netns.wire import Client

HOSTILE = [b"\x1b[31mred\x07", b"a\nb c=d", b"'; --", b"0x41", "é".encode(), b"\xff\x00\xfe"]
HOOKS = [("--mode", "native"), ("--mode", "generic"), ("--hook", "tc")]
IDS = ["native", "generic", "tc"]


def shadow_of(carom: Carom, number: int = 0) -> dict[str, Any]:
    """What was compared."""
    found: dict[str, Any] = carom.status()["services"][number]["shadow"]
    return found


@pytest.fixture(params=HOOKS, ids=IDS)
def hook(request: pytest.FixtureRequest) -> tuple[str, ...]:
    found: tuple[str, ...] = request.param
    return found


def test_a_server_that_says_the_same(straight: Line, hook: tuple[str, ...]) -> None:
    """Each request has one reply; one in four hits goes up, and nothing differs."""
    options = ("--app", "services:sized", "--shadow", "4", *hook)
    with (
        Carom(straight.server, *options) as carom,
        Client(straight.client, straight.address) as client,
    ):
        requests = [sized_request(40 + n, 33) for n in range(10)]
        before = carom.counters()
        for _ in range(20):
            for request in requests:
                assert client.ask(request) == sized_reply(request)
        assert client.nothing_more()
        found = carom.since(before)
        assert found["hit"] + found["pass_shadow"] + found["miss"] == 200
        assert found["hit"] / 3 - 4 <= found["pass_shadow"] <= found["hit"] / 3 + 4
        until(lambda: shadow_of(carom)["compared"] >= found["pass_shadow"], "all to be compared")
        assert shadow_of(carom) == {
            "compared": found["pass_shadow"],
            "differing": 0,
            "off": False,
        }
        assert "something else" not in carom.stderr()


@pytest.fixture(scope="module")
def changeful(line: Line) -> Iterator[Carom]:
    """Each time that its handler is asked it says something else; every other hit goes up."""
    with Carom(line.server, "--app", "services:told", "--shadow", "2") as carom:
        yield carom


def test_what_differs_is_said_without_its_bytes(line: Line, changeful: Carom) -> None:
    with Client(line.client, line.address) as client:
        for request in HOSTILE:
            before = shadow_of(changeful)["differing"]

            def differs(request: bytes = request, before: int = before) -> bool:
                client.ask(request)
                return bool(shadow_of(changeful)["differing"] > before)

            until(differs, "a difference")
    log = changeful.stderr()
    assert "the server says something else than the cache" in log
    assert all(text.isprintable() and text.isascii() for text in log.splitlines()), log
    assert "bytes, " in log and "port=51141" in log
    assert shadow_of(changeful)["off"] is False
    before = changeful.counters()
    with Client(line.client, line.address) as client:
        for _ in range(20):
            client.ask(b"again and again")
    assert changeful.since(before)["hit"], "it only says so"


def test_where_it_is_shown(line: Line, changeful: Carom) -> None:
    with Client(line.client, line.address) as client:
        for _ in range(20):
            client.ask(b"shown")
    until(lambda: shadow_of(changeful)["differing"], "a difference")
    said = run(line.server, "status", "--pid", str(changeful.pid)).stdout
    assert "replies compared with the server's" in said and " differed" in said
    assert " pass shadow " in said
    text = told("--pid", str(changeful.pid)).stdout
    assert (
        one(
            text, "carom_shadow_replies_total", address="0.0.0.0", port="51141", outcome="differing"
        )
        > 0
    )
    assert (
        one(text, "carom_shadow_replies_total", address="0.0.0.0", port="51141", outcome="same")
        >= 0
    )
    assert one(text, "carom_shadow_off", address="0.0.0.0", port="51141") == 0


TWO = f"""
interfaces = ["{INTERFACE}"]
shadow = 2

[[service]]
port = 51141
app = "services:told"
shadow_policy = "off"

[[service]]
port = 51142
app = "carom.apps:echo"
"""


def test_off(straight: Line, tmp_path: Path) -> None:
    """One service's cache, and no other's: from then on its server answers."""
    path = tmp_path / "two.toml"
    path.write_text(TWO)
    with (
        Carom(straight.server, "--config", str(path)) as carom,
        Client(straight.client, straight.address) as client,
        Client(straight.client, straight.address, 51_142) as other,
    ):

        def is_off() -> bool:
            client.ask(b"changes")
            before = carom.counters()
            client.ask(b"changes")
            return carom.since(before).get("pass_off", 0) == 1

        until(is_off, "the cache to be off")
        assert shadow_of(carom)["off"] and not shadow_of(carom, 1)["off"]
        before = carom.counters()
        replies = [client.ask(b"counted") for _ in range(10)]
        assert replies == [b"counted: %d" % (n + 1) for n in range(10)]
        carom.expect(before, pass_off=10, replies=10, fills=10)
        assert carom.stderr().count("its cache is switched off") == 1
        before = carom.counters()
        for _ in range(20):
            assert other.ask(b"same") == b"same"
        assert carom.since(before)["hit"]
        said = run(straight.server, "status", "--pid", str(carom.pid)).stdout
        assert "so its cache is off" in said
        assert (
            one(
                told("--pid", str(carom.pid)).stdout,
                "carom_shadow_off",
                address="0.0.0.0",
                port="51141",
            )
            == 1
        )


def test_a_memcached_whose_writes_are_seen(straight: Line, hook: tuple[str, ...]) -> None:
    """Sets and gets at random: what was written between is void, and so no difference."""
    rng = random.Random(5)
    with (
        Memcached(straight.server),
        Carom(straight.server, *hook, "--shadow", "2", command="front") as carom,
        UDPClient(straight.client, straight.address) as udp,
        TCPClient(straight.client, straight.address) as tcp,
    ):
        values = {b"key%d" % n: b"" for n in range(5)}
        for number in range(600):
            key = rng.choice(list(values))
            if not values[key] or rng.random() < 0.1:
                values[key] = b"value %d" % number
                tcp.set(key, values[key])
            assert udp.get(key) == values[key]
        until(lambda: shadow_of(carom)["compared"] > 20, "some to be compared")
        assert shadow_of(carom)["differing"] == 0
        assert carom.counters()["pass_shadow"] and carom.counters()["hit"]


def test_writes_at_once_with_reads(straight: Line) -> None:
    """By several clients, before a server of several threads: what a write overtakes is void."""
    with (
        Memcached(straight.server, threads=4),
        Carom(straight.server, "--mode", "generic", "--shadow", "2", command="front") as carom,
    ):
        written = threading.Event()

        def write() -> None:
            with TCPClient(straight.client, straight.address) as tcp:
                for number in range(400):
                    tcp.set(b"key%d" % (number % 4), b"value %d" % number)
                    time.sleep(0.002)  # so that there are reads in between

        def read() -> None:
            with UDPClient(straight.client, straight.address) as udp:
                while not written.is_set():
                    udp.get(b"key%d" % random.randrange(4))

        with ThreadPoolExecutor(6) as threads:
            readers = [threads.submit(read) for _ in range(4)]
            try:
                for writer in [threads.submit(write) for _ in range(2)]:
                    writer.result()
            finally:
                written.set()
            for reader in readers:
                reader.result()
        time.sleep(2 * shadow.DOUBT)
        found = shadow_of(carom)
        assert found["compared"] and found["differing"] == 0


def test_a_memcached_that_changes_unseen(straight: Line) -> None:
    with (
        Fake(straight.server) as fake,
        Carom(
            straight.server, "--exptime", "ttl", "--shadow", "3", "--shadow-policy", "off",
            command="front",
        ) as carom,
        UDPClient(straight.client, straight.address) as udp,
    ):  # fmt: skip
        fake.learned(udp, b"key", b"old")
        asked = 0

        def is_off() -> bool:
            nonlocal asked
            number = udp.send(b"get key\r\n")
            if carom.status() and _came(fake):
                asked += 1
                fake.answer(fake.take(), value_reply(b"key", b"new"))
            udp.receive(number)
            return bool(shadow_of(carom)["off"])

        until(is_off, "its cache to be off")
        assert asked and shadow_of(carom)["differing"] == 1
        assert "key=gkey" in carom.stderr()


def _came(fake: Fake) -> bool:
    return bool(readable([fake.socket], 0.2))


def test_a_name_server(straight: Line, tmp_path: Path) -> None:
    """A zone that is read again and says the same is none; another address is one."""
    with (
        NSD(straight.server, tmp_path) as nsd,
        Carom(
            straight.server, "--protocol", "dns", "--ttl", "1h", "--shadow", "2", command="front"
        ) as carom,
        Resolver(straight.client, straight.address) as resolver,
    ):  # fmt: skip
        until(lambda: resolver.tries("www.example.org") and carom.counters()["hit"], "a hit")
        nsd.reload(ZONE.replace("hostmaster 1 ", "hostmaster 2 "))
        for _ in range(40):
            assert resolver.ask("www.example.org").ancount == 2
        until(lambda: shadow_of(carom)["compared"] > 5, "some to be compared")
        assert shadow_of(carom)["differing"] == 0
        nsd.reload(ZONE.replace("198.18.0.11", "198.18.0.19"))

        def differs() -> bool:
            resolver.ask("www.example.org")
            return bool(shadow_of(carom)["differing"])

        until(differs, "the new address")


def test_without_it_no_word(own_line: Line) -> None:
    with Carom(own_line.server, "--mode", "generic") as carom:
        assert shadow_of(carom) is None
        text = told("--pid", str(carom.pid)).stdout
        assert not [name for name, _ in samples(text) if name.startswith("carom_shadow")]
        assert "compared" not in run(own_line.server, "status", "--pid", str(carom.pid)).stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--shadow", "-1"), "out of range"),
        (("--shadow", "often"), "often"),
        (("--shadow", "10", "--fast", "bounce"), "there is none"),
        (("--shadow", "10", "--hook", "none"), "there is none"),
        (("--shadow", "10", "--shadow-policy", "maybe"), "maybe"),
    ],
)
def test_wrong_usage(own_line: Line, arguments: tuple[str, ...], said: str) -> None:
    ended = run(own_line.server, "serve", "-i", INTERFACE, *arguments)
    check_refused(own_line, ended, 2, "shadow", said)
