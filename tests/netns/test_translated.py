# SPDX-License-Identifier: Apache-2.0
"""Ports that the host translates: to a container's server, to another port, or past the server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from carom.vm.namespace import Namespace, join
from netns import line as lines
from netns.fronted import check_writes_are_seen, hits_of, until_hit
from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient
from netns.process import HERE, INTERFACE, Carom, run, until

PORT, INSIDE = 11251, 11351
"""What clients ask, and what servers have that it is translated to: no other test's, whose servers
in other namespaces would be found."""

IPV4 = ("-p", str(PORT), "--bind", "0.0.0.0")

HOST, FIRST, SECOND = "198.18.3.1", "198.18.3.2", "198.18.3.3"


class House:
    """A host with two containers on a bridge, each with a memcached at the same port."""

    def __init__(self, line: Line, stack: ExitStack):
        self.line = line
        host = line.server
        host.run("ip", "link", "add", "house", "type", "bridge")
        host.up("house")
        host.address("house", HOST, 24)
        host.call(partial(Path("/proc/sys/net/ipv4/ip_forward").write_text, "1"))
        self.containers = [stack.enter_context(Namespace(f"container{at}")) for at in range(2)]
        for at, (one, address) in enumerate(zip(self.containers, (FIRST, SECOND), strict=True)):
            join(host, f"to{at}", one, "eth0")
            host.run("ip", "link", "set", f"to{at}", "master", "house")
            one.address("eth0", address, 24)
            one.up("lo")
            one.run("ip", "route", "add", "default", "via", HOST)
            stack.enter_context(Memcached(one, INSIDE))

    def writer(self, address: str, port: int = INSIDE) -> TCPClient:
        """A connection from the host to one of the servers."""
        return TCPClient(self.line.server, address, port)

    def reader(self, version: int = 4) -> UDPClient:
        """A new client: connections that are known go on as they began."""
        return UDPClient(self.line.client, self.line.over(version).address, PORT)


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with lines.straight() as line, ExitStack() as stack:
        yield House(line, stack)


@contextmanager
def nft(host: Namespace, rule: str) -> Iterator[None]:
    """A rule of nftables."""
    chain = f"chain c {{ type nat hook prerouting priority dstnat; {rule}; }}"
    host.run("nft", f"table ip translated {{\n{chain}\n}}")
    try:
        yield
    finally:
        host.run("nft", "delete", "table", "ip", "translated")


@contextmanager
def iptables(host: Namespace, tool: str = "iptables") -> Iterator[None]:
    """Rules as Docker makes them, in a chain of its own."""
    jump = "PREROUTING -m addrtype --dst-type LOCAL -j DOCKED"
    to = f"DOCKED ! -i house -p udp -m udp --dport {PORT} -j DNAT --to-destination {FIRST}:{INSIDE}"
    host.run(tool, "-t", "nat", "-N", "DOCKED")
    host.run(tool, "-t", "nat", "-A", *jump.split())
    host.run(tool, "-t", "nat", "-A", *to.split())
    try:
        yield
    finally:
        host.run(tool, "-t", "nat", "-D", *jump.split())
        host.run(tool, "-t", "nat", "-F", "DOCKED")
        host.run(tool, "-t", "nat", "-X", "DOCKED")


TO_FIRST = ("-container-ip", FIRST, "-container-port", str(INSIDE))


@contextmanager
def relayed(
    host: Namespace, at: str = "0.0.0.0", name: str = "docker-proxy", to: tuple[str, ...] = TO_FIRST
) -> Iterator[None]:
    """No rule, but a process that carries datagrams."""
    words = (name, "-proto", "udp", "-host-ip", at, "-host-port", str(PORT), *to)
    argv = host.argv([sys.executable, "-P", str(HERE / "relay_process.py"), *words])
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def by_a_map(port: int) -> str:
    """A rule whose map says where to."""
    return f"udp dport {PORT} dnat ip to udp dport map {{ {PORT} : {FIRST} . {port} }}"


DNAT = f"udp dport {PORT} dnat to {FIRST}:{INSIDE}"
WAYS: dict[str, Callable[[Namespace], AbstractContextManager[Any]]] = {
    "nft": partial(nft, rule=DNAT),
    "iptables": iptables,
    "iptables-legacy": partial(iptables, tool="iptables-legacy"),
    "docker-proxy": relayed,
}


def reach_of(carom: Carom) -> dict[str, Any]:
    """Whether its one service is reached by its one interface, and why not."""
    (service,) = carom.status()["services"]
    (found,) = service["reach"]
    return dict(found)


@pytest.mark.parametrize("hook", ["xdp", "tc"])
@pytest.mark.parametrize("way", WAYS)
def test_to_another_port(house: House, way: str, hook: str) -> None:
    """The container's server is found by what translates to it, and not the other container's."""
    host = house.line.server
    with ExitStack() as stack:
        stack.enter_context(WAYS[way](host))
        if way.startswith("iptables"):  # Docker has both
            stack.enter_context(relayed(host))
        carom = stack.enter_context(Carom(host, "--hook", hook, "-p", str(PORT), command="front"))
        assert carom.status()["services"][0]["behind"]["sockets"] == [
            f"0.0.0.0:{INSIDE}",
            f"[::]:{INSIDE}",
        ]
        assert reach_of(carom)["answered"]
        tcp, udp = stack.enter_context(house.writer(FIRST)), stack.enter_context(house.reader())
        check_writes_are_seen(carom, tcp, udp)


def test_a_relay_at_one_address(house: House) -> None:
    """What it does not hold goes nowhere, and is not answered."""
    host = house.line.server
    with relayed(host, HOST):
        ended = run(host, "front", "-i", INTERFACE, "-p", str(PORT))
    assert ended.code == 1
    assert f"no process of this host listens on UDP port {PORT}" in ended.stderr


def test_redirected(house: House) -> None:
    """To another port of the host itself."""
    host = house.line.server
    with ExitStack() as stack:
        stack.enter_context(nft(host, f"udp dport {PORT} redirect to :{INSIDE}"))
        stack.enter_context(Memcached(host, INSIDE))
        carom = stack.enter_context(Carom(host, "-p", str(PORT), command="front"))
        assert carom.status()["services"][0]["behind"]["own_namespace"]
        tcp = stack.enter_context(house.writer("127.0.0.1"))
        check_writes_are_seen(carom, tcp, stack.enter_context(house.reader()))


def test_by_a_map(house: House) -> None:
    """Where nobody can tell from the rules, somebody may say the port."""
    host = house.line.server
    rule = by_a_map(INSIDE)
    with ExitStack() as stack:
        stack.enter_context(nft(host, rule))
        ended = run(host, "front", "-i", INTERFACE, "-p", str(PORT))
        assert ended.code == 1
        assert f"no process of this host listens on UDP port {PORT}" in ended.stderr
        assert "--server-port" in ended.stderr
        ended = run(host, "front", "-i", INTERFACE, "-p", str(PORT), "--server-port", str(INSIDE))
        assert ended.code == 1
        assert "several servers" in ended.stderr


NOT_FOR_ALL = {
    "of one source": f"ip saddr 198.18.0.1 udp dport {PORT} redirect to :{INSIDE}",
    "by turns": f"udp dport {PORT} redirect to :numgen inc mod 2 map {{ 0 : {INSIDE}, 1 : 9 }}",
}


@pytest.mark.parametrize("which", NOT_FOR_ALL)
def test_not_for_all(house: House, which: str) -> None:
    """The rule is named that sends some requests on, or nobody knows where; and the way out."""
    host = house.line.server
    with nft(host, NOT_FOR_ALL[which]), Memcached(host, INSIDE):
        ended = run(host, "front", "-i", INTERFACE, *IPV4)
        assert ended.code == 1
        assert f"no process of this host listens on UDP port {PORT}" in ended.stderr
        assert "nft ip translated c handle" in ended.stderr
        assert "--server-port" in ended.stderr
        arguments = (*IPV4, "--server-port", str(INSIDE), "--allow", "198.18.0.1/32")
        with Carom(host, *arguments, command="front") as carom:
            assert reach_of(carom)["answered"]


def test_for_another_port(house: House) -> None:
    """A rule that has nothing to do with it is not named."""
    host = house.line.server
    with nft(host, f"ip saddr 198.18.0.1 udp dport {PORT + 1} redirect to :{INSIDE}"):
        ended = run(host, "front", "-i", INTERFACE, *IPV4)
    assert ended.code == 1
    assert "handle" not in ended.stderr


def test_said(house: House) -> None:
    """The same with one such server alone."""
    host = house.line.server
    rule = by_a_map(11352)
    with ExitStack() as stack:
        stack.enter_context(nft(host, rule))
        stack.enter_context(Memcached(house.containers[0], 11352))
        carom = stack.enter_context(
            Carom(host, "--server-port", "11352", "-p", str(PORT), command="front")
        )
        tcp = stack.enter_context(house.writer(FIRST, 11352))
        check_writes_are_seen(carom, tcp, stack.enter_context(house.reader()))


def test_past_the_server(house: House) -> None:
    """Rules that come and go: what they send on to others is not answered from this server."""
    host = house.line.server
    with ExitStack() as stack:
        stack.enter_context(Memcached(host, PORT))
        carom = stack.enter_context(Carom(host, *IPV4, command="front"))
        mine = stack.enter_context(house.writer("127.0.0.1", PORT))
        mine.set(b"k", b"the host's")
        with house.writer(FIRST) as theirs:
            theirs.set(b"k", b"the container's")
        with house.reader() as udp:
            until_hit(carom, udp, b"k", b"the host's")
        with nft(host, DNAT):
            until(lambda: "requests cannot be answered" in carom.stderr(), "nothing answered")
            assert f"go on to {FIRST}, port {INSIDE}" in reach_of(carom)["why"]
            with house.reader() as udp:
                assert hits_of(carom, udp, b"k", b"the container's") == 0
        until(lambda: reach_of(carom)["answered"], "answered again")
        with house.reader() as udp:
            until_hit(carom, udp, b"k", b"the host's")


def test_past_a_service_of_ours(house: House) -> None:
    """The same of a Python service."""
    host = house.line.server
    with Carom(host, "-p", str(PORT)) as carom:
        assert reach_of(carom)["answered"]
        with nft(host, f"udp dport {PORT} dnat to {SECOND}"):
            until(lambda: not reach_of(carom)["answered"], "nothing answered")
            assert f"go on to {SECOND}, port {PORT}" in reach_of(carom)["why"]
        until(lambda: reach_of(carom)["answered"], "answered again")


def test_of_one_family_alone(house: House) -> None:
    """Rules for IPv4: a server here has IPv6's requests still, and that is said."""
    host = house.line.server
    with (
        Memcached(host, PORT),
        nft(host, DNAT),
        Carom(host, "-p", str(PORT), command="front") as one,
    ):
        said = f"{house.line.address} port {PORT} go on to {FIRST}, port {INSIDE}"
        assert any(said in note for note in one.ready["notes"])
        assert reach_of(one)["answered"]
        with house.writer("127.0.0.1", PORT) as tcp, house.reader(6) as udp:
            check_writes_are_seen(one, tcp, udp)


def test_to_nobody(house: House) -> None:
    """No server is where requests go, though one has the port here."""
    host = house.line.server
    with Memcached(host, PORT), nft(host, f"udp dport {PORT} dnat to 198.18.3.9:{INSIDE}"):
        ended = run(host, "front", "-i", INTERFACE, *IPV4)
    assert ended.code == 1
    assert f"UDP port {INSIDE}, which requests to port {PORT} are translated to" in ended.stderr


def test_a_keeper_that_does_not_say(house: House) -> None:
    """A process that holds the port for a container, and no rule that tells where it goes."""
    host = house.line.server
    with relayed(host, name="conmon", to=()):
        ended = run(host, "front", "-i", INTERFACE, "-p", str(PORT))
    assert ended.code == 1
    assert f"port {PORT} itself is only held for a container" in ended.stderr
    assert "--server-port" in ended.stderr
