# SPDX-License-Identifier: Apache-2.0
"""Options are checked once, and a wrong one is named."""

from __future__ import annotations

import pytest

from carom import Reply, Service
from carom.daemon.options import options_of
from carom.daemon.udp_server import UserspaceCache, as_reply
from carom.errors import ServerError, UsageError
from carom.settings import seconds


@pytest.mark.parametrize(
    ("text", "value"),
    [("2ms", 0.002), ("500us", 0.0005), ("1.5s", 1.5), ("10m", 600), ("1h", 3600), ("7", 7)],
)
def test_durations(text: str, value: float) -> None:
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "ms", "-1s", "2 days", "1e9", "2msx"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="duration"):
        seconds(text)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"port": 0}, "port"),
        ({"port": 65_536}, "port"),
        ({"port": "x"}, "port"),
        ({"port": 1, "capacity": 0}, "capacity"),
        ({"port": 1, "ttl": 0}, "ttl"),
        ({"port": 1, "work": -1}, "work"),
        ({"port": 1, "bind": "example"}, "bind"),
        ({"port": 1, "bind": "224.0.0.1"}, "multicast"),
        ({"port": 1, "protocol": "ftp"}, "protocol"),
        ({"port": 1, "mode": "turbo"}, "mode"),
        ({"port": 1, "admit": "third"}, "admit"),
        ({"port": 1, "admit": "second", "policy": "fcfs"}, "admit second"),
        ({"port": 1, "colour": "red"}, "colour"),
    ],
)
def test_a_wrong_option_is_named(values: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        options_of(values)


@pytest.mark.parametrize(
    ("values", "admission"),
    [
        ({}, "second"),
        ({"policy": "fcfs"}, "always"),
        ({"admit": "always"}, "always"),
        ({"admit": "second"}, "second"),
        ({"admit": "always", "policy": "fcfs"}, "always"),
    ],
)
def test_what_is_admitted(values: dict[str, object], admission: str) -> None:
    assert options_of({"port": 1, **values}).admission() == admission


def test_a_service_needs_a_handler_and_runs_before_it_invalidates() -> None:
    service = Service(51141)
    with pytest.raises(UsageError, match="handler"):
        service.run(hook="none")
    with pytest.raises(ServerError, match="does not run"):
        service.invalidate(b"x")


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (None, None),
        (b"x", Reply(b"x")),
        (bytearray(b"x"), Reply(b"x")),
        (memoryview(b"x"), Reply(b"x")),
        (Reply(b"x", cache=False), Reply(b"x", cache=False)),
        (Reply(b"x", ttl=5), Reply(b"x", ttl=5)),
        (Reply(b"x", ttl=0), Reply(b"x", ttl=0, cache=False)),
    ],
)
def test_what_a_handler_may_return(reply: object, expected: Reply | None) -> None:
    assert as_reply(reply) == expected


@pytest.mark.parametrize("reply", ["text", 7, ["x"], Reply("text")])  # type: ignore[arg-type]
def test_what_a_handler_may_not_return(reply: object) -> None:
    with pytest.raises(TypeError, match="bytes"):
        as_reply(reply)


def test_the_userspace_cache_keeps_what_came_first() -> None:
    asked: list[bytes] = []

    def handler(request: bytes) -> bytes:
        asked.append(request)
        return request * 2

    cache = UserspaceCache(2, ttl=60)
    answer = cache.around(handler)
    for request in (b"a", b"b", b"c", b"a", b"b", b"c"):
        found = as_reply(answer(request))
        assert found
        assert found.data == request * 2
    assert asked == [b"a", b"b", b"c", b"c"]
    assert (cache.hits, cache.misses) == (2, 4)
    assert cache.drop(b"a")
    assert not cache.drop(b"a")
    answer(b"c")
    answer(b"c")
    assert asked[4:] == [b"c"]
    assert cache.flush() == 2


@pytest.mark.parametrize("take_back", ["drop", "flush"])
def test_the_userspace_cache_keeps_nothing_that_was_taken_back_while_it_was_made(
    take_back: str,
) -> None:
    cache = UserspaceCache(2, ttl=60)
    state = [b"old"]

    def handler(_: bytes) -> bytes:
        read = state[0]
        if read == b"old":  # written by another thread before this one is done
            state[0] = b"new"
            cache.drop(b"a") if take_back == "drop" else cache.flush()
        return read

    answer = cache.around(handler)
    assert [as_reply(answer(b"a")) for _ in range(3)] == [Reply(b"old"), *[Reply(b"new")] * 2]
    assert (cache.hits, cache.misses) == (1, 2)


def test_the_userspace_cache_forgets_what_has_expired() -> None:
    replies = iter([Reply(b"1", ttl=0.0001), Reply(b"2", cache=False), Reply(b"3")])
    cache = UserspaceCache(1, ttl=60)
    answer = cache.around(lambda _: next(replies))
    assert [as_reply(answer(b"a")).data for _ in range(1)] == [b"1"]  # type: ignore[union-attr]
    while cache.misses < 3:  # a hit is possible until the first has expired
        answer(b"a")
    assert answer(b"a") == b"3"
