# SPDX-License-Identifier: Apache-2.0
"""Several services in one carom, on one interface or two; the addresses that they are bound to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from carom.vm.namespace import join
from netns.line import Line
from netns.process import INTERFACE, Carom, run
from netns.test_errors import check_refused
from netns.wire import Client

FIRST, SECOND = 51141, 51142
TWO = """
[[service]]
port = 51141
app = "services:told"

[[service]]
port = 51142
app = "carom.apps:mixed"
ttl = "10m"
"""


def written(folder: Path, text: str) -> str:
    """A configuration file."""
    path = folder / "services.toml"
    path.write_text(text)
    return str(path)


@pytest.fixture(params=["xdp", "tc"])
def two(
    straight: Line, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[Carom, Client, Client]]:
    """Two services in one carom, and a client of each."""
    common = f'interfaces = ["{INTERFACE}"]\nhook = "{request.param}"\namplify = 0\n'
    config = written(tmp_path, common + TWO)
    with ExitStack() as stack:
        carom = Carom(straight.server, "--config", config)
        stack.enter_context(carom)
        clients = [Client(straight.client, straight.address, port) for port in (FIRST, SECOND)]
        for client in clients:
            stack.enter_context(client)
        yield carom, clients[0], clients[1]


def test_each_answers_for_itself(two: tuple[Carom, Client, Client], straight: Line) -> None:
    """One request to both, with a reply of each; then one of them is dropped, and one flushed."""
    carom, first, second = two
    assert [(one["port"], one["fast"]) for one in carom.ready["services"]] == [
        (FIRST, "cache"),
        (SECOND, "cache"),
    ]
    request = b"count to both"
    replies = [client.ask(request) for client in (first, second)]
    assert replies[0] == request + b": 1"
    before = carom.counters()
    for _ in range(3):
        assert [client.ask(request) for client in (first, second)] == replies
    carom.expect(before, hit=6, pass_to_tc=carom.since(before).get("pass_to_tc", 0))
    by_port = {one["port"]: one["cache"]["entries"] for one in carom.status()["services"]}
    assert by_port == {FIRST: 1, SECOND: 1}

    on = ("--pid", str(carom.pid))
    asked = run(straight.server, "cache", "drop", request.decode(), *on)
    assert (asked.code, asked.stdout) == (1, "")
    assert "several services run" in asked.stderr
    assert f"{FIRST}, {SECOND}" in asked.stderr
    asked = run(straight.server, "cache", "flush", *on, "--port", "9")
    assert asked.code == 1
    assert "no service on port 9" in asked.stderr

    run(straight.server, "cache", "flush", *on, "--port", str(FIRST))
    before = carom.counters()
    assert second.ask(request) == replies[1]
    carom.expect(before, hit=1, pass_to_tc=carom.since(before).get("pass_to_tc", 0))
    assert first.ask(request) == request + b": 2"
    dropped = run(
        straight.server, "cache", "drop", request.decode(), *on, "--port", str(SECOND), "--json"
    )
    assert json.loads(dropped.stdout) == {"dropped": True}
    before = carom.counters()
    assert second.ask(request) == replies[1]
    assert carom.since(before)["replies"] == 1


def test_invalidate_in_a_second_service(straight: Line, tmp_path: Path) -> None:
    """The handler's own thread takes its own service's reply back."""
    config = written(
        tmp_path,
        '[[service]]\nport = 51142\napp = "carom.apps:echo"\n'
        '[[service]]\nport = 51141\napp = "services:told"\n',
    )
    with (
        Carom(straight.server, "--config", config) as carom,
        Client(straight.client, straight.address) as told,
        Client(straight.client, straight.address, SECOND) as echo,
    ):
        for client, reply in ((told, b"count v: 1"), (echo, b"count v")):
            assert client.ask(b"count v") == client.ask(b"count v") == reply
        assert told.ask(b"invalidate count v") == b"done"
        assert told.ask(b"count v") == told.ask(b"count v") == b"count v: 2"
        assert echo.ask(b"count v") == b"count v"
        assert carom.counters()["hit"] >= 3


@pytest.mark.parametrize("hook", ["xdp", "tc"])
def test_two_interfaces(own_line: Line, tmp_path: Path, hook: str) -> None:
    """Each answers at its own address, also to the same key; both are clean in the end."""
    client, server = own_line.client, own_line.server
    join(client, "carom1", server, "carom1")
    client.address("carom1", "198.18.4.1", 30)
    server.address("carom1", "198.18.4.2", 30)
    text = f'interfaces = ["{INTERFACE}", "carom1"]\nhook = "{hook}"\nfast = "bounce"\n'
    with (
        Carom(server, "--config", written(tmp_path, text + TWO), interface=None) as carom,
        Client(client, own_line.address) as near,
        Client(client, "198.18.4.2", SECOND) as far,
    ):
        assert [one["name"] for one in carom.ready["interfaces"]] == [INTERFACE, "carom1"]
        before = carom.counters()
        assert near.ask(b"here") == b"here"
        assert far.ask(b"there") == b"there"
        carom.expect(before, bounce=2)
        for interface in (INTERFACE, "carom1"):
            carom.interface = interface
        carom.stop()


WRONG = {
    "no-toml": ("port 51141", "is not TOML"),
    "no-service": ('interfaces = ["carom0"]', "names no service"),
    "one-table": ("[service]\nport = 51141", "names no service"),
    "no-tables": ("service = [1, 2]", "names no service"),
    "interfaces": ('interfaces = "carom0"\n[[service]]\nport = 51141', "interfaces is a list"),
    "byte-order": ("\ufeff", "names no service"),
    "hyphen": ("[[service]]\nbypass-firewall = true", "is bypass_firewall meant?"),
    "unknown": ("speed = 9\n[[service]]\nport = 51141", "unknown option 'speed'"),
    "type": ('[[service]]\nport = "http"', "wrong option"),
    "range": ("[[service]]\nport = 0", "port 0 is out of range"),
    "ttl": ('[[service]]\nttl = "soon"', "'soon' is not a duration"),
    "bind": ('[[service]]\nbind = "here"', "bind 'here' is not an IP address"),
    "allow-text": ('allow = "198.18.0.0/15"\n[[service]]\nport = 51141', "wrong option"),
    "allow": ('allow = ["198.18.0.1/15"]\n[[service]]\nport = 51141', "is not a prefix"),
    "app": ('[[service]]\napp = "no_such:one"', "no module 'no_such'"),
    "twice": ("[[service]]\nport = 51141\n[[service]]\nport = 51142", "echo serves twice"),
    "shared": (
        '[[service]]\nhook = "tc"\n[[service]]\napp = "mixed"\nport = 51142',
        "share hook: 'tc' is not 'xdp'",
    ),
    "same-port": ('[[service]]\nport = 51141\n[[service]]\napp = "mixed"', "answer on port 51141"),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG.keys())
def test_wrong_file(straight: Line, tmp_path: Path, text: str, said: str) -> None:
    config = written(tmp_path, text)
    ended = run(straight.server, "serve", "-i", INTERFACE, "--config", config)
    check_refused(straight, ended, 2, said)


def test_no_file(straight: Line, tmp_path: Path) -> None:
    ended = run(straight.server, "serve", "-i", INTERFACE, "--config", str(tmp_path / "none"))
    check_refused(straight, ended, 2, "cannot read", "none")


@pytest.mark.parametrize("hook", ["xdp", "tc"])
def test_bound_to_one_ipv6_address(straight: Line, hook: str) -> None:
    """No other of the host's is answered, and none of IPv4."""
    six = straight.over(6)
    with (
        Carom(straight.server, "--hook", hook, "--fast", "bounce", "--bind", six.address) as carom,
        Client(six.client, six.address) as client,
        Client(straight.client, straight.address) as four,
    ):
        before = carom.counters()
        assert client.ask(b"six") == b"six"
        assert not four.answered(b"four")
        carom.expect(before, bounce=1, pass_service=1)


def test_a_wildcards_reply_comes_from_the_address_asked(straight: Line) -> None:
    """Of either IP, by the server: a connected client takes no other."""
    extra = {4: "198.18.5.1", 6: "2001:db8:5::1"}
    for version, address in extra.items():
        bits = 32 if version == 4 else 128
        straight.server.address("lo", address, bits)
        via = straight.over(version).address
        straight.client.run("ip", "route", "add", f"{address}/{bits}", "via", via)
    try:
        with Carom(straight.server, "--bind", "::", "--fast", "off") as carom:
            for address in (*extra.values(), straight.address, straight.address6):
                with Client(straight.client, address) as client:
                    assert client.ask(address.encode()) == address.encode()
            assert carom.counters()["replies"] == 4
    finally:
        for version, address in extra.items():
            bits = 32 if version == 4 else 128
            straight.server.run("ip", "address", "del", f"{address}/{bits}", "dev", "lo")
            straight.client.run("ip", "route", "del", f"{address}/{bits}")


@pytest.mark.parametrize("version", [4, 6])
def test_allow_and_amplify(straight: Line, version: int) -> None:
    """What the kernel may not answer, the server does."""
    line = straight.over(version)
    prefix = line.client_address + ("/32" if version == 4 else "/128")
    other = "198.18.0.0/32" if version == 4 else "2001:db8::ff/128"
    bind = ("--bind", "::", "--app", "services:sized")
    for allowed, expected in ((prefix, "hit"), (other, "pass_allow")):
        with (
            Carom(line.server, *bind, "--allow", allowed, "--amplify", "3") as carom,
            Client(line.client, line.address) as client,
        ):
            for reply_bytes, verdict in ((30, expected), (31, "pass_amplify")):
                request = reply_bytes.to_bytes(2, "big") + b"12345678"
                reply = client.ask(request)
                assert len(reply) == reply_bytes
                before = carom.counters()
                assert client.ask(request) == reply
                served = 0 if verdict == "hit" else 1
                fills = carom.since(before).get("fills", 0)
                carom.expect(before, **{verdict: 1}, replies=served, fills=fills)
