# SPDX-License-Identifier: Apache-2.0
"""Hosts that change all the time, under a client that asks all the time.

Whatever goes, comes or is made anew: no reply is one that the server had not, while it was asked
for; and after each change there are hits again. How soon is printed. The choice is random; the seed
is printed, too.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import shutil
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from carom.vm.namespace import Namespace
from carom.vm.netns import wire
from netns import changing
from netns.container import Container, any_port, publish
from netns.line import Line
from netns.memcache import Memcached, TCPClient, value_of
from netns.process import DEADLINE, INTERFACE, Carom, until
from netns.restless import KEYS, Asker, History, Language, Writer

CHANGES, LONG = 20, 200
OTHER = "other0"
ADDRESSES = ("198.18.0.2", "198.18.0.3", "198.18.0.4")
EXTRA = "198.18.3.1"
BEHIND = ("198.19.7.2", "198.19.7.3", "198.19.7.4")
"""Addresses that containers have, in turn."""

BOUNDS = ("--prefix-rate", "0", "--total-rate", "0")


def _ask_soon(interface: str) -> None:
    """After a tenth of a second, and not a whole one."""
    Path(f"/proc/sys/net/ipv4/neigh/{interface}/retrans_time_ms").write_text("100")


class Host:
    """The server's end, which changes; its interface has a name and an address at each moment."""

    answers_anywhere = True
    """Whether the server's replies come from the address that was asked, of several."""

    def __init__(self, line: Line, chance: random.Random):
        self.line, self.chance = line, chance
        self.name, self.address, self.target = INTERFACE, ADDRESSES[0], ADDRESSES[0]
        self._forget()

    def _ip(self, *words: str) -> None:
        self.line.server.run("ip", *words)

    def _forget(self) -> None:
        """Have both ends ask for each other's MAC, and soon again: that is not measured."""
        for end, name in ((self.line.client, INTERFACE), (self.line.server, self.name)):
            end.call(functools.partial(_ask_soon, name))
            end.run("ip", "neigh", "flush", "dev", name, "nud", "all")

    def _up(self) -> None:
        """Set it up; the kernel may take a second until it sends anything, after many changes."""
        self._ip("link", "set", self.name, "up")

        def operates() -> bool:
            ends = ((self.line.client, INTERFACE), (self.line.server, self.name))
            return all("state UP" in end.run("ip", "link", "show", name) for end, name in ends)

        until(operates, "the link to be up")

    def link_down_and_up(self) -> None:
        """For a moment, or longer."""
        self._ip("link", "set", self.name, "down")
        time.sleep(self.chance.choice((0, 0.1, 0.5)))
        self._up()

    def renamed(self) -> None:
        """To another name, or back."""
        to = OTHER if self.name == INTERFACE else INTERFACE
        self._ip("link", "set", self.name, "down")
        self._ip("link", "set", self.name, "name", to)
        self.name = to
        self._up()

    def made_anew(self) -> None:
        """Under the name that it had at first, after a while."""
        self._ip("link", "del", self.name)
        time.sleep(self.chance.choice((0, 0.1, 0.5)))
        wire(self.line.client, self.line.server)
        self.name, self.address, self.target = INTERFACE, ADDRESSES[0], ADDRESSES[0]
        self._up()
        self._forget()

    def address_replaced(self) -> None:
        """By another one of the same network."""
        self._ip("address", "del", f"{self.address}/29", "dev", self.name)
        self.address = ADDRESSES[(ADDRESSES.index(self.address) + 1) % len(ADDRESSES)]
        self._ip("address", "add", f"{self.address}/29", "dev", self.name)
        self.target = self.address

    def address_added(self) -> None:
        """Clients ask there from then on, if they have answers there."""
        has = self.line.server.run("ip", "-o", "address", "show", "dev", self.name)
        if EXTRA not in has:
            self._ip("address", "add", f"{EXTRA}/32", "dev", self.name)
        self.line.client.run("ip", "route", "replace", f"{EXTRA}/32", "dev", INTERFACE)
        if self.answers_anywhere:
            self.target = EXTRA

    def address_removed(self) -> None:
        """They ask at the first one again."""
        has = self.line.server.run("ip", "-o", "address", "show", "dev", self.name)
        if EXTRA in has:
            self._ip("address", "del", f"{EXTRA}/32", "dev", self.name)
        self.target = self.address

    def mac_changed(self) -> None:
        """To any."""
        new = f"02:00:00:00:{self.chance.randrange(256):02x}:{self.chance.randrange(256):02x}"
        self._ip("link", "set", self.name, "address", new)
        self._forget()

    def mtu_changed(self) -> None:
        """Between two values."""
        self._ip("link", "set", self.name, "mtu", str(self.chance.choice((1400, 1500))))

    def state(self) -> Iterator[str]:
        """As both ends have it, for whoever reads of a failure."""
        for end in (self.line.server, self.line.client):
            for what in ("address", "route", "neigh"):
                yield end.run("ip", what)

    def changes(self) -> list[Callable[[], None]]:
        """All that can happen."""
        return [
            self.link_down_and_up,
            self.renamed,
            self.made_anew,
            self.address_replaced,
            self.address_added,
            self.address_removed,
            self.mac_changed,
            self.mtu_changed,
        ]


class Serving(Host):
    """A Python server, which is carom itself."""

    def __init__(self, line: Line, chance: random.Random, hook: str, stack: ExitStack):
        super().__init__(line, chance)
        arguments = ("--app", "changing:changing", "--amplify", "0", "--mode", "generic", *BOUNDS)
        self.carom = stack.enter_context(Carom(line.server, *arguments, "--hook", hook))
        self.history = History[object](0)
        self.language = Language(
            changing.PORT, lambda _, key: changing.request_of(key), self._value
        )
        self._udp = line.server.call(lambda: socket.socket(type=socket.SOCK_DGRAM))
        stack.callback(self._udp.close)
        self._udp.settimeout(DEADLINE)
        self._udp.connect(("127.0.0.1", changing.WRITE_PORT))
        self._numbers = [0] * KEYS

    def begin_anew(self) -> None:
        """Its process is another one, which knows of no write."""
        self._numbers = [0] * KEYS
        self.history.begun(0)

    @staticmethod
    def _value(_: int, key: int, reply: bytes) -> object:
        number = changing.number_of(reply)
        if reply != changing.reply_of(key, number):
            raise ValueError("no reply")
        return number

    def write(self, key: int) -> None:
        """Change a key."""
        self._numbers[key] += 1
        acknowledged = self.history.writing(key, self._numbers[key])
        self._udp.send(changing.write_of(key))
        assert changing.number_of(self._udp.recv(64)) == self._numbers[key]
        acknowledged()


class Fronting(Host):
    """A memcached that is fronted, in the host's own namespace."""

    answers_anywhere = False  # it is bound to 0.0.0.0, and does not look where a datagram came

    def __init__(self, line: Line, chance: random.Random, hook: str, stack: ExitStack):
        super().__init__(line, chance)
        self._port = any_port()
        self.history = History[object](None)
        self.language = Language(self._port, self._request, self._value)
        self._number = 0
        self._stack = stack.enter_context(ExitStack())
        self.paused: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        self._begin()
        where = ("-p", str(self._port), "--mode", "generic", "--hook", hook)
        arguments = (*where, "--amplify", "0", *BOUNDS)
        carom = Carom(line.server, *arguments, command="front")
        self.carom = stack.enter_context(carom)

    @staticmethod
    def _request(id: int, key: int) -> bytes:
        return id.to_bytes(2, "big") + bytes((0, 0, 0, 1, 0, 0)) + b"get key-%d\r\n" % key

    @staticmethod
    def _value(id: int, key: int, reply: bytes) -> object:
        if reply[:8] != id.to_bytes(2, "big") + bytes((0, 0, 0, 1, 0, 0)):
            raise ValueError("of another id")
        if b"VALUE" in reply and b"VALUE key-%d " % key not in reply:
            raise ValueError("of another key")
        try:
            return value_of(reply[8:])
        except AssertionError as error:
            raise ValueError("no reply") from error

    def _begin(self) -> None:
        self._start()

    def _where(self) -> Namespace:
        return self.line.server

    def _start(self) -> None:
        self.history.begun(None)
        where = self._where()
        self._memcached = self._stack.enter_context(
            Memcached(where, self._port, addresses="0.0.0.0")
        )
        self._tcp = self._stack.enter_context(TCPClient(where, "127.0.0.1", self._port))

    def write(self, key: int) -> None:
        """Change a key."""
        self._number += 1
        value = b"-%d" % self._number * (1 + self._number % 40)
        acknowledged = self.history.writing(key, value)
        self._tcp.set(b"key-%d" % key, value)
        acknowledged()

    def server_restarted(self) -> None:
        """Ended, and begun anew at once."""
        with self.paused:
            self._memcached.close()
            self.history.ended()
            self._stack.close()
            self._start()

    def server_killed(self) -> None:
        """And away for a while."""
        with self.paused:
            self._memcached.process.kill()
            self._memcached.process.wait()
            self.history.ended()
            self._stack.close()
            time.sleep(self.chance.choice((0.1, 0.5, 1.5)))
            self._start()

    def changes(self) -> list[Callable[[], None]]:
        """The server's, too."""
        return [*super().changes(), self.server_restarted, self.server_killed]


class Publishing(Fronting):
    """The same in a container with a published port."""

    answers_anywhere = True

    def __init__(self, line: Line, chance: random.Random, hook: str, stack: ExitStack):
        self._containers = stack.enter_context(ExitStack())
        self._behind = BEHIND[0]
        self._host = line.server
        super().__init__(line, chance, hook, stack)

    def _enter(self) -> None:
        self._container = self._containers.enter_context(Container(self._host, self._behind))
        publish(self._host, self._behind, self._port)

    def _begin(self) -> None:
        self._enter()
        self._start()

    def _where(self) -> Namespace:
        return self._container.namespace

    def container_made_anew(self) -> None:
        """With another address; the server comes after its interface."""
        with self.paused:
            self._memcached.close()
            self.history.ended()
            self._stack.close()
            self._containers.close()
            self._behind = BEHIND[(BEHIND.index(self._behind) + 1) % len(BEHIND)]
            self._enter()
            time.sleep(self.chance.choice((0, 0.3, 1)))
            self._start()

    def changes(self) -> list[Callable[[], None]]:
        """The container's, too."""
        return [*super().changes(), self.container_made_anew]


WORLDS = {"serve": Serving, "front": Fronting, "container": Publishing}


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("CAROM_SEED", random.randrange(2**32)))
    print(f"CAROM_SEED={seed}")
    return random.Random(seed)


def _until_hit(host: Host, asker: Asker, what: str) -> None:
    try:
        until(lambda: asker.hit_after < DEADLINE or asker.wrong, what)
    except AssertionError:
        print(asker, host.carom.status(), *host.state(), sep="\n")
        raise


def _shown(times: dict[str, list[float]]) -> Iterator[str]:
    for name, found in sorted(times.items()):
        median, most = statistics.median(found), max(found)
        yield f"{name:22} {len(found):4} times: {median:6.3f} s, at most {most:6.3f} s"


@pytest.mark.parametrize("hook", ["xdp", "tc"])
@pytest.mark.parametrize("world", WORLDS)
def test_restless(
    own_line: Line, chance: random.Random, world: str, hook: str, long_form: bool
) -> None:
    if world == "container" and not shutil.which("nft"):
        pytest.skip("nft is not installed")
    times: dict[str, list[float]] = {}
    with ExitStack() as stack:
        host = WORLDS[world](own_line, chance, hook, stack)
        asker = Asker(own_line.client, host.target, host.language, host.history)
        stack.enter_context(asker)
        until(lambda: asker.replies, "the first reply")
        writer = stack.enter_context(Writer(host.write, random.Random(chance.random())))
        host.paused = writer.paused
        until(lambda: asker.hits, "the first hit")
        for number in range(LONG if long_form else CHANGES):
            change = chance.choice(host.changes())
            change()
            asker.address = host.target
            asker.changed()
            name = change.__name__
            if chance.random() < 0.2 and number:
                continue  # the next comes at once
            _until_hit(host, asker, f"hits after {name}")
            assert not asker.wrong, "\n".join(asker.wrong[:5])
            times.setdefault(name, []).append(asker.hit_after)
            print(f"{number}: {name}, a hit after {asker.hit_after:.3f} s")
            time.sleep(chance.choice((0, 0.2)))
        host.carom.interface = host.name
    print("\n".join(_shown(times)))
    assert not writer.failed, writer.failed
    print(asker)
    assert not asker.wrong, "\n".join(asker.wrong[:5])
