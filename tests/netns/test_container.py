# SPDX-License-Identifier: Apache-2.0
"""A server in a container whose port is published: begun anew, it is answered for again."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator

import pytest

from netns.container import Container, any_port, publish
from netns.forge import head
from netns.fronted import edge, hits_of, until_hit
from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient
from netns.process import Carom, until
from netns.puppet import NOBODY, Puppet
from netns.test_attachments import reach

NOBODY_OF_NOTHING = (*NOBODY, "unshare", "--user", "--map-user=65534", "--keep-caps", "--net")
"""As memcached's own user, in namespaces that any user can have."""

FIRST, SECOND, THIRD = "198.19.7.2", "198.19.7.3", "198.19.7.4"


@pytest.fixture(autouse=True)
def _nft() -> None:
    if not shutil.which("nft"):
        pytest.skip("nft is not installed")


@pytest.fixture
def port() -> int:
    return any_port()


@pytest.fixture
def first(own_line: Line, port: int) -> Iterator[Container]:
    """The container that is there when carom starts, nobody can tell where published."""
    with Container(own_line.server, FIRST) as container:
        publish(own_line.server, FIRST, port, told=False)
        yield container


def until_hits(line: Line, carom: Carom, port: int, value: bytes) -> None:
    """Write by the published port, and ask until the kernel answers; never anything else.

    Each client is a new one: the host remembers for a while where it sent an old one's requests.
    """
    with TCPClient(line.client, line.address, port) as tcp:
        tcp.set(b"key", value)

    def hits() -> bool:
        before = carom.counters()["hit"]
        with UDPClient(line.client, line.address, port) as udp:
            assert udp.get(b"key") == value
            assert udp.get(b"key") == value
        return carom.counters()["hit"] > before

    until(hits, "the kernel to answer")
    assert reach(carom)[0]["answered"]


@pytest.fixture
def fronted(own_line: Line, first: Container, port: int) -> Iterator[Carom]:
    """A carom before the server in it, that has had hits."""
    with (
        Memcached(first.namespace, port, addresses="0.0.0.0"),
        Carom(own_line.server, "-p", str(port), command="front") as carom,
    ):
        until_hits(own_line, carom, port, b"old")
        yield carom


@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
@pytest.mark.parametrize(
    ("address", "bound"),
    [
        (FIRST, "0.0.0.0"),
        (SECOND, "0.0.0.0"),
        (SECOND, f"{SECOND},127.0.0.1"),
        (SECOND, "::,0.0.0.0"),
    ],
    ids=["as before", "at another address", "bound to another address", "bound to all"],
)
def test_begun_anew(
    own_line: Line, first: Container, port: int, address: str, bound: str, told: bool
) -> None:
    """In Docker's order: the server ends, then its namespace and interface; it comes last."""
    publish(own_line.server, FIRST, port, told=told)
    before = "0.0.0.0" if bound == "0.0.0.0" else f"{FIRST},127.0.0.1"
    with Memcached(first.namespace, port, addresses=before) as memcached:
        carom = Carom(own_line.server, "-p", str(port), command="front")
        with carom:
            until_hits(own_line, carom, port, b"old")
            memcached.close()
            first.close()
            until(lambda: "no server" in reach(carom)[0]["why"], "its end to be seen")
            with Container(own_line.server, address) as anew:
                publish(own_line.server, address, port, told=told)
                with Memcached(anew.namespace, port, addresses=bound):
                    until_hits(own_line, carom, port, b"new")
                    assert carom.status()["services"][0]["behind"]["pids"]


def test_published_elsewhere_for_a_while(own_line: Line, first: Container, port: int) -> None:
    """The server is gone for that long; then it is the same, with the same sockets."""
    publish(own_line.server, FIRST, port)
    with (
        Memcached(first.namespace, port, addresses="0.0.0.0"),
        Carom(own_line.server, "-p", str(port), command="front") as carom,
    ):
        until_hits(own_line, carom, port, b"old")
        for value in (b"new", b"newer"):
            publish(own_line.server, SECOND, port)
            until(lambda: "no server" in reach(carom)[0]["why"], "its absence to be seen")
            publish(own_line.server, FIRST, port)
            until(lambda: reach(carom)[0]["answered"], "it to be found")
            until_hits(own_line, carom, port, value)


def test_one_beside_is_another(own_line: Line, first: Container, fronted: Carom, port: int) -> None:
    """It holds the same port and is of the same user, but no request is translated to it."""
    host, carom = own_line.server, fronted
    with (
        Container(host, SECOND, "dock1") as other,
        Memcached(other.namespace, port, addresses="0.0.0.0"),
    ):
        until_hits(own_line, carom, port, b"still")
        first.close()
        until(lambda: "beside it" in reach(carom)[0]["why"], "it to be taken for another")
        with (
            UDPClient(other.namespace, SECOND, port) as its,
            UDPClient(host, SECOND, port) as hosts,
        ):
            for _ in range(3):
                assert its.get(b"key") is None
                assert hosts.get(b"key") is None
        assert not carom.status()["services"][0]["behind"]["pids"]
        with Container(host, THIRD, "dock2") as anew:
            publish(host, THIRD, port, told=False)
            with Memcached(anew.namespace, port, addresses="0.0.0.0"):
                until_hits(own_line, carom, port, b"new")


def test_one_beside_that_is_told(own_line: Line, first: Container, port: int) -> None:
    """Another container's server takes its place as the rule does: its port is now that one's."""
    host = own_line.server
    publish(host, FIRST, port)
    with (
        Memcached(first.namespace, port, addresses="0.0.0.0"),
        Carom(host, "-p", str(port), command="front") as carom,
        Container(host, SECOND, "dock1") as other,
        Memcached(other.namespace, port, addresses="0.0.0.0"),
    ):
        until_hits(own_line, carom, port, b"old")
        first.close()
        until(lambda: f"at {FIRST}, where" in reach(carom)[0]["why"], "its end to be seen")
        publish(host, SECOND, port)
        until_hits(own_line, carom, port, b"new")


def test_several_that_may_be_it(
    own_line: Line, first: Container, fronted: Carom, port: int
) -> None:
    """None is answered for until there is one alone."""
    host, carom = own_line.server, fronted
    carom.signal(signal.SIGSTOP)
    first.close()
    with Container(host, SECOND) as anew, Memcached(anew.namespace, port, addresses="0.0.0.0"):
        with (
            Container(host, THIRD, "dock1") as other,
            Memcached(other.namespace, port, addresses="0.0.0.0"),
        ):
            carom.signal(signal.SIGCONT)
            until(lambda: "several" in reach(carom)[0]["why"], "it to be said")
            assert not reach(carom)[0]["answered"]
        publish(host, SECOND, port, told=False)
        until_hits(own_line, carom, port, b"new")


def test_begun_anew_before_anybody_has_looked(
    own_line: Line, first: Container, fronted: Carom, port: int
) -> None:
    """What is written to it at once, in a namespace that nobody knows of yet, is read."""
    fronted.signal(signal.SIGSTOP)
    first.close()
    with (
        Container(own_line.server, SECOND) as anew,
        Memcached(anew.namespace, port, addresses="0.0.0.0"),
        TCPClient(anew.namespace, SECOND, port) as writer,
    ):
        writer.set(b"key", b"at once")
        fronted.signal(signal.SIGCONT)
        publish(own_line.server, SECOND, port, told=False)
        until_hits(own_line, fronted, port, b"new")
        lost = edge(fronted)["stream_lost"]
        writer.set(b"key", b"newer")
        assert edge(fronted)["stream_lost"] == lost == 0


def test_a_stranger_while_it_is_away(
    own_line: Line, first: Container, fronted: Carom, port: int
) -> None:
    """Anybody may bind its port in a namespace of his own, as whom he likes: he voids nothing."""
    host, carom = own_line.server, fronted
    first.close()
    until(lambda: "no server" in reach(carom)[0]["why"], "its end to be seen")
    with Puppet(host, NOBODY_OF_NOTHING, name="stranger") as stranger:
        stranger.call("run", "ip", "link", "set", "lo", "up")
        his, other = stranger.udp("0.0.0.0", port), stranger.udp("127.0.0.1", port + 1)
        with Container(host, SECOND) as anew:
            publish(host, SECOND, port)
            with (
                Memcached(anew.namespace, port, addresses="0.0.0.0"),
                UDPClient(own_line.client, own_line.address, port) as client,
            ):
                until_hits(own_line, carom, port, b"new")

                def voids() -> bool:
                    until_hit(carom, client, b"key", b"new")
                    other.send(head(1) + b"flush_all\r\n", "127.0.0.1", port)
                    his.answer(his.take(), b"OK\r\n")
                    other.take()
                    return hits_of(carom, client, b"key", b"new") < 3

                until(lambda: not voids(), "him to be known for nobody")
                assert not any(voids() for _ in range(10))
