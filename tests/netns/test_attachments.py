# SPDX-License-Identifier: Apache-2.0
"""Interfaces by any of their names, renamed, made anew, down, or of no use: followed, or said."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from carom.daemon import control
from carom.filters.filter import Filter
from carom.kernel import libbpf, links
from carom.vm.namespace import Namespace
from carom.vm.netns import wire
from carom.xdp.link import Link
from netns.line import Line
from netns.memcache import Memcached
from netns.process import INTERFACE, Carom, attached, run, until
from netns.test_errors import check_refused
from netns.wire import Client

BOUNCE = ("--fast", "bounce", "--mode", "generic")
OTHER = "other0"
KV = 12345


def reach(carom: Carom) -> list[dict[str, Any]]:
    """Where the one service is answered, and why not."""
    (service,) = carom.status()["services"]
    found: list[dict[str, Any]] = service["reach"]
    return found


def until_answered(line: Line, carom: Carom, counter: str = "bounce") -> None:
    """Ask, by a socket of its own each time, until the fast path answers."""

    def answered() -> bool:
        before = carom.counters()[counter]
        with Client(line.client, line.address) as client:
            return client.answered(b"ask") and carom.counters()[counter] > before

    until(answered, "the fast path to answer")
    until(lambda: reach(carom)[0]["answered"], "it to be said")
    assert not reach(carom)[0]["why"]


def rename(line: Line, name: str, to: str) -> None:
    """Give the server's interface another name."""
    line.server.run("ip", "link", "set", name, "down")
    line.server.run("ip", "link", "set", name, "name", to)
    line.server.run("ip", "link", "set", to, "up")


def make_anew(line: Line) -> None:
    """Both ends of the wire, as they were; the client's has no program now."""
    if INTERFACE in line.server.run("ip", "-o", "link"):
        line.server.run("ip", "link", "del", INTERFACE)
    wire(line.client, line.server)


def test_renamed(own_line: Line) -> None:
    with Carom(own_line.server, *BOUNCE) as carom:
        until_answered(own_line, carom)
        rename(own_line, INTERFACE, OTHER)
        until_answered(own_line, carom)
        until(lambda: reach(carom)[0]["interface"] == OTHER, "its name to be said")
        assert carom.status()["ready"]["interfaces"][0]["name"] == OTHER
        assert "another name" in carom.stderr()
        rename(own_line, OTHER, INTERFACE)
        until_answered(own_line, carom)


def test_another_takes_its_name(own_line: Line) -> None:
    """What requests come in by is answered on, and not what is called so now."""
    with Carom(own_line.server, *BOUNCE) as carom:
        rename(own_line, INTERFACE, OTHER)
        own_line.server.run(*f"ip link add {INTERFACE} type veth peer name peer0".split())
        until_answered(own_line, carom)
        own_line.server.run("ip", "link", "del", INTERFACE)
        rename(own_line, OTHER, INTERFACE)
        until_answered(own_line, carom)


@pytest.mark.parametrize("hook", ["xdp", "tc"])
def test_made_anew(own_line: Line, hook: str) -> None:
    with Carom(own_line.server, *BOUNCE, "--hook", hook) as carom:
        for _ in range(3):
            until_answered(own_line, carom)
            make_anew(own_line)
        until_answered(own_line, carom)
        assert carom.stderr().count("attached to the interface anew") == 3


@pytest.mark.parametrize("place", ["xdp", "tc"])
def test_a_filter_of_one_made_anew(own_line: Line, place: str) -> None:
    """It is there again, before the cache, and another can be put in its place."""
    arguments = ("--app", "kv", "-p", str(KV), "--mode", "generic")
    filter = ("--filter", "reject", "--filter-at", place)

    def tally(name: str) -> int:
        with Client(own_line.client, own_line.address, KV) as client:
            client.answered(b"GET\1\0\0\0")
        return sum(control.call("filter", carom.pid)["tallies"][name])

    with Carom(own_line.server, *arguments, *filter) as carom:
        assert tally("valid_rejected") == 1
        make_anew(own_line)
        until(lambda: tally("valid_rejected") > 1, "requests to be rejected again")
        ended = run(own_line.server, "filter", "use", "simple", "--pid", str(carom.pid))
        assert ended.code == 0, ended
        until(lambda: tally("valid_accepted") > 0, "requests to be accepted")


def test_gone_for_a_while(own_line: Line) -> None:
    with Carom(own_line.server, *BOUNCE) as carom:
        own_line.server.run("ip", "link", "del", INTERFACE)
        until(lambda: "gone" in reach(carom)[0]["why"], "it to be gone")
        assert not reach(carom)[0]["answered"]
        make_anew(own_line)
        until_answered(own_line, carom)


def test_taken_when_it_comes_back(own_line: Line) -> None:
    """Another's program is never replaced: it is said, and tried again."""
    server = own_line.server
    with Carom(server, *BOUNCE) as carom:
        server.run("ip", "link", "del", INTERFACE)
        server.run(*f"ip link add {OTHER} type veth peer name peer0".split())
        until(lambda: "gone" in reach(carom)[0]["why"], "it to be gone")
        with Carom(server, *BOUNCE, "-p", "4000", interface=OTHER) as stranger:
            rename(own_line, OTHER, INTERFACE)
            stranger.interface = INTERFACE
            until(lambda: "already has" in str(carom.status()["not_followed"]), "a reason")
            (found,) = reach(carom)
            assert not found["answered"]
            assert "already has" in found["why"]
            assert "gone" not in found["why"]
            stranger.interface = None  # carom may be there before anybody looks
        make_anew(own_line)
        until_answered(own_line, carom)
        until(lambda: not carom.status()["not_followed"], "nothing to be left")


def test_down_at_the_start(own_line: Line) -> None:
    own_line.server.run("ip", "link", "set", INTERFACE, "down")
    with Carom(own_line.server, *BOUNCE) as carom:
        (why,) = {one["why"] for one in reach(carom)}
        assert f"{INTERFACE} is down" in why
        assert any(why in note for note in carom.ready["notes"])
        shown = run(own_line.server, "status", "--pid", str(carom.pid))
        assert why in shown.stdout
        own_line.server.run("ip", "link", "set", INTERFACE, "up")
        for address in (own_line.client_address, own_line.client_address6):
            own_line.server.neighbour(INTERFACE, address, own_line.client.mac(INTERFACE))
        until_answered(own_line, carom)
        assert "answered again" in carom.stderr()


def test_no_carrier(own_line: Line) -> None:
    with Carom(own_line.server, *BOUNCE) as carom:
        own_line.client.run("ip", "link", "set", INTERFACE, "down")
        until(lambda: "no carrier" in reach(carom)[0]["why"], "it to be said")


def test_ipv6_alone(own_line: Line) -> None:
    """At 0.0.0.0, the default, nothing is answered there, and `ready` says so."""
    own_line.server.run("ip", "-4", "address", "flush", "dev", INTERFACE)
    with Carom(own_line.server, *BOUNCE) as carom:
        assert any("--bind ::" in note for note in carom.ready["notes"])
    with (
        Carom(own_line.server, *BOUNCE, "--bind", "::") as carom,
        Client(own_line.client, own_line.address6) as client,
    ):
        assert client.ask(b"six") == b"six"
        assert carom.counters()["bounce"] == 1


def test_rules_that_choose_between_tables(own_line: Line) -> None:
    """With an allow-list nobody knows then whom a reply goes to: of one IP, or of both."""
    server, allow = own_line.server, ("--allow", "198.18.0.0/15", "--allow", "2001:db8::/32")

    def rule(action: str, version: int) -> None:
        server.run("ip", f"-{version}", "rule", action, "from", "all", "table", "77")

    with Carom(server, "--bind", "::", *allow) as carom:
        assert reach(carom)[0] | {"interface": ""} == {
            "interface": "",
            "answered": True,
            "why": "",
            "but": "",
        }
        rule("add", 4)
        until(lambda: "of IPv4 the server answers alone" in reach(carom)[0]["but"], "it to be said")
        assert reach(carom)[0]["answered"]
        rule("add", 6)
        until(lambda: not reach(carom)[0]["answered"], "it to be said of both")
        assert "rules (ip rule) choose between tables of routes" in reach(carom)[0]["why"]
        until(lambda: "requests cannot be answered" in carom.stderr(), "the log to say it")
        rule("del", 4)
        rule("del", 6)
        until(lambda: reach(carom)[0]["answered"], "answered again")
        until(lambda: not reach(carom)[0]["but"], "all of it")


@pytest.fixture
def another_name(straight: Line) -> Iterator[None]:
    """The server's interface has a second name."""
    straight.server.run("ip", "link", "property", "add", "dev", INTERFACE, "altname", "uplink")
    yield
    straight.server.run("ip", "link", "property", "del", "dev", INTERFACE, "altname", "uplink")


@pytest.mark.usefixtures("another_name")
@pytest.mark.parametrize(
    "names",
    [("uplink",), (f"{INTERFACE}@if7",), (INTERFACE, INTERFACE), (INTERFACE, "uplink")],
    ids=["alternative", "as-ip-shows-it", "twice", "by-two-names"],
)
def test_names(straight: Line, client: Client, names: tuple[str, ...]) -> None:
    named = [word for name in names for word in ("-i", name)]
    with Carom(straight.server, *BOUNCE, *named, interface=None) as carom:
        assert client.ask(b"by any name") == b"by any name"
        assert [one["name"] for one in carom.ready["interfaces"]] == [INTERFACE]


def test_a_bridges_port(own_line: Line) -> None:
    """At the start, and later."""
    server = own_line.server
    server.run("ip", "link", "add", "br0", "type", "bridge")
    server.run("ip", "link", "set", "br0", "up")
    with Carom(server, *BOUNCE) as carom:
        server.run("ip", "link", "set", INTERFACE, "master", "br0")
        until(lambda: "-i br0" in reach(carom)[0]["why"], "it to be said")
        server.run("ip", "link", "set", INTERFACE, "nomaster")
        until_answered(own_line, carom)
    server.run("ip", "link", "set", INTERFACE, "master", "br0")
    ended = run(server, "serve", "-i", INTERFACE)
    check_refused(own_line, ended, 1, "a port of br0", "-i br0")


def test_a_server_that_is_gone(straight: Line) -> None:
    with Memcached(straight.server) as memcached:
        carom = Carom(straight.server, command="front")
        with carom:
            assert reach(carom)[0]["answered"]
            memcached.close()
            until(lambda: "no server" in reach(carom)[0]["why"], "it to be said")
            shown = run(straight.server, "status", "--pid", str(carom.pid))
            assert "no server is there" in shown.stdout


class _Leaving(Link):
    """One whose interface goes right after it was looked at."""

    leave: Callable[[], object]

    def attached(self) -> bool:
        found = super().attached()
        self.leave()
        return found


def test_an_interface_goes_while_a_filter_is_swapped() -> None:
    """It takes what was there along; where the others are, there is the new one."""
    with Namespace("alone") as alone, contextlib.ExitStack() as stack:
        for name in ("one", "two"):
            alone.run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}-peer")
        filter = stack.enter_context(Filter("simple", "xdp", 250))

        def attach(name: str) -> None:
            interface = links.interface(name)
            link = filter.attached.add(
                interface.ifindex, _Leaving(filter.program, interface, "generic")
            )
            gone = functools.partial(alone.run, *f"ip link del {name}".split())
            link.leave = functools.cache(gone) if name == "one" else str
            filter.follow(link)

        alone.call(lambda: attach("one"))
        alone.call(lambda: attach("two"))
        filter.load("reject")
        assert filter.name == "reject"
        assert attached(alone, "two")["id"] == libbpf.program_id(filter.program)
        filter.load("simple")
