# SPDX-License-Identifier: Apache-2.0
"""Programs that are led: what leaves by which interface, as the outside saw it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from carom.errors import ExperimentError
from carom.kernel import libbpf
from carom.kernel.cgroups import mounted, open_root
from carom.routes import group
from carom.routes.group import Group
from netns.process import DEADLINE, HERE, until
from netns.routed import (
    ACTOR,
    NOBODY,
    PYTHON,
    RESOLVERS,
    ROUTER,
    Routed,
    by,
    listening,
    own,
    router,
    sources,
    sysctl,
)
from netns.tools import tool

UNREACHABLE = {"EHOSTUNREACH", "ENETUNREACH"}
CUT = {*UNREACHABLE, "timeout", "EPERM"}
"""What a program may see while its interface is away."""


@pytest.fixture(scope="module")
def all_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routed]:
    with Routed(tmp_path_factory.mktemp("routes")) as hosts:
        yield hosts


@pytest.fixture
def hosts(all_hosts: Routed) -> Iterator[Routed]:
    """The same hosts for all tests: each leaves no route, and the interfaces as they were."""
    all_hosts.settle()
    yield all_hosts
    all_hosts.check_clean()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that nobody may look into."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


def four(way: str) -> str:
    """The host's IPv4 address at an interface."""
    return own(way)[0]


def check_all_by(way: str, told: dict[str, Any], seen: dict[str, dict[str, int]]) -> None:
    """Every kind of socket had the interface's source, and nothing left by another."""
    assert sources({name: value for name, value in told.items() if "6" not in name}) == {four(way)}
    assert sources({name: value for name, value in told.items() if "6" in name}) == {own(way)[1]}
    assert seen.keys() == {way}


def refused(hosts: Routed, name: str) -> dict[str, int]:
    """What was refused in a route, by `ls`."""
    found: dict[str, int] = hosts.ls()[name]["refused"]
    return found


@contextlib.contextmanager
def kept_up(hosts: Routed, lines: str = "", via: str = "tun0") -> Iterator[str]:
    """A route of a file that is up; it ends well."""
    name = hosts.name()
    gateways = ", ".join(f'"{one}"' for one in router(via))
    config = hosts.file({name: f'via = "{via}"\ngateway = [{gateways}]\n{lines}'})
    with hosts.started(name, config) as running:
        yield name
        if name in group.names():
            hosts.done("stop", name, "--kill")
        assert running.end().code == 0


# What every program does.


def test_every_kind_of_socket(hosts: Routed) -> None:
    check_all_by("tun0", hosts.run("many"), hosts.seen())


def test_who_is_not_led(hosts: Routed) -> None:
    with kept_up(hosts):
        check_all_by("eth0", hosts.direct("many"), hosts.seen())


def test_echo_requests(hosts: Routed) -> None:
    assert hosts.run("icmp") == {"4": "reply", "6": "reply"}
    rooted = (*by("tun0"), "--user", "0", "--keep-rights")
    assert hosts.run("raw", route=rooted) == {"4": "reply", "6": "reply"}
    assert hosts.seen() == {
        "tun0": {f"icmp {four('tun0')}": 2, f"icmp6 {own('tun0')[1]}": 2},
    }


def test_children_and_threads(hosts: Routed) -> None:
    told = hosts.run("tree")
    assert told.keys() == {"fork", "exec", "setsid", "daemon", "thread"}
    assert sources(told) == {four("tun0")}
    assert hosts.seen() == {"tun0": {f"udp {four('tun0')}": 5}}


def test_multipath_tcp_is_refused(hosts: Routed) -> None:
    """Its subflows are sockets that the kernel makes; programs fall back to TCP."""
    if hosts.direct("mptcp") == "EPROTONOSUPPORT":
        pytest.skip("this kernel has no MPTCP")
    hosts.settle()
    with kept_up(hosts) as name:
        assert hosts.run("mptcp", route=(name, *NOBODY)) == "EPROTONOSUPPORT"
        assert refused(hosts, name) == {"mptcp": 1}
    assert hosts.seen() == {}


def test_two_routes(hosts: Routed) -> None:
    with (
        hosts.led("held") as one,
        hosts.led("held", route=(*by("tun1"), *NOBODY)) as other,
    ):
        for led, way in ((one, "tun0"), (other, "tun1")):
            hosts.settle()
            check_all_by(way, led.ask(), hosts.seen())
        assert {row["via"]: row["state"] for row in hosts.ls().values()} == {
            "tun0": "leads",
            "tun1": "leads",
        }
        assert one.end().code == other.end().code == 0


def test_a_strict_reverse_path_filter(hosts: Routed) -> None:
    """It passes what comes for the interface's addresses, and no setting is touched."""
    sysctl(hosts.host, "net.ipv4.conf.tun0.rp_filter", 1)
    try:
        check_all_by("tun0", hosts.run("many"), hosts.seen())
        assert hosts.host.run("sysctl", "-n", "net.ipv4.conf.tun0.rp_filter") == "1\n"
    finally:
        sysctl(hosts.host, "net.ipv4.conf.tun0.rp_filter", 0)


def knock(hosts: Routed) -> None:
    """From outside, at ports of tun0's addresses that nobody has."""

    def ask() -> None:
        for family, target, source in (
            (socket.AF_INET, four("tun0"), "198.18.100.1"),
            (socket.AF_INET6, own("tun0")[1], "2001:db8:100::1"),
        ):
            with socket.socket(family, socket.SOCK_STREAM) as stream:
                stream.settimeout(1.0)
                stream.bind((source, 0))
                with contextlib.suppress(OSError):
                    stream.connect((target, 9999))
            with socket.socket(family, socket.SOCK_DGRAM) as bound:
                bound.settimeout(1.0)
                bound.bind((source, 0))
                bound.connect((target, 9999))
                bound.send(b"x")
                with contextlib.suppress(OSError):
                    bound.recv(1)

    hosts.outside.call(ask)


def test_the_kernels_own_answers(hosts: Routed) -> None:
    """To what came by the interface: they have no socket, and leave by it all the same."""
    knock(hosts)
    assert hosts.seen().keys() == {"eth0"}, "the test is blind"
    with kept_up(hosts):
        knock(hosts)
        kinds = {words.split()[0] for words in hosts.seen()["tun0"]}
        assert {"tcp", "icmp"} <= kinds
        hosts.settle()
        knock(hosts)
        assert hosts.seen().keys() == {"tun0"}


# The interface comes and goes.


def check_goes_on(hosts: Routed, led: Any, before: dict[str, str]) -> None:
    """All sockets, old and new, do what they did."""
    hosts.settle()
    until(lambda: led.ask(0.5) == before, "that it leads again")
    assert hosts.seen().keys() == {"tun0"}


@pytest.mark.parametrize("how", ["down", "deleted"])
def test_the_interface_is_away(hosts: Routed, how: str) -> None:
    away, back = (hosts.down, hosts.up) if how == "down" else (hosts.remove, hosts.make)
    with hosts.led("held") as led:
        before = led.ask()
        check_all_by("tun0", before, hosts.seen())
        away("tun0")
        try:
            during = led.ask(0.5)
            until(lambda: hosts.ls()[hosts.the_route()]["state"] == "cut", "that `ls` says so")
            until(lambda: "a route is cut" in led.stderr(), "that its keeper says so")
            again = led.ask(0.5)
            assert hosts.seen().keys() <= {"tun0"}  # what was on its way
        finally:
            back("tun0")
        assert {*during.values(), *again.values()} <= CUT
        assert {again[name] for name in ("new tcp", "new udp", "new udp6")} <= UNREACHABLE
        check_goes_on(hosts, led, before)
        assert led.end().code == 0


def test_the_other_end_is_away(hosts: Routed) -> None:
    with hosts.led("held") as led:
        before = led.ask()
        hosts.outside.run("ip", "link", "set", "wtun0", "down")
        try:
            hosts.settle()
            assert {*led.ask(0.5).values()} <= CUT
            assert hosts.seen() == {}
        finally:
            hosts.up("tun0", outside=True)
        check_goes_on(hosts, led, before)
        assert led.end().code == 0


def test_an_interface_with_many_addresses(hosts: Routed) -> None:
    """Programs leave from each of them."""
    added = [f"198.18.2.{n}" for n in range(100, 140)]
    for address in added:
        hosts.host.run("ip", "addr", "add", f"{address}/24", "dev", "tun0")
    try:
        with hosts.led("from", added[-1]) as led:
            assert led.ask()["from"] == added[-1]
            hosts.host.run("ip", "addr", "del", f"{added[0]}/24", "dev", "tun0")
            assert led.ask()["from"] == added[-1]
            assert hosts.seen().keys() == {"tun0"}
            assert led.end().code == 0
    finally:
        for address in added[1:]:
            hosts.host.run("ip", "addr", "del", f"{address}/24", "dev", "tun0")


def test_an_address_is_added(hosts: Routed) -> None:
    """Programs may have it as their source from then on, and not after it is taken away; what comes
    late for it is answered by the interface, until another one has it."""
    added = "198.18.2.77"
    with hosts.led("from", added) as led:
        assert led.ask(0.5)["from"] == "EADDRNOTAVAIL"
        hosts.host.run("ip", "addr", "add", f"{added}/24", "dev", "tun0")
        try:
            until(lambda: led.ask(0.5)["from"] == added, "that it may leave from there")
            assert hosts.seen().keys() == {"tun0"}
        finally:
            hosts.host.run("ip", "addr", "del", f"{added}/24", "dev", "tun0")
        assert led.ask(0.5)["from"] == "EADDRNOTAVAIL"
        hosts.host.run("ip", "addr", "add", f"{added}/24", "dev", "eth0")
        try:
            until(lambda: not any(added in rule for rule in hosts.rules()), "the end of its rule")
        finally:
            hosts.host.run("ip", "addr", "del", f"{added}/24", "dev", "eth0")
        assert led.end().code == 0


TUNNEL = ("198.18.9.1", "2001:db8:9::1")
"""What the host has at an end of a tunnel; the outside has the next."""


@contextlib.contextmanager
def tunnel_of_a_program(hosts: Routed) -> Iterator[subprocess.Popen[str]]:
    """tun9, a device without routers, by datagrams over eth0; the host's end may be killed."""
    ends = []
    script = str(HERE / "tund.py")
    try:
        for namespace, own_end, other in (
            (hosts.outside, ROUTER, four("eth0")),
            (hosts.host, four("eth0"), ROUTER),
        ):
            end = namespace.popen([PYTHON, "-IS", script, "tun9", own_end, other])
            ends.append(end)
            assert end.stdout
            if end.stdout.readline() != "ready\n":
                pytest.skip("there are no TUN devices here")
            for ours in TUNNEL:
                theirs = ours[:-1] + "2"
                mine, peer = (ours, theirs) if namespace is hosts.host else (theirs, ours)
                namespace.address("tun9", mine, 128 if ":" in mine else 32)
                if namespace is hosts.outside:
                    namespace.up("tun9")
                    namespace.run("ip", "route", "add", peer, "dev", "tun9")
            namespace.up("tun9")
        yield ends[1]
    finally:
        for end in ends:
            end.kill()
            end.communicate()


def test_a_tunnel_that_is_a_program(hosts: Routed) -> None:
    """It has no router, and is gone with its program; strict filters let its packets in."""
    sysctl(hosts.host, "net.ipv4.conf.default.rp_filter", 1)
    try:
        with tunnel_of_a_program(hosts) as daemon:
            options = [word for address in RESOLVERS for word in ("--dns", address)]
            route = ("--via", "tun9", *options, *NOBODY)
            told = hosts.run("dns", ROUTER, route=route)
            assert told[f"{ROUTER} unconnected"] == [RESOLVERS[0], ROUTER, None]
            with hosts.led("held", route=route) as led:
                before = led.ask()
                assert {*before.values()} == {*TUNNEL}
                daemon.kill()
                daemon.wait()
                hosts.settle()
                assert {*led.ask(0.5).values()} <= CUT
                unheard = f"icmp {four('eth0')}"  # what the outside's end still says
                assert {kind for kinds in hosts.seen().values() for kind in kinds} <= {unheard}
                assert led.end().code == 0
        with tunnel_of_a_program(hosts):
            assert sources(hosts.run("many", route=route)) == {*TUNNEL}
    finally:
        sysctl(hosts.host, "net.ipv4.conf.default.rp_filter", 0)


def test_a_tunnel_of_the_kernels(hosts: Routed) -> None:
    """It keeps the mark of what is in it: its own packets are not led by itself."""
    ends = ((hosts.host, ROUTER, "198.18.8.1"), (hosts.outside, four("eth0"), "198.18.8.2"))
    vxlan = ("type", "vxlan", "id", "7", "dstport", "4789", "remote")
    try:
        for namespace, remote, address in ends:
            try:
                namespace.run("ip", "link", "add", "vx0", *vxlan, remote)
            except ExperimentError:
                pytest.skip("there is no vxlan here")
            namespace.address("vx0", address, 24)
            namespace.up("vx0")
        hosts.settle()
        route = ("--via", "vx0", "--gateway", "198.18.8.2", *NOBODY)
        assert hosts.run("udp", route=route) == "198.18.8.1"
        seen = hosts.seen()
        assert seen["eth0"].keys() == {f"udp {four('eth0')}"}
        assert seen["vx0"] == {"udp 198.18.8.1": 1}
    finally:
        for namespace, *_ in ends:
            with contextlib.suppress(ExperimentError):
                namespace.run("ip", "link", "del", "vx0")


# Names.

MEANT = (ROUTER, "127.0.0.53", "2001:db8:1::2", f"::ffff:{ROUTER}")


def test_questions_go_to_the_routes_resolver(hosts: Routed) -> None:
    """Whoever is meant; and who is meant seems to answer."""
    options = [word for address in RESOLVERS for word in ("--dns", address)]
    told = hosts.run("dns", *MEANT, route=(*by("tun0"), *options, *NOBODY))
    for meant in MEANT:
        answer = "0.0.0.83" if meant.startswith("2001") else RESOLVERS[0]
        assert told[f"{meant} connected"] == [answer, meant, meant]
        assert told[f"{meant} unconnected"] == [answer, meant, None]
        assert told[f"{meant} tcp"] == [answer, meant]
    outside = hosts.told()
    assert outside["asked"] == {
        server: {own("tun0")[number]: 9 if not number else 3}
        for number, server in enumerate(RESOLVERS)
    }
    assert outside["seen"].keys() == {"tun0"}


RESOLV = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'


def resolv(folder: Path, *servers: str) -> dict[str, Any]:
    """The option by which a command and its children have another resolv.conf."""
    file = folder / "resolv.conf"
    file.write_text("".join(f"nameserver {server}\n" for server in servers))
    file.chmod(0o644)
    return {"prefix": ("unshare", "--mount", "sh", "-c", RESOLV, str(file))}


@pytest.mark.parametrize("server", MEANT[:3])
def test_glibc_asks_the_routes_resolver(hosts: Routed, folder: Path, server: str) -> None:
    options = [word for address in RESOLVERS for word in ("--dns", address)]
    route = (*by("tun0"), *options, *NOBODY)
    answer = "0.0.0.83" if ":" in server else RESOLVERS[0]
    assert hosts.run("getent", route=route, **resolv(folder, server)) == [answer]
    outside = hosts.told()
    assert outside["asked"].keys() <= {*RESOLVERS}
    assert outside["seen"].keys() == {"tun0"}


@pytest.fixture(scope="module")
def of_musls() -> Iterator[Path]:
    """A program that asks for a name by musl, another C library than glibc."""
    if not shutil.which("musl-gcc"):
        pytest.skip("musl-gcc is not installed (musl-tools)")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # nobody runs it
        made = Path(folder) / "names"
        source = str(HERE / "names.c")
        subprocess.run(["musl-gcc", "-static", "-o", str(made), source], check=True)
        yield made


@pytest.mark.parametrize("servers", [*((one,) for one in MEANT[:3]), (ROUTER, "2001:db8:1::2")])
def test_musl_asks_the_routes_resolver(
    hosts: Routed, folder: Path, of_musls: Path, servers: tuple[str, ...]
) -> None:
    """By a datagram without a connection, to all servers at once: if some are IPv6's, to those of
    IPv4 at mapped addresses. It takes answers from these servers only."""
    options = [word for address in RESOLVERS for word in ("--dns", address)]
    route = ("run", *by("tun0"), *options, *NOBODY, "--")
    words = (*route, str(of_musls), "name.example")
    answer = hosts.done(*words, **resolv(folder, *servers)).strip()
    assert answer in {RESOLVERS[0], "0.0.0.83"}
    outside = hosts.told()
    assert outside["asked"] and outside["asked"].keys() <= {*RESOLVERS}
    assert outside["seen"].keys() == {"tun0"}


@pytest.mark.parametrize("server", MEANT[:3])
def test_go_asks_the_routes_resolver(hosts: Routed, folder: Path, server: str) -> None:
    """Go's own resolver, which needs no C library: here, of Prometheus' tool."""
    options = [word for address in RESOLVERS for word in ("--dns", address)]
    ask = ("timeout", "3", tool("promtool"), "query", "instant", "http://name.example:9", "up")
    words = ("run", *by("tun0"), *options, *NOBODY, "--", *ask)
    ended = hosts.route(*words, GODEBUG="netdns=go", **resolv(folder, server))
    if ":" in server:  # its answer is no address that anybody has
        assert ended.code == 124, ended
    else:
        assert f"dial tcp {RESOLVERS[0]}:9: connect: connection refused" in ended.stderr
    outside = hosts.told()
    assert outside["asked"] and outside["asked"].keys() <= {*RESOLVERS}
    assert outside["seen"].keys() == {"tun0"}


def test_a_resolver_of_one_family(hosts: Routed) -> None:
    """A datagram cannot go from one family to the other: it is refused, and counted."""
    with kept_up(hosts, f'dns = ["{RESOLVERS[0]}"]') as name:
        told = hosts.run("dns", *MEANT, route=(name, *NOBODY))
        for meant in MEANT:
            assert told[f"{meant} connected"] == [RESOLVERS[0], meant, meant]
            assert told[f"{meant} tcp"] == [RESOLVERS[0], meant]
        assert told.pop("2001:db8:1::2 unconnected") == "ENETUNREACH"
        assert refused(hosts, name) == {"dns": 1}
    with kept_up(hosts, f'dns = ["{RESOLVERS[1]}"]') as name:
        told = hosts.run("dns", ROUTER, "2001:db8:1::2", route=(name, *NOBODY))
        assert {told[f"{ROUTER} {how}"] for how in ("connected", "unconnected", "tcp")} == {
            "ENETUNREACH"
        }
        assert told["2001:db8:1::2 unconnected"][0] == "0.0.0.83"
        assert refused(hosts, name) == {"dns": 3}
    outside = hosts.told()
    assert outside["asked"].keys() == {*RESOLVERS}
    assert outside["seen"].keys() == {"tun0"}


def test_names_without_a_resolver(hosts: Routed, folder: Path) -> None:
    """Questions go where they are meant to, by the route; one who asks for all is warned of."""
    told = hosts.run("dns", ROUTER)
    assert sources({name: value[:2] for name, value in told.items()}) == {str([ROUTER, ROUTER])}
    outside = hosts.told()
    assert outside["asked"] == {ROUTER: {four("tun0"): 3}}
    assert outside["seen"].keys() == {"tun0"}
    words = ("run", *by("tun0"), *NOBODY, "--", *ACTOR, "dns", "127.0.0.53")
    ended = hosts.route(*words, **resolv(folder, "127.0.0.53"))
    assert "names are asked outside a route" in ended.stderr
    assert "127.0.0.53" in ended.stderr
    assert hosts.seen() == {}


def test_ipv6_that_is_refused(hosts: Routed) -> None:
    """At once, so that programs go on with IPv4."""
    with kept_up(hosts, 'ipv6 = "refuse"') as name:
        told = hosts.run("many", route=(name, *NOBODY))
        assert {value for name, value in told.items() if "6" in name} == {"ENETUNREACH"}
        assert {value for name, value in told.items() if "6" not in name} == {four("tun0")}
        assert refused(hosts, name) == {"ipv6": 3}
    assert hosts.seen().keys() == {"tun0"}


def test_ipv6_where_the_interface_has_none(hosts: Routed) -> None:
    address = f"{own('tun1')[1]}/64"
    hosts.host.run("ip", "addr", "del", address, "dev", "tun1")
    try:
        told = hosts.run("many", route=(*by("tun1"), *NOBODY))
        assert {value for name, value in told.items() if "6" in name} == {"ENETUNREACH"}
        assert {value for name, value in told.items() if "6" not in name} == {four("tun1")}
        ended = hosts.route("run", *by("tun1"), "--ipv6", "lead", "--", "true")
        assert ended.code == 1
        assert "no IPv6 address" in ended.stderr
    finally:
        hosts.host.run("ip", "addr", "add", address, "dev", "tun1", "nodad")
    assert hosts.seen().keys() == {"tun1"}


HIDDEN = "/run/nscd/socket"
UNHIDDEN = f"""mount -t tmpfs none /run && mkdir /run/nscd &&
{PYTHON} -c 'import socket; socket.socket(socket.AF_UNIX).bind("{HIDDEN}")' && exec "$@" """


@pytest.mark.parametrize("how", ["leave", "hide"])
def test_resolvers_behind_sockets(hosts: Routed, how: str) -> None:
    """Where they are hidden, only the route's resolvers are named; root does not undo that."""
    look = f"test -S {HIDDEN} && echo seen; umount {HIDDEN}; test -S {HIDDEN} && echo seen; "
    inside = ("unshare", "--mount", "sh", "-c", UNHIDDEN, "sh")
    words = ("--resolver-sockets", how, "--dns", RESOLVERS[0], "--user", "0")
    command = ("sh", "-c", f"{look} cat /etc/resolv.conf")
    told = hosts.done("run", *by("tun0"), *words, "--", *command, prefix=inside)
    if how == "hide":
        assert told == f"nameserver {RESOLVERS[0]}\n"
    else:
        assert told.startswith("seen\nseen\n")
        assert RESOLVERS[0] not in told


def test_networks_of_the_hosts_own(hosts: Routed) -> None:
    """Where they are not led, what is for them goes there, and all else by the interface."""
    with kept_up(hosts, 'lan = "direct"') as name:
        told = hosts.run("dns", ROUTER, "2001:db8:1::2", route=(name, *NOBODY))
        assert told[f"{ROUTER} unconnected"] == [ROUTER, ROUTER, None]
        outside = hosts.told()
        assert {server: {*by_whom} for server, by_whom in outside["asked"].items()} == {
            ROUTER: {own("eth0")[0]},
            "2001:db8:1::2": {own("eth0")[1]},
        }
        assert outside["seen"].keys() == {"eth0"}
        hosts.settle()
        check_all_by("tun0", hosts.run("many", route=(name, *NOBODY)), hosts.seen())
        assert hosts.run("device", route=(name, *NOBODY)) == "EPERM"
        assert hosts.seen() == {}
        assert refused(hosts, name) == {"stray": 1}


# Ways out.


def test_no_way_out(hosts: Routed) -> None:
    """As root with all rights: another mark or interface, another source."""
    with kept_up(hosts) as name:
        rooted = (name, "--user", "0", "--keep-rights")
        told = hosts.run("escapes", four("eth0"), router("eth0")[0], route=rooted)
        assert len(told) == 8
        assert sources(told) == {"EPERM"}
        assert hosts.seen() == {}
        counts = refused(hosts, name)
        assert counts.pop("source") >= 1
        assert counts == {"stray": 7}
    assert hosts.direct("device") == four("eth0"), "the test is blind"


def test_nobody_may_bind_to_an_interface(hosts: Routed) -> None:
    assert hosts.run("device") == "EPERM"
    assert hosts.seen() == {}


def test_each_refusal_is_counted(hosts: Routed) -> None:
    """As many as senders saw, with the program's name."""
    with kept_up(hosts) as name:
        assert hosts.run("refused", "500", route=(name, *NOBODY)) == {"EPERM": 500}
        assert refused(hosts, name) == {"stray": 500}
        (row,) = [row for row in hosts.json("top", "--once") if row["route"] == name]
        assert row["why"] == {"stray": 500}
        assert row["program"].startswith("python3")
        assert row["uid"] == 65534
        assert row["out_bytes"] == 0
        assert not row["alive"]
    assert hosts.seen() == {}


def test_frames_without_a_socket_of_the_internet(hosts: Routed) -> None:
    """Only rights keep a program from them."""
    assert hosts.run("packet") == "EPERM"
    assert hosts.run("packet", route=(*by("tun0"), "--user", "0")) == "EPERM"


@pytest.mark.parametrize("how", ["netns", "user netns"])
def test_another_network_namespace(hosts: Routed, how: str) -> None:
    user = ("--user", "0", "--keep-rights") if how == "netns" else NOBODY
    with kept_up(hosts) as name:
        told = hosts.run(how, route=(name, *user))
        if told == "unshare: EPERM":
            pytest.skip("nobody may make namespaces here")
        assert told == "EPERM"
        assert refused(hosts, name) == {"netns": 1}
    allowed = (*by("tun0"), *user, "--other-netns", "allow")
    assert hosts.run(how, route=allowed) == "made"


def test_a_server(hosts: Routed) -> None:
    """It answers those that reach it by the interface and on this host, and nobody by another."""

    def ask(at: str) -> str:
        try:
            with socket.create_connection((at, 7100), 1.0) as stream:
                return stream.recv(100).decode()
        except TimeoutError:
            return "timeout"

    with kept_up(hosts) as name:
        for where, at, answer in (
            (hosts.outside, four("eth0"), "timeout"),
            (hosts.outside, four("tun0"), "greetings"),
            (hosts.host, "127.0.0.1", "greetings"),
        ):
            with hosts.led("server", "7100", route=(name, *NOBODY)) as led:
                hosts.settle()
                assert where.call(lambda at=at: ask(at)) == answer  # type: ignore[misc]
                if answer == "timeout":
                    assert hosts.seen() == {}
                    os.kill(led.inside, signal.SIGKILL)
                assert led.end().code == (137 if answer == "timeout" else 0)
        assert refused(hosts, name).keys() == {"source"}


# Sockets that come and go.


def test_a_socket_that_is_given_away(hosts: Routed, folder: Path) -> None:
    """It stays its maker's, also after the maker's end."""
    with listening(folder / "socket") as heard, kept_up(hosts) as name:
        words = (name, *NOBODY)
        with hosts.running("run", *words, "--", *ACTOR, "giver", str(folder / "socket")) as led:
            stream, _ = heard.accept()
            with stream:
                _, ancillary, *_ = stream.recvmsg(1, socket.CMSG_SPACE(4))
                (number,) = struct.unpack("=i", ancillary[0][2][:4])
                stream.send(b"x")
            assert led.end().code == 0
        with socket.socket(fileno=number) as given:
            given.settimeout(10.0)
            given.sendto(b"x", ("198.18.100.1", 7000))
            assert given.recv(100).decode() == four("tun0")
            assert hosts.seen().keys() == {"tun0"}
            rows = hosts.json("sockets", name, "--not-led")
            assert [(row["how"], [*row["held"]]) for row in rows] == [
                ("taken along", [str(os.getpid())])
            ]
            hosts.done("stop", name)
            with pytest.raises(PermissionError):
                given.sendto(b"x", ("198.18.100.1", 7000))
            assert hosts.seen() == {}


def test_a_socket_that_was_made_outside(hosts: Routed, folder: Path) -> None:
    """Nothing can know it: it leaves as any other, and is named."""
    made = hosts.host.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    words = ("run", *by("tun0"), *NOBODY, "--", *ACTOR, "taker", str(folder / "socket"))
    with made, listening(folder / "socket") as heard, hosts.running(*words) as led:
        stream, _ = heard.accept()
        with stream:
            number = struct.pack("=i", made.fileno())
            stream.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, number)])
            assert led.told() == {"taken": four("eth0")}
            (row,) = hosts.json("sockets", hosts.the_route(), "--not-led")
            assert row["how"] == "direct"
            assert len(row["held"]) == 1
            until(lambda: "this is not led" in led.stderr(), "a message on it")
            stream.send(b"x")
        assert led.end().code == 0


@contextlib.contextmanager
def not_led(hosts: Routed) -> Iterator[Any]:
    """The actor that holds sockets, in no route."""
    process = hosts.host.popen([*ACTOR, "held"])
    assert process.stdin and process.stdout
    with process:
        try:
            pid = json.loads(process.stdout.readline())["ready"]

            def ask(patience: float) -> Any:
                assert process.stdin and process.stdout
                process.stdin.write(f"{patience}\n")
                process.stdin.flush()
                return json.loads(process.stdout.readline())

            yield pid, ask
            process.stdin.close()
            process.wait(10)
        finally:
            process.kill()


def test_a_process_that_is_adopted(hosts: Routed) -> None:
    """New sockets are led, and those without a peer; the others leave as before, and are named."""
    with kept_up(hosts) as name, not_led(hosts) as (pid, ask):
        assert sources({one: value for one, value in ask(5.0).items() if "6" not in one}) == {
            four("eth0")
        }
        done = hosts.json("adopt", name, str(pid))
        assert sorted(one["how"] for one in done) == [
            "led by its mark",
            "still direct",
            "still direct",
        ]
        hosts.settle()
        told = ask(5.0)
        assert {told[one] for one in ("udp", "new tcp", "new udp")} == {four("tun0")}
        assert {told[one] for one in ("tcp", "connected")} == {four("eth0")}
        assert hosts.seen().keys() == {"eth0", "tun0"}
        rows = hosts.json("sockets", name, "--not-led")
        assert sorted(row["how"] for row in rows) == ["direct", "direct", "mark only"]
        assert {int(one) for row in rows for one in row["held"]} == {pid}
        why = hosts.done("why", str(pid))
        assert why.count("direct") == 2
        for row in rows:
            end = row["socket"].split()[1]
            (told,) = hosts.json("why", end)
            assert (told["subject"], told["led"]) == (row["socket"], row["how"] == "mark only")
            assert f"(pid {pid})" in told["checks"][0]
            assert any("made in no route" in check for check in told["checks"])


def test_a_process_that_is_adopted_without_its_connections(hosts: Routed) -> None:
    with kept_up(hosts) as name, not_led(hosts) as (pid, ask):
        ask(5.0)
        done = hosts.json("adopt", name, str(pid), "--destroy")
        hows = sorted(one["how"] for one in done)
        if "still direct" in hows:
            pytest.skip("this kernel ends nobody's sockets (CONFIG_INET_DIAG_DESTROY)")
        assert hows == ["destroyed", "destroyed", "led by its mark"]
        hosts.settle()
        told = ask(5.0)
        assert {told[one] for one in ("udp", "new tcp", "new udp")} == {four("tun0")}
        assert told["tcp"] in ("ECONNABORTED", "EPIPE", "closed")
        assert told["connected"] in ("ECONNABORTED", "EDESTADDRREQ")
        assert hosts.seen().keys() == {"tun0"}


def test_a_process_that_is_moved_out(hosts: Routed) -> None:
    """Its sockets stay led, what it opens is not, and that is said."""
    with kept_up(hosts) as name, hosts.led("held", route=(name, *NOBODY)) as led:
        led.ask()
        root = open_root()
        try:
            number = os.open("cgroup.procs", os.O_WRONLY, dir_fd=root)
            os.write(number, str(led.inside).encode())
            os.close(number)
        finally:
            os.close(root)
        hosts.settle()
        told = led.ask()
        assert {told[one] for one in ("tcp", "udp", "connected")} == {four("tun0")}
        assert {told[one] for one in ("new tcp", "new udp")} == {four("eth0")}
        rows = hosts.json("sockets", name, "--not-led")
        assert [row["how"] for row in rows] == ["taken along"] * 3
        assert "in no route" in hosts.done("why", str(led.inside))
        assert led.end().code == 0


def test_nobody_moves_itself_out(hosts: Routed) -> None:
    point = next((point for point, _ in mounted()), None)
    if point is None:
        pytest.skip("control groups are mounted nowhere")
    words = ("mount", "-t", "cgroup2", "none", "/mnt")
    inside = ("unshare", "--mount", "sh", "-c", f'{" ".join(words)} && exec "$@"', "sh")
    command = ("sh", "-c", "echo 0 >/mnt/cgroup.procs")
    run = ("run", *by("tun0"), "--user")
    assert hosts.route(*run, "0", "--keep-rights", "--", *command, prefix=inside).code == 0
    ended = hosts.route(*run, "65534", "--", *command, prefix=inside)
    assert ended.code != 0
    assert "ermission denied" in ended.stderr


# Routes that change, and end.


def test_a_route_is_changed(hosts: Routed) -> None:
    """At once; what has the old source is refused."""
    with kept_up(hosts) as name, hosts.led("held", route=(name, *NOBODY)) as led:
        check_all_by("tun0", led.ask(), hosts.seen())
        hosts.settle()
        hosts.done("use", name, *by("tun1"))
        told = led.ask(0.5)
        assert {told[one] for one in ("udp", "new tcp", "new udp")} == {four("tun1")}
        assert told["new udp6"] == own("tun1")[1]
        assert told["connected"] == "EPERM"
        assert told["tcp"] == "timeout"
        seen = hosts.seen()
        assert {"tun1"} <= seen.keys() <= {"tun0", "tun1"}
        late = {f"tcp {address}" for address in own("tun0")}  # ends of connections that are closed
        assert seen.get("tun0", {}).keys() <= late
        assert refused(hosts, name).keys() == {"source"}
        hosts.done("use", name, *by("tun0"))
        until(lambda: {*led.ask(0.5).values()} == {*own("tun0")}, "that it is as before")
        assert hosts.seen().keys() == {"tun0"}
        ended = hosts.route("use", name, "--via", "nope0")
        assert ended.code == 1
        assert "there is no interface nope0" in ended.stderr
        assert led.ask(0.5)["new udp"] == four("tun0")


def test_routes_are_joined(hosts: Routed) -> None:
    with kept_up(hosts) as name:
        with hosts.led("held", route=(name, *NOBODY)) as one:
            check_all_by("tun0", hosts.run("many", route=(name, *NOBODY)), hosts.seen())
            assert hosts.ls()[name]["processes"] == 1
            ended = hosts.route("stop", name)
            assert ended.code == 1
            assert f"programs run in route {name}" in ended.stderr
            assert "new udp" in one.ask()
            assert one.end().code == 0
        assert hosts.ls()[name]["processes"] == 0


def test_a_route_that_somebody_keeps(hosts: Routed) -> None:
    with kept_up(hosts) as name:
        config = hosts.file({name: 'via = "tun0"'})
        ended = hosts.route("start", name, *config)
        assert ended.code == 1
        assert "is kept by another carom" in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_route_is_stopped_by_a_signal(hosts: Routed, number: signal.Signals) -> None:
    name = hosts.name()
    with hosts.started(name, hosts.file({name: 'via = "tun0"'})) as running:
        running.process.send_signal(number)
        assert running.end().code == 0


def test_many_at_once(hosts: Routed) -> None:
    """Each has its own mark, and takes away its own alone."""
    with contextlib.ExitStack() as stack:
        routes = [(*by(way), *NOBODY) for way in ("tun0", "tun1") * 2]
        words = [("run", *route, "--", *ACTOR, "held") for route in routes]
        running = [stack.enter_context(hosts.running(*one)) for one in words]
        for one in running:
            one.inside = one.told()["ready"]
        assert len({row["mark"] for row in hosts.ls().values()}) == 4
        for count, one in enumerate(running):
            for other, route in zip(running[count:], routes[count:], strict=True):
                hosts.settle()
                check_all_by(route[1], other.ask(), hosts.seen())
            assert one.end().code == 0


def test_its_keeper_is_killed(hosts: Routed) -> None:
    """The program is led as before; `ls` says it, and who comes next takes away what is left."""
    with hosts.led("held") as led:
        before = led.ask()
        led.kill()
        hosts.settle()
        assert led.ask() == before
        check_all_by("tun0", before, hosts.seen())
        name = hosts.the_route()
        assert hosts.ls()[name]["state"] == "left"
        assert hosts.done("stop").startswith("there was nothing")
        assert "nobody keeps it" in hosts.done("why", str(led.inside))
        led.let_go()
        until(lambda: not Path(f"/proc/{led.inside}").exists(), "the program's end")
        assert hosts.left()
        assert hosts.run("udp") == four("tun0")
        assert hosts.left() == []


def test_what_a_killed_keeper_left_is_stopped(hosts: Routed) -> None:
    with hosts.led("held") as led:
        led.kill()
        name = hosts.the_route()
        ended = hosts.route("stop", name)
        assert ended.code == 1
        assert str(led.inside) in ended.stderr
        hosts.done("stop", name, "--kill")
        until(lambda: not Path(f"/proc/{led.inside}").exists(), "the program's end")
        assert hosts.left() == []
        assert hosts.route("stop", name).code != 0


def test_a_route_of_a_killed_keeper_is_started_anew(hosts: Routed) -> None:
    name = hosts.name()
    config = hosts.file({name: 'via = "tun0"'})
    with hosts.started(name, config) as running:
        running.kill()
    with hosts.started(name, config) as running:
        assert hosts.ls()[name]["state"] == "leads"
        running.process.send_signal(signal.SIGTERM)
        assert running.end().code == 0


def dies(at: str) -> list[str]:
    """carom, which is killed where it would do this."""
    lines = (
        "import os",
        "from carom.routes import leading, records, tables",
        f"{at} = lambda *words, **more: os.kill(os.getpid(), 9)",
        "from carom.cli import main",
        "main()",
    )
    return [sys.executable, "-P", "-c", "\n".join(lines)]


@pytest.mark.parametrize(
    "at",
    [
        "leading.bring_up",  # there is a group
        "records.write",  # its programs, too
        "tables.Tables.add",  # and a record
        "tables.Tables.remove",  # and rules and tables
        "leading.Leading",  # all of it
    ],
)
def test_a_start_that_is_killed(hosts: Routed, at: str) -> None:
    words = ("run", *by("tun0"), *NOBODY, "--", "true")
    assert hosts.route(*words, program=dies(at)).code == -signal.SIGKILL
    name = hosts.the_route()
    assert hosts.ls()[name]["state"] == "left"
    assert hosts.done(*words) == ""
    assert hosts.left() == []


@pytest.mark.parametrize("at", ["leading.take_down", "records.remove", "tables.Tables.remove"])
def test_a_stop_that_is_killed(hosts: Routed, at: str) -> None:
    name = hosts.name()
    with hosts.started(name, hosts.file({name: 'via = "tun0"'})) as running:
        running.kill()
    assert hosts.route("stop", name, program=dies(at)).code == -signal.SIGKILL
    assert hosts.left()
    hosts.done("stop")
    assert hosts.left() == []


def test_a_group_without_programs(hosts: Routed) -> None:
    """Of one that was killed before it had attached any: nothing in it is led, and that is said."""
    name = hosts.name()
    with subprocess.Popen(["sleep", "1000"]) as program:
        with group.make(name) as made:
            made.enter(program.pid)
        assert hosts.ls()[name]["state"] == "left"
        ended = hosts.route("sockets", name)
        assert ended.code == 1
        assert "has no programs" in ended.stderr
        ended = hosts.route("stop", name)
        assert ended.code == 1
        assert str(program.pid) in ended.stderr
        hosts.done("stop", name, "--kill")
        assert program.wait(DEADLINE) == -signal.SIGKILL


def test_a_daemon_is_left_to_itself(hosts: Routed) -> None:
    """With --detach the route stays for it."""
    words = ("sh", "-c", "sleep 1000 >/dev/null 2>&1 </dev/null &")
    hosts.done("run", *by("tun0"), *NOBODY, "--detach", "--", *words)
    name = hosts.the_route()
    row = hosts.ls()[name]
    assert (row["state"], row["processes"]) == ("left", 1)
    hosts.done("stop", name, "--kill")


def test_routes_of_other_network_namespaces(hosts: Routed) -> None:
    """Nobody there changes what is led here."""
    with kept_up(hosts) as name, hosts.led("held", route=(name, *NOBODY)) as led:
        before = led.ask()
        rules = hosts.rules()
        assert name not in hosts.done("stop", at=hosts.outside)
        hosts.done("run", "--via", "wtun1", *NOBODY, "--", "true", at=hosts.outside)
        assert hosts.rules() == rules
        assert "proto 202" not in hosts.outside.run("ip", "-details", "rule")
        ended = hosts.route("use", name, "--via", "wtun1", at=hosts.outside)
        assert ended.code != 0
        hosts.settle()
        check_all_by("tun0", led.ask(), hosts.seen())
        assert led.ask() == before
        assert led.end().code == 0


def test_every_socket_is_counted_as_closed(hosts: Routed) -> None:
    """Also those that a server accepts, which nobody has opened."""
    count = 100_000
    with kept_up(hosts) as name:
        assert hosts.run("opens", str(count), route=(name, *NOBODY)) == {"accepted": 100}
        (row,) = [row for row in hosts.json("top", "--once") if row["route"] == name]
        assert row["sockets"] == 0
        assert row["why"] == {}
        assert hosts.json("sockets", name) == []


def test_what_a_process_does(hosts: Routed) -> None:
    with hosts.led("held") as led:
        led.ask()
        (row,) = [row for row in hosts.json("top", "--once") if row["pid"] == led.inside]
        assert (row["by"], row["sockets"], row["uid"], row["alive"]) == ("tun0", 3, 65534, True)
        assert row["out_bytes"] > 0 < row["in_bytes"]
        assert row["why"] == {}
        assert "tun0" in hosts.done("top", "--once")
        assert hosts.the_route() in hosts.done("ls")
        rows = hosts.json("sockets", hosts.the_route())
        assert [row["how"] for row in rows] == ["led"] * 3
        assert {pid for row in rows for pid in row["held"]} == {str(led.inside)}
        why = hosts.done("why", str(led.inside))
        assert "leave by tun0 or not at all" in why
        assert "refused so far: nothing" in why
        (told,) = hosts.json("why", str(led.inside))
        assert (told["route"], told["led"]) == (hosts.the_route(), True)
        for row in rows:
            explained = hosts.json("why", row["socket"].split()[1])
            (told,) = [one for one in explained if one["subject"] == row["socket"]]
            assert (told["route"], told["led"]) == (hosts.the_route(), True)
            assert any("its switch looks at each packet" in one for one in told["checks"])
            assert any("leave by tun0 or not at all" in one for one in told["checks"])
        assert led.end().code == 0


def test_no_program_is_left(hosts: Routed) -> None:
    """Of those in the kernel: they go with the group and the last socket."""
    with kept_up(hosts) as name:
        check_all_by("tun0", hosts.run("many", route=(name, *NOBODY)), hosts.seen())
        with Group(name) as opened:
            numbers = {
                number
                for where in libbpf.CGROUP.values()
                for number in libbpf.programs_at(opened.descriptor, where)
            }
        assert len(numbers) == 12

    def gone(number: int) -> bool:
        try:
            os.close(libbpf.program_by_id(number))
        except OSError as error:
            return error.errno == errno.ENOENT
        return False

    until(lambda: all(map(gone, numbers)), "the end of its programs")


# The command.


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("true",), 0),
        (("sh", "-c", "exit 3"), 3),
        (("/",), 126),
        (("there-is-no-such-program",), 127),
        (("sh", "-c", "kill -KILL $$"), 137),
        (("sh", "-c", "kill -TERM $$"), 143),
    ],
)
def test_exit_statuses(hosts: Routed, command: tuple[str, ...], code: int) -> None:
    assert hosts.route("run", *by("tun0"), *NOBODY, "--", *command).code == code


LATE = """
import sys, threading
from carom.routes.child import Child, Program
from carom.routes.group import Group
with Group(sys.argv[1]) as group:
    child, told = Child(group, Program(["true"])), threading.Event()
    while child.ended() is None:
        pass
    child.tell(told.set)
    print(told.wait(60))
"""


def test_an_end_is_told_that_was_seen_before(hosts: Routed) -> None:
    with kept_up(hosts) as name:
        argv = [sys.executable, "-P", "-c", LATE, name]
        done = subprocess.run(argv, capture_output=True, text=True, cwd=HERE)
        assert (done.stdout, done.stderr) == ("True\n", "")


def test_exit_statuses_of_who_joins(hosts: Routed) -> None:
    with kept_up(hosts) as name:
        for command, code in ((("sh", "-c", "exit 3"), 3), (("no-such",), 127), (("/",), 126)):
            assert hosts.route("run", name, *NOBODY, "--", *command).code == code


def test_a_signal_goes_to_the_program(hosts: Routed) -> None:
    with hosts.led("held") as led:
        led.process.send_signal(signal.SIGTERM)
        assert led.end().code == 128 + signal.SIGTERM


def test_who_the_program_is(hosts: Routed) -> None:
    """Who called sudo, without rights to get out by; and it has no descriptor of carom's."""
    words = (
        "run",
        *by("tun0"),
        "--",
        "sh",
        "-c",
        "id -u; grep CapBnd /proc/self/status; ls /proc/self/fd",
    )
    told = hosts.done(*words, SUDO_UID="65534", SUDO_GID="65534").split()
    assert told[0] == "65534"
    rights = int(told[2], 16)
    assert not rights & (1 << 12 | 1 << 13 | 1 << 21)  # NET_ADMIN, NET_RAW, SYS_ADMIN
    assert told[3:] == ["0", "1", "2", "3"]  # the last is of ls itself


WRONG = {
    "no command": (("run", "--via", "tun0"), 2, "Missing argument"),
    "only a name": (("run", "home"), 2, "there is nothing to run"),
    "no such interface": (
        ("run", "--via", "nope0", "--", "true"),
        1,
        "there is no interface nope0",
    ),
    "lo": (("run", "--via", "lo", "--", "true"), 2, "lo leads nowhere"),
    "gateway": (("run", "--via", "tun0", "--gateway", "x", "--", "true"), 2, "gateway: 'x'"),
    "dns": (("run", "--via", "tun0", "--dns", "x", "--", "true"), 2, "dns: 'x'"),
    "ipv6": (("run", "--via", "tun0", "--ipv6", "x", "--", "true"), 2, "ipv6"),
    "user": (("run", "--via", "tun0", "--user", "no-one", "--", "true"), 2, "no-one"),
    "no such route": (("run", "nope", "--", "true"), 2, "no route nope"),
    "start": (("start", "nope"), 2, "no route nope"),
    "bad name": (("start", "../x"), 2, "../x"),
    "bad name to run": (("run", "../x", "--", "true"), 2, "../x"),
    "bad name to stop": (("stop", "../x"), 2, "../x"),
    "stop": (("stop", "nope"), 2, "no route nope"),
    "stop by force": (("stop", "nope", "--kill"), 2, "no route nope"),
    "use": (("use", "nope", "--via", "tun1"), 2, "no route nope"),
    "adopt": (("adopt", "nope", "1"), 2, "no route nope"),
    "sockets": (("sockets", "nope"), 2, "no route nope"),
    "why": (("why", "4194305"), 2, "no process 4194305"),
    "why long": (("why", "9" * 5000), 2, "as its own end"),
    "why an end": (("why", "198.18.2.1:1"), 2, "198.18.2.1:1 as its own end"),
    "why a word": (("why", "²"), 2, "as its own end"),
    "file": (("start", "nope", "--config", "/nonexistent"), 2, "cannot be read"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be(hosts: Routed, case: str) -> None:
    words, code, said = WRONG[case]
    ended = hosts.route(*words)
    assert ended.code == code, ended
    assert said in ended.stderr
    assert ended.stdout == ""


def test_a_process_that_is_not_there(hosts: Routed) -> None:
    with kept_up(hosts) as name:
        ended = hosts.route("adopt", name, "4194305")
        assert ended.code == 2
        assert "there is no process 4194305" in ended.stderr


def test_an_interface_that_is_down(hosts: Routed) -> None:
    hosts.down("tun1")
    try:
        ended = hosts.route("run", *by("tun1"), "--", "true")
        assert ended.code == 1
        assert "tun1 is down" in ended.stderr
        assert "ip link set tun1 up" in ended.stderr
    finally:
        hosts.up("tun1")


def test_marks_that_are_somebody_elses(hosts: Routed) -> None:
    """A rule of another's that looks at the same bits."""
    words = ("fwmark", "0x1000000/0xff000000", "lookup", "main", "priority", "77")
    hosts.host.run("ip", "rule", "add", *words)
    try:
        ended = hosts.route("run", *by("tun0"), "--", "true")
        assert ended.code == 2
        assert "rule 77 looks at marks 0xff000000" in ended.stderr
        name = hosts.name()
        config = hosts.file({name: 'via = "tun0"'}, "mask = 0x3f0000")
        with hosts.started(name, config) as running:
            assert hosts.run("udp", route=(name, *NOBODY)) == four("tun0")
            running.process.send_signal(signal.SIGTERM)
            assert running.end().code == 0
    finally:
        hosts.host.run("ip", "rule", "del", *words)


def test_a_table_of_the_users(hosts: Routed) -> None:
    """It is looked up, and nothing is changed in it."""
    for address in router("tun1"):
        hosts.host.run("ip", "route", "add", "default", "via", address, "table", "4711")
    try:
        name = hosts.name()
        with hosts.started(name, hosts.file({name: 'via = "tun1"\ntable = 4711'})) as running:
            check_all_by("tun1", hosts.run("many", route=(name, *NOBODY)), hosts.seen())
            assert hosts.table() == []
            running.process.send_signal(signal.SIGTERM)
            assert running.end().code == 0
        assert "default via" in hosts.host.run("ip", "route", "show", "table", "4711")
    finally:
        for six in ("-4", "-6"):
            hosts.host.run("ip", six, "route", "flush", "table", "4711")


NOBODY_RUNS = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--via", "tun0", "--", "true"),
        ("start", "x"),
        ("stop",),
        ("use", "x", "--via", "tun0"),
        ("ls",),
        ("sockets",),
        ("top", "--once"),
        ("top", "--on", "tun0", "--once"),
        ("why", "1"),
        ("adopt", "x", "1"),
    ],
    ids=" ".join,
)
def test_without_root(hosts: Routed, words: tuple[str, ...]) -> None:
    ended = hosts.route(*words, prefix=NOBODY_RUNS)
    assert ended.code == 1
    assert "routes are root's alone" in ended.stderr
