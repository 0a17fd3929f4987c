# SPDX-License-Identifier: Apache-2.0
"""What is in the cache and for how long: TTLs, room, and what takes a reply back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest

from netns.line import Line
from netns.process import Carom, run, until
from netns.wire import Client

TICK = 0.01
"""Seconds of the slowest kernel's jiffy."""


@pytest.fixture(scope="module")
def told(straight: Line) -> Iterator[Carom]:
    """A carom whose clients tell its handler what to do."""
    with Carom(straight.server, "--app", "services:told") as carom:
        yield carom


def _until_made_again(client: Client, request: bytes) -> float:
    """Ask until the second reply that the handler made comes; the seconds that it took."""
    start = time.monotonic()
    replies = [client.ask(request)]

    def ask() -> bool:
        replies.append(client.ask(request))
        return replies[-1] != replies[0]

    until(ask, "the reply to expire")
    took = time.monotonic() - start
    assert set(replies[:-1]) == {request + b": 1"}
    assert replies[-1] == request + b": 2"
    return took


def test_ttl_of_the_service(serve: Callable[..., Carom], client: Client) -> None:
    carom = serve("--app", "services:told", "--ttl", "700ms")
    assert _until_made_again(client, b"count expires") >= 0.7 - 3 * TICK
    counters = carom.counters()
    assert counters["fills"] == counters["miss"] + counters["miss_expired"] == 2


def test_full_until_something_expires(serve: Callable[..., Carom], client: Client) -> None:
    carom = serve("--app", "services:told", "--policy", "fcfs", "--capacity", "8")
    first = [b"ttl 60 %d" % i for i in range(4)] + [b"ttl 1 %d" % i for i in range(4)]
    others = [b"count %d" % i for i in range(4)]
    for request in first:
        client.ask(request)
    assert carom.counters()["fills"] == 8
    until(lambda: carom.status()["cache"]["entries"] == 4, "the sweep of what has expired")
    assert carom.status()["cache"]["swept"] >= 4
    for request in first[:4]:
        assert client.ask(request) == request + b": 1", "what lives was swept"
    before = carom.counters()
    made = [client.ask(request) for request in others]
    assert [client.ask(request) for request in others] == made
    carom.expect(before, miss=4, fills=4, replies=4, hit=4)


def test_first_come_first_served(serve: Callable[..., Carom], client: Client) -> None:
    carom = serve("--app", "services:told", "--policy", "fcfs", "--capacity", "4")
    first = [b"count %d" % i for i in range(4)]
    others = [b"count %d" % i for i in range(4, 10)]
    before = carom.counters()
    for round_ in (1, 2, 3):
        for request in first:
            assert client.ask(request) == request + b": 1"
        for request in others:
            assert client.ask(request) == b"%s: %d" % (request, round_)
    carom.expect(before, miss=4 + 18, hit=8, fills=4, refused=18, replies=4 + 18)
    assert carom.status()["cache"]["entries"] == 4


def test_fcfs_takes_new_keys_after_a_drop(
    serve: Callable[..., Carom], client: Client, straight: Line
) -> None:
    carom = serve("--app", "services:told", "--policy", "fcfs", "--capacity", "1")
    client.ask(b"count a")
    client.ask(b"count b")
    pid = str(carom.pid)
    assert run(straight.server, "cache", "drop", "count a", "--pid", pid).stdout == "dropped\n"
    assert client.ask(b"count b") == b"count b: 2"
    assert client.ask(b"count b") == b"count b: 2"
    assert client.ask(b"count a") == b"count a: 2"
    assert client.ask(b"count a") == b"count a: 3"


def test_lru_takes_new_keys_when_full(serve: Callable[..., Carom], client: Client) -> None:
    """Which keys it lets go is the kernel's affair; that the newest is there is not."""
    lru = ("--policy", "lru", "--admit", "always")
    carom = serve("--app", "services:told", *lru, "--capacity", "500")
    for i in range(1500):
        request = b"count %d" % i
        assert client.ask(request) == client.ask(request) == request + b": 1"
    counters = carom.counters()
    assert (counters["fills"], counters["hit"], counters["refused"]) == (1500, 1500, 0)
    assert 0 < carom.status()["cache"]["entries"] <= 500


def test_a_full_lru_takes_keys_that_were_missed_before(
    serve: Callable[..., Carom], client: Client
) -> None:
    """The default: while there is room every reply is kept, and then what is asked for again."""
    carom = serve("--app", "services:told", "--capacity", "500")
    before = carom.counters()
    for i in range(100):
        request = b"count %d" % i
        assert client.ask(request) == client.ask(request) == request + b": 1"
    carom.expect(before, miss=100, fills=100, hit=100, replies=100)
    for i in range(100, 2000):
        client.ask(b"count %d" % i)
    before = carom.counters()
    for expected in (1, 2, 2):
        assert client.ask(b"count new") == b"count new: %d" % expected
    carom.expect(before, miss=2, not_admitted=1, fills=1, hit=1, replies=2)


# One carom serves the tests from here on: each has requests of its own.


def test_ttl_of_a_reply(told: Carom, client: Client) -> None:
    assert _until_made_again(client, b"ttl 0.5 expires") >= 0.5 - 3 * TICK


def test_ttl_of_a_reply_is_its_own(told: Carom, client: Client) -> None:
    """A reply with a longer TTL outlives the service's, here that of a reply that goes."""
    long = client.ask(b"ttl 3600 stays")
    _until_made_again(client, b"ttl 0.3 goes")
    assert client.ask(b"ttl 3600 stays") == long


@pytest.mark.parametrize("request_", [b"uncached at all", b"ttl 0 at all"])
def test_reply_that_is_not_to_be_cached(told: Carom, client: Client, request_: bytes) -> None:
    before = told.counters()
    for i in (1, 2, 3):
        assert client.ask(request_) == b"%s: %d" % (request_, i)
    told.expect(before, miss=3, replies=3)


def test_other_kinds_of_bytes_are_a_reply(told: Carom, client: Client) -> None:
    before = told.counters()
    assert client.ask(b"bytearray") == client.ask(b"bytearray") == b"bytearray: 1"
    told.expect(before, miss=1, hit=1, fills=1, replies=1)


def test_invalidate_from_a_handler(told: Carom, client: Client) -> None:
    before = told.counters()
    assert client.ask(b"count v") == client.ask(b"count v") == b"count v: 1"
    assert client.ask(b"invalidate count v") == b"done"
    assert client.ask(b"count v") == client.ask(b"count v") == b"count v: 2"
    changed = told.since(before)
    assert changed["hit"] == 2
    # Voided, or swept since then: the sweeper comes when it likes.
    assert changed.get("miss_void", 0) + changed["miss"] == changed["replies"] == 3


def test_invalidate_while_the_reply_is_made(told: Carom, client: Client) -> None:
    """What was stale before it was stored is never a hit."""
    for i in (1, 2, 3):
        assert client.ask(b"self") == b"self: %d" % i


def test_drop(told: Carom, client: Client, straight: Line) -> None:
    pid = str(told.pid)
    assert client.ask(b"count d") == client.ask(b"count d") == b"count d: 1"
    dropped = run(straight.server, "cache", "drop", "count d", "--pid", pid, "--json")
    assert json.loads(dropped.stdout) == {"dropped": True}
    assert client.ask(b"count d") == b"count d: 2"
    never = run(straight.server, "cache", "drop", "0x00ff", "--pid", pid)
    assert never.code == 0
    assert "was not there" in never.stdout


def test_get_and_list(told: Carom, client: Client, straight: Line) -> None:
    pid = str(told.pid)
    client.ask(b"count g")
    got = run(straight.server, "cache", "get", "count g", "--pid", pid)
    assert (got.code, got.stdout) == (0, "count g: 1")
    assert got.stderr.startswith("live, ")
    as_hex = run(straight.server, "cache", "get", "0x" + b"count g".hex(), "--pid", pid, "--json")
    assert json.loads(as_hex.stdout)["state"] == "live"
    none = run(straight.server, "cache", "get", "no such request", "--pid", pid)
    assert (none.code, none.stdout) == (1, "")
    assert none.stderr == "carom: no such request is not in the cache\n"

    listed = run(straight.server, "cache", "ls", "--limit", "100000", "--pid", pid, "--json")
    (entry,) = [e for e in json.loads(listed.stdout)["entries"] if e["key"] == b"count g".hex()]
    assert (entry["state"], entry["reply_bytes"]) == ("live", len(b"count g: 1"))
    assert 0 < entry["ttl_seconds"] <= 60
    shown = run(straight.server, "cache", "ls", "--limit", "100000", "--pid", pid)
    assert any("count g" in line and "live" in line for line in shown.stdout.splitlines())


def test_flush(told: Carom, client: Client, straight: Line) -> None:
    requests = [b"count f%d" % i for i in range(20)]
    for request in requests:
        assert client.ask(request) == client.ask(request) == request + b": 1"
    flushed = run(straight.server, "cache", "flush", "--pid", str(told.pid), "--json")
    assert json.loads(flushed.stdout)["flushed"] >= len(requests)
    assert told.status()["cache"]["entries"] == 0
    for request in requests:
        assert client.ask(request) == request + b": 2"


def test_status(told: Carom, client: Client, straight: Line) -> None:
    """The command prints what the tests here count by."""
    before = told.counters()
    client.ask(b"count s")
    client.ask(b"count s")
    told.expect(before, miss=1, hit=1, fills=1, replies=1)
    asked = run(straight.server, "status", "--pid", str(told.pid), "--json")
    status = json.loads(asked.stdout)
    assert status["ready"] == told.ready
    assert status["verdicts"]["hit"] == before["hit"] + 1
    assert status["verdicts"]["miss"] == before["miss"] + 1
    shown = run(straight.server, "status", "--pid", str(told.pid)).stdout.splitlines()
    assert f"xdp/generic on carom0 pid {told.pid}" in shown[0]
    assert any(line.split() == ["xdp", "hit", f"{before['hit'] + 1:,}"] for line in shown)


HOSTILE = {
    b"\x1b[2J\x07": "0x1b5b324a07",
    b"[/x] [bold]": "[/x] [bold]",
    b":smile:": ":smile:",
    b"<b>'\"": "<b>'\"",
    b"0x41": "0x30783431",
    b"\xff\xfe": "0xfffe",
}
"""Keys that anybody may ask for, and how they are shown."""


def test_keys_are_shown_as_they_are(told: Carom, client: Client) -> None:
    """Nothing of them acts on a terminal, or is taken for markup; what is shown names the key."""
    told.flush()
    for key in HOSTILE:
        client.ask(key)
    ended = run(told.namespace, "cache", "ls", "--pid", str(told.pid))
    assert ended.code == 0 and "\x1b" not in ended.stdout, ended
    shown = {line.rsplit(maxsplit=3)[0].rstrip() for line in ended.stdout.splitlines()[1:]}
    assert shown == set(HOSTILE.values())
    for name in HOSTILE.values():
        got = run(told.namespace, "cache", "get", name, "--json", "--pid", str(told.pid))
        assert got.code == 0, got
