# SPDX-License-Identifier: Apache-2.0
"""`carom cache save` and `load`: replies that outlive the carom that gave them."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from carom.protocols import kv
from netns.line import Line
from netns.memcache import Memcached
from netns.process import Carom, Ended, run, until
from netns.wire import Client

Serve = Callable[..., Carom]


def told(carom: Carom, word: str, file: Path) -> dict[str, int]:
    """What `carom cache save` or `load` counts."""
    done = cache(carom, word, file, "--json")
    assert done.code == 0, done.stderr
    counts: dict[str, int] = json.loads(done.stdout)
    return counts


def cache(carom: Carom, word: str, file: Path, *more: str) -> Ended:
    return run(carom.namespace, "cache", word, str(file), "--pid", str(carom.pid), *more)


def begun_anew(carom: Carom, serve: Serve, *arguments: str) -> Carom:
    carom.stop()
    return serve("--app", "services:told", *arguments)


def test_replies_outlive_their_carom(serve: Serve, client: Client, tmp_path: Path) -> None:
    carom, file = serve("--app", "services:told"), tmp_path / "replies"
    requests = [b"count %d" % n for n in range(600)]
    requests += [b"count " + bytes([n]) * 250 for n in range(32)]
    for request in requests:
        client.ask(request)
    assert told(carom, "save", file) == {"saved": len(requests)}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["replies"]
    after = begun_anew(carom, serve)
    assert told(after, "load", file)["stored"] == len(requests)
    before = after.counters()
    for request in requests:
        assert client.ask(request) == request + b": 1"
    after.expect(before, hit=len(requests))
    assert after.status()["server"]["replies"] == 0


def test_they_hold_as_long_as_they_would_have(serve: Serve, client: Client, tmp_path: Path) -> None:
    carom, file = serve("--app", "services:told"), tmp_path / "replies"
    client.ask(b"ttl 1 short")
    client.ask(b"ttl 3000 long")
    client.ask(b"uncached one")
    assert told(carom, "save", file)["saved"] == 2
    time.sleep(1.1)
    after = begun_anew(carom, serve)
    became = told(after, "load", file)
    assert (became["stored"], became["expired"]) == (1, 1)
    shown = run(after.namespace, "cache", "ls", "--pid", str(after.pid), "--json").stdout
    (entry,) = json.loads(shown)["entries"]
    assert bytes.fromhex(entry["key"]) == b"ttl 3000 long"
    assert 2900 < entry["ttl_seconds"] < 2999


def test_what_was_written_meanwhile_stays_void(
    serve: Serve, client: Client, tmp_path: Path
) -> None:
    """A file is older than whatever was voided since carom's start."""
    carom, file = serve("--app", "services:told"), tmp_path / "replies"
    for request in (b"count a", b"count b"):
        client.ask(request)
    told(carom, "save", file)
    after = begun_anew(carom, serve)
    client.ask(b"invalidate count a")
    became = told(after, "load", file)
    assert (became["stored"], became["written"]) == (1, 1)
    before = after.counters()
    assert client.ask(b"count b") == b"count b: 1"
    assert client.ask(b"count a") == b"count a: 1"
    after.expect(before, hit=1, miss=1, fills=1, replies=1)
    client.ask(b"invalidate count b")
    assert told(after, "load", file)["written"] == 2


def test_after_a_flush(serve: Serve, client: Client, tmp_path: Path) -> None:
    """Who empties the cache by hand may fill it by hand."""
    carom, file = serve("--app", "services:told"), tmp_path / "replies"
    client.ask(b"count a")
    told(carom, "save", file)
    run(carom.namespace, "cache", "flush", "--pid", str(carom.pid))
    assert told(carom, "save", tmp_path / "none")["saved"] == 0
    assert told(carom, "load", file)["stored"] == 1
    before = carom.counters()
    assert client.ask(b"count a") == b"count a: 1"
    carom.expect(before, hit=1)


def test_no_more_than_there_is_room_for(serve: Serve, client: Client, tmp_path: Path) -> None:
    carom, file = serve("--app", "services:told"), tmp_path / "replies"
    for n in range(20):
        client.ask(b"count %d" % n)
    told(carom, "save", file)
    after = begun_anew(carom, serve, "--policy", "fcfs", "--capacity", "8")
    became = told(after, "load", file)
    assert (became["stored"], became["no_room"]) == (8, 12)
    assert after.status()["cache"]["entries"] == 8


def test_a_loop_ends_also_by_restored_replies(serve: Serve, client: Client, tmp_path: Path) -> None:
    """Each reply is the other's request: a host that sends back what it gets would have no rest."""
    carom, file = serve("--app", "services:backwards", "--echoes", "4"), tmp_path / "replies"
    for request in (b"abc", b"cba"):
        client.ask(request)
    told(carom, "save", file)
    carom.stop()
    after = serve("--app", "services:backwards", "--echoes", "4")
    assert told(after, "load", file)["stored"] == 2
    answered = sum(client.answered(request) for request in (b"abc", b"cba") for _ in range(8))
    dropped = after.counters().get("drop_loop", 0)
    assert dropped == 16 - answered >= 2


def test_kv(serve: Serve, straight: Line, tmp_path: Path) -> None:
    put, get = kv.Command(b"PUT", 7, 55).encode(), kv.Command(b"GET", 7).encode()
    carom, file = serve("--app", "kv"), tmp_path / "replies"
    with Client(straight.client, straight.address, kv.PORT) as client:
        client.send(put)
        # A write that nobody acknowledges holds fills back for a moment.
        until(lambda: client.answered(get) and told(carom, "save", file)["saved"], "a fill")
        carom.stop()
        after = serve("--app", "kv")
        assert not client.answered(get)  # the server has no value any more
        assert told(after, "load", file)["stored"] == 1
        before = after.counters()
        assert client.ask(get) == b"55"
        after.expect(before, hit=1)
        client.send(put)
        client.until_answered(get)
        assert told(after, "load", file)["written"] == 1


FRONT = ("--protocol", "memcached", "--hook", "tc")
GOOD = '{"carom_cache":1,"protocol":"raw","saved":0}\n'
ENTRY = '{"key":"YQ==","reply":"Yg==","until":9e9,"loops":false}\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "truncated"),
        ("\n", "truncated"),
        ("no JSON\n", "malformed"),
        ("\0" * 100_000, "malformed"),
        (GOOD.replace("1", "2", 1) + ENTRY, "of format 2, and this carom reads 1"),
        (GOOD.replace('"raw"', "7"), "Expected `str`"),
        (GOOD.replace("raw", "kv") + ENTRY, "of kv, and the service speaks raw"),
        (GOOD + ENTRY + ENTRY[:20], ":3: "),
        (GOOD + ENTRY.replace("YQ==", "Y"), ":2: "),
        (GOOD + ENTRY.replace("YQ==", "not base64"), ":2: "),
        (GOOD + ENTRY.replace("9e9", '"soon"'), "Expected `float`"),
        (GOOD + ENTRY.replace("9e9", "null"), "Expected `float`"),
        (GOOD + ENTRY.replace("YQ==", "A" * 400), "more than 260 bytes"),
        (GOOD + ENTRY.replace("Yg==", "A" * 4000), "more than 1472 bytes"),
        (GOOD + ENTRY.replace("Yg==", "A" * 40_000), ":2: "),
        (GOOD + ENTRY.replace('"loops"', '"loop"'), "unknown field `loop`"),
        (GOOD + ENTRY + ENTRY.replace("YQ==", ""), "no key"),
    ],
)
def test_damaged_files_are_refused_whole(
    told_carom: Carom, tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "damaged"
    file.write_text(text)
    done = cache(told_carom, "load", file)
    assert done.code == (1 if "speaks" in said else 2), done.stdout
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert told_carom.status()["cache"]["entries"] == 0


@pytest.fixture(scope="module")
def told_carom(straight: Line) -> Iterator[Carom]:
    """At TC, where others may be beside it."""
    with Carom(straight.server, "--app", "services:told", "--hook", "tc") as carom:
        yield carom


@pytest.mark.parametrize("word", ["save", "load"])
def test_what_is_no_file(told_carom: Carom, tmp_path: Path, word: str) -> None:
    for path in (tmp_path / "there" / "is" / "none", tmp_path):
        done = cache(told_carom, word, path)
        assert done.code == 2
        assert str(path) in done.stderr.replace("\n", "")
    assert not list(tmp_path.iterdir())


def test_a_fronted_server_has_replies_of_its_own(straight: Line, tmp_path: Path) -> None:
    with (
        Memcached(straight.server),
        Carom(straight.server, *FRONT, command="front") as carom,
    ):
        done = cache(carom, "save", tmp_path / "replies")
        assert done.code == 1
        assert "learned from its server" in done.stderr
    assert not list(tmp_path.iterdir())
