# SPDX-License-Identifier: Apache-2.0
"""`carom front --protocol coap` before real servers, for real clients."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from carom.vm.netns import SERVER_IPV6
from netns.coap_server import AIOCoAP, Client, LibCoAP, path
from netns.fronted import check_writes_are_seen
from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient
from netns.process import DEADLINE, Carom, run, until
from reference.coap import (
    ACCEPT,
    ACK,
    CON,
    CONTENT,
    DELETE,
    ETAG,
    FETCH,
    GET,
    MAX_AGE,
    NON,
    POST,
    PUT,
    VALID,
    Message,
)

FRONT = ("--protocol", "coap", "--ttl", "1h")
HOOKS = {
    "native": ("--mode", "native"),
    "generic": ("--mode", "generic"),
    "tc": ("--hook", "tc"),
}
CHANGED, CREATED, NOT_FOUND = 0x44, 0x41, 0x84


@pytest.fixture(scope="module", params=HOOKS.values(), ids=HOOKS)
def front(request: pytest.FixtureRequest, straight: Line) -> Iterator[Carom]:
    """Before a server of its own: the list of all resources outgrows a block."""
    with (
        LibCoAP(straight.server),
        Carom(straight.server, *FRONT, *request.param, command="front") as carom,
    ):
        yield carom


@pytest.fixture(params=["198.18.0.2", SERVER_IPV6], ids=["ipv4", "ipv6"])
def address(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def client(straight: Line, address: str) -> Iterator[Client]:
    with Client(straight.client, address) as client:
        yield client


@pytest.fixture
def direct(straight: Line) -> Iterator[Client]:
    """Asks the server by loopback, where no fast path is."""
    with Client(straight.server, "127.0.0.1") as client:
        yield client


def without_age(message: Message) -> tuple[int, list[tuple[int, bytes]], bytes | None]:
    """What of a reply does not change with time, nor from client to client."""
    options = [one for one in message.options if one[0] != MAX_AGE]
    return message.code, options, message.payload


def age_of(message: Message) -> int:
    return int.from_bytes(dict(message.options).get(MAX_AGE, b"\x3c"))


def until_hit(carom: Carom, ask: Callable[[], Message]) -> Message:
    """Ask until the kernel answers: at once, but for what is held."""

    def asked() -> bool:
        before = carom.counters()
        found.append(ask())
        return carom.since(before).get("hit", 0) == 1

    found: list[Message] = []
    end = time.monotonic() + DEADLINE
    while not asked():
        assert time.monotonic() < end, f"no hit: {carom.status()}"
    return found[-1]


@pytest.mark.parametrize("name", ["", ".well-known/core", "made/by/put"])
@pytest.mark.parametrize("type", [CON, NON])
def test_learned(front: Carom, client: Client, direct: Client, name: str, type: int) -> None:
    """The kernel says what the server says, with the client's own token and id, and a Max-Age that
    does not exceed the server's."""
    if name == "made/by/put":
        assert direct.put(name, b"a value").code in (CHANGED, CREATED)
    expected = direct.get(name)
    front.flush()
    client.get(name)
    before = front.counters()
    asked = [client.request(path(name), type=type, token=bytes([n, n])) for n in range(3)]
    replies = [client.reply_to(one) for one in asked]
    assert front.since(before)["hit"] == 3
    for request, reply in zip(asked, replies, strict=True):
        assert without_age(reply) == without_age(expected)
        assert (reply.token, reply.id) == (request.token, request.id)
        assert reply.type == (ACK if type == CON else NON)
        assert 0 < age_of(reply) <= age_of(expected)


def test_what_is_not_confirmable_is_not_learned(front: Carom, client: Client) -> None:
    front.flush()
    before = front.counters()
    for _ in range(3):
        assert client.get("", type=NON).code == CONTENT
    assert "hit" not in front.since(before) and "fills" not in front.since(before)


def test_time_passes(front: Carom, client: Client, direct: Client) -> None:
    """What has no Max-Age has 60 seconds, and fewer from second to second."""
    direct.put("aging", b"x")
    front.flush()
    client.get("aging")
    start, first = time.monotonic(), age_of(client.get("aging"))
    until(lambda: time.monotonic() - start > 2, "two seconds to pass")
    assert first - 2 >= age_of(client.get("aging"))


def test_what_the_server_ends_soon_ends_soon(front: Carom, client: Client) -> None:
    """coap-server's clock is fresh for a second."""
    start, said = time.monotonic(), set[bytes | None]()
    while time.monotonic() - start < 3:
        said.add(client.get("time").payload)
        time.sleep(0.01)
    assert len(said) >= 3


@pytest.mark.parametrize("code", [PUT, POST, DELETE, FETCH])
@pytest.mark.parametrize("other", ["", "?a=b", "host"])
def test_writes_void_their_path(
    front: Carom, client: Client, address: str, code: int, other: str
) -> None:
    """For whatever host and query it was asked for. What may be answered as a read is held."""
    name = f"written-{code}{address}{other.lstrip('?')}"
    host = [(3, b"example.org")] if other == "host" else []
    of = path(name, "a=b") if other == "?a=b" else path(name)

    def get() -> Message:
        return client.reply_to(client.request([*host, *of]))

    client.put(name, b"before")
    assert until_hit(front, get).payload == b"before"
    reply = client.reply_to(client.request(path(name), code, payload=b"after"))
    before = front.counters()
    found = get()
    assert "hit" not in front.since(before)
    if code == PUT:
        assert reply.code == CHANGED and found.payload == b"after"


@pytest.mark.parametrize(
    "options",
    [
        [(6, b""), *path("kept")],
        [*path("kept"), (23, b"\2")],
        [*path("kept"), (0x1001, b"x")],
    ],
    ids=["observe", "block2", "unknown"],
)
def test_what_goes_up(front: Carom, client: Client, options: list[tuple[int, bytes]]) -> None:
    client.put("kept", b"x")
    until_hit(front, lambda: client.get("kept"))
    before = front.counters()
    client.reply_to(client.request(options))
    changed = front.since(before)
    assert changed["pass_request"] == 1 and "hit" not in changed


def test_blocks_are_not_learned(front: Carom, client: Client) -> None:
    """coap-server's example is longer than a block."""
    before = front.counters()
    for _ in range(3):
        assert 23 in dict(client.get("example_data").options)
    assert "hit" not in front.since(before)


def test_formats_are_told_apart(front: Carom, client: Client) -> None:
    client.put("format", b"x")

    def get() -> Message:
        return client.reply_to(client.request([*path("format"), (ACCEPT, b"")]))

    assert until_hit(front, lambda: client.get("format")).code == CONTENT
    before = front.counters()
    get()
    assert "hit" not in front.since(before)


def test_a_connection_that_nobody_reads_voids(
    front: Carom, straight: Line, client: Client, address: str
) -> None:
    """CoAP over TCP (RFC 8323), which coap-server has at the same port."""
    program = shutil.which("coap-client-notls")
    if not program:
        pytest.skip("coap-client is not installed (libcoap3-bin)")
    client.put("by-tcp", b"before")
    assert until_hit(front, lambda: client.get("by-tcp")).payload == b"before"
    where = f"[{address}]" if ":" in address else address
    asked = ["-m", "put", "-e", "after", f"coap+tcp://{where}/by-tcp"]
    subprocess.run(straight.client.argv([program, "-v", "0", *asked]), check=True, timeout=DEADLINE)
    assert client.get("by-tcp").payload == b"after"


def test_a_name(front: Carom, client: Client) -> None:
    """`carom cache get` and `drop` take a path."""
    pid = ("--pid", str(front.pid))
    client.put("named/thing", b"x")
    until_hit(front, lambda: client.get("named/thing"))
    assert run(front.namespace, "cache", "drop", "/named/thing", *pid).stdout == "dropped\n"
    before = front.counters()
    client.get("named/thing")
    assert "hit" not in front.since(before)


def test_coap_client(front: Carom, straight: Line, client: Client, address: str) -> None:
    """libcoap's client prints what the kernel answers, as it does what the server says."""
    program = shutil.which("coap-client-notls")
    if not program:
        pytest.skip("coap-client is not installed (libcoap3-bin)")
    where = f"[{address}]" if ":" in address else address
    client.put("for-client", b"22.5 C")

    def get(*arguments: str) -> str:
        asked = [program, "-v", "0", "-T", "ab", *arguments, f"coap://{where}/for-client"]
        argv = straight.client.argv([one for one in asked if one])
        done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=DEADLINE)
        return done.stdout

    def hit() -> bool:
        before = front.counters()
        assert get("-m", "get").strip() == "22.5 C"
        return front.since(before).get("hit", 0) == 1

    until(hit, "a hit by coap-client")
    before = front.counters()
    assert get("-N", "-m", "get").strip() == "22.5 C"
    assert front.since(before)["hit"] == 1


ASKS = """
import asyncio, sys
from aiocoap import Context, Message, GET, NON, CON

async def main():
    context = await Context.create_client_context()
    for type in (CON, NON, CON):
        for _ in range(8):
            asked = Message(code=GET, uri=sys.argv[1], mtype=type)
            reply = await context.request(asked).response
            print(reply.code, reply.payload.decode(), reply.opt.max_age)
    await context.shutdown()

asyncio.run(main())
"""


def test_aiocoap(front: Carom, straight: Line, client: Client, address: str) -> None:
    """The same of aiocoap, confirmable and not."""
    pytest.importorskip("aiocoap")
    where = f"[{address}]" if ":" in address else address
    client.put("for-aiocoap", b"22.5")
    for length in range(9):  # whatever token it takes
        until_hit(
            front,
            lambda n=length: client.reply_to(  # type: ignore[misc]
                client.request(path("for-aiocoap"), token=b"12345678"[:n])
            ),
        )
    argv = [sys.executable, "-P", "-c", ASKS, f"coap://{where}/for-aiocoap"]
    before = front.counters()
    done = subprocess.run(
        straight.client.argv(argv), capture_output=True, text=True, check=True, timeout=DEADLINE
    )
    replies = [line.rsplit(" ", 1) for line in done.stdout.splitlines()]
    assert [said for said, _ in replies] == ["2.05 Content 22.5"] * 24
    assert all(0 < int(age) <= 60 for _, age in replies)
    host_is_named = front.since(before)  # aiocoap may send a Uri-Host, which has a key of its own
    assert host_is_named.get("hit", 0) >= 16, host_is_named


@pytest.fixture(scope="module", params=["native", "tc"])
def before_aiocoap(request: pytest.FixtureRequest, line: Line) -> Iterator[tuple[Carom, Line]]:
    with (
        AIOCoAP(line.server),
        Carom(line.server, *FRONT, *HOOKS[request.param], command="front") as carom,
    ):
        yield carom, line


def test_before_aiocoap(before_aiocoap: tuple[Carom, Line]) -> None:
    """Its replies are learned, its separate ones are not, and an ETag has a reply of its own."""
    carom, line = before_aiocoap
    with Client(line.client, line.address) as client:
        client.put("thing", b"value-1")
        assert until_hit(carom, lambda: client.get("thing")).payload == b"value-1"

        def valid() -> Message:
            return client.reply_to(client.request([(ETAG, b"value-1"), *path("thing")]))

        reply = until_hit(carom, valid)
        assert (reply.code, reply.payload) == (VALID, None)
        assert dict(reply.options)[ETAG] == b"value-1" and 0 < age_of(reply) <= 60

        client.put("thing", b"value-2")
        before = carom.counters()
        assert without_age(valid())[::2] == (CONTENT, b"value-2")
        assert client.get("thing").payload == b"value-2"
        assert "hit" not in carom.since(before)

        client.put("slow/thing", b"late")
        before = carom.counters()
        for _ in range(3):
            assert client.get("slow/thing").payload == b"late"
        assert "hit" not in carom.since(before)

        assert client.get("absent").code == NOT_FOUND
        before = carom.counters()
        assert client.get("absent").code == NOT_FOUND
        assert "hit" not in carom.since(before)


def test_what_is_sent_again_is_not_learned(before_aiocoap: tuple[Carom, Line]) -> None:
    """aiocoap answers it as it did before, whatever was written meanwhile."""
    carom, line = before_aiocoap
    with Client(line.client, line.address) as client, Client(line.client, line.address) as other:
        client.put("again", b"old")
        request = client.request(path("again"))
        assert client.reply_to(request).payload == b"old"
        assert other.put("again", b"new").code == CHANGED
        assert client.reply_to(request).payload == b"old", "the server knows it again"
        assert other.get("again").payload == b"new"
        assert until_hit(carom, lambda: other.get("again")).payload == b"new"
        client.put("mine", b"mine")
        strange = client.request([*path("mine"), (23, b"\6")])  # its number, then of another read
        assert client.reply_to(strange).payload == b"mine"
        client.reply_to(strange._replace(options=path("again")))
        assert other.get("again").payload == b"new"


@pytest.mark.parametrize("code", [PUT, DELETE, POST])
def test_a_client_of_one_token(before_aiocoap: tuple[Carom, Line], code: int) -> None:
    """The reply to a write counts it off: what is read behind it is learned at once."""
    carom, line = before_aiocoap
    with Client(line.client, line.address) as client, Client(line.client, line.address) as other:

        def ask(name: str, code: int = GET, payload: bytes | None = None) -> Message:
            return client.reply_to(client.request(path(name), code, token=b"1", payload=payload))

        absent, thing = (f"{name}-{code}" for name in ("absent", "thing"))
        assert ask("written", code, b"x").code >> 5 == 2
        assert ask(absent).code == NOT_FOUND
        for name in (absent, thing):
            other.put(name, b"value")
            assert ask(name).payload == b"value"
            before = carom.counters()
            assert ask(name).payload == b"value"
            assert carom.since(before)["hit"] == 1


def test_beside_a_memcached(own_line: Line, tmp_path: Path) -> None:
    """Programs that know both: ids of two bytes at the front, and tokens of any length behind."""
    config = tmp_path / "front.toml"
    services = ('[[service]]\nprotocol = "coap"\n', '[[service]]\nprotocol = "memcached"\n')
    config.write_text("".join(services))
    with (
        LibCoAP(own_line.server),
        Memcached(own_line.server),
        Carom(own_line.server, "--config", str(config), command="front") as carom,
        Client(own_line.client, own_line.address) as client,
        UDPClient(own_line.client, own_line.address) as udp,
        TCPClient(own_line.client, own_line.address) as tcp,
    ):
        check_writes_are_seen(carom, tcp, udp)
        for value in (b"before", b"after"):
            client.put("thing", value)
            assert until_hit(carom, lambda: client.get("thing")).payload == value
        said = carom.status()
        assert said["cache"]["fills"] == said["edge"]["learned"], "once, not once a service"
        assert all(one["cache"]["fills"] is None for one in said["services"]), "whose, nobody knows"
