# SPDX-License-Identifier: Apache-2.0
"""The closed-loop client against a server on loopback that misbehaves as told."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import pytest

from carom.errors import ExperimentError, UsageError
from carom.lab.clients.ping import Broken, Options, Ping, ping
from carom.lab.clients.requests import Plan

LOOPBACK = "127.0.0.1"
UDP_SEGMENT = 103  # linux/udp.h
Behave = Callable[[socket.socket, int, bytes, tuple[str, int]], None]
"""What the server does with its nth request."""


@contextmanager
def server(behave: Behave) -> Iterator[int]:
    """A UDP server on a port of its own, which is given."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind((LOOPBACK, 0))
        udp.settimeout(0.05)
        stopping = threading.Event()

        def run() -> None:
            count = 0
            while not stopping.is_set():
                try:
                    request, client = udp.recvfrom(65_535)
                except TimeoutError:
                    continue
                except OSError:  # `behave` closed it
                    return
                behave(udp, count, request, client)
                count += 1

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield udp.getsockname()[1]
        finally:
            stopping.set()
            thread.join()


def echo(udp: socket.socket, _: int, request: bytes, client: tuple[str, int]) -> None:
    udp.sendto(request, client)


def ask(behave: Behave, plan: Plan | None = None, **options: object) -> Ping:
    with server(behave) as port:
        given = Options(**{"count": 50, "timeout": 2, **options})  # type: ignore[arg-type]
        return ping(LOOPBACK, port, plan or Plan(keys=4), given, lambda request: request)


def tallies(result: Ping) -> tuple[int, int, int, int, int, int]:
    trips = result.round_trips
    return (result.sent, trips.count, trips.lost, trips.duplicated, trips.reordered, trips.wrong)


@pytest.mark.parametrize("wait", ["block", "spin"])
def test_all_is_well(wait: Literal["block", "spin"]) -> None:
    result = ask(echo, wait=wait)
    assert tallies(result) == (50, 50, 0, 0, 0, 0)
    assert result.complete
    assert 0 < result.round_trips.minimum <= result.round_trips.p50 <= result.round_trips.maximum
    assert result.round_trips.corrected is None


@pytest.mark.parametrize("wait", ["block", "spin"])
def test_a_request_without_a_reply_is_lost(wait: Literal["block", "spin"]) -> None:
    def deaf_once(udp: socket.socket, n: int, request: bytes, client: tuple[str, int]) -> None:
        if n != 10:
            echo(udp, n, request, client)

    assert tallies(ask(deaf_once, wait=wait)) == (50, 49, 1, 0, 0, 0)


def test_duplicates_are_not_taken_for_the_next_reply() -> None:
    def twice(udp: socket.socket, n: int, request: bytes, client: tuple[str, int]) -> None:
        udp.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, len(request))  # both by one call
        udp.sendto(2 * request, client)

    result = ask(twice, Plan(keys=50, draw="sequential"), rate=100.0)
    assert result.round_trips.duplicated >= 49
    assert (result.round_trips.count, result.round_trips.wrong) == (50, 0)


def test_a_late_reply_is_reordered_and_never_the_next_ones() -> None:
    late: list[tuple[bytes, tuple[str, int]]] = []

    def late_once(udp: socket.socket, n: int, request: bytes, client: tuple[str, int]) -> None:
        if n == 10:
            late.append((request, client))
            return
        if n == 12:
            udp.sendto(*late.pop())
        echo(udp, n, request, client)

    result = ask(late_once, Plan(keys=1))
    assert tallies(result) == (50, 49, 0, 0, 1, 0)


def test_other_bytes_are_wrong_and_no_sample() -> None:
    def lie_once(udp: socket.socket, n: int, request: bytes, client: tuple[str, int]) -> None:
        udp.sendto(b"no" if n == 10 else request, client)

    assert tallies(ask(lie_once)) == (50, 49, 0, 0, 0, 1)


def test_a_stall_shows_in_the_corrected_times_of_a_paced_run() -> None:
    def stall_once(udp: socket.socket, n: int, request: bytes, client: tuple[str, int]) -> None:
        if n == 10:
            time.sleep(1)
        echo(udp, n, request, client)

    trips = ask(stall_once, rate=1000.0).round_trips
    assert trips.corrected
    slow = 200e6  # the requests that were due during the stall waited for it too
    assert trips.p90 < slow < trips.corrected.p90


def test_hot_requests_are_sent_in_whole_blocks() -> None:
    plan = Plan(size=(1, 1), keys=8, hot=3, hot_share=0.375)
    result = ask(echo, plan, count=41)
    assert (result.sent, result.hot) == (80, 30)


def test_nobody_listens() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind((LOOPBACK, 0))
        port = udp.getsockname()[1]
    with pytest.raises(ExperimentError, match=f"nothing listens on {LOOPBACK} port {port}"):
        ping(LOOPBACK, port, Plan(), Options(count=3))


def test_a_server_that_ends() -> None:
    """What was measured until then is there, and nothing is called complete."""

    def behave(udp: socket.socket, count: int, request: bytes, client: tuple[str, int]) -> None:
        udp.sendto(request, client)
        if count == 9:
            udp.close()

    with pytest.raises(Broken, match="any more") as raised:
        ask(behave, count=50)
    result = raised.value.result
    # The end is told by the answer to the first request that comes after it, or to the next.
    assert (result.round_trips.count, result.complete) == (10, False)
    assert result.sent in (11, 12)


def test_ipv6() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp:
        udp.bind(("::1", 0))
        udp.settimeout(5)
        thread = threading.Thread(target=lambda: udp.sendto(*udp.recvfrom(100)))
        thread.start()
        port = udp.getsockname()[1]
        result = ping("::1", port, Plan(), Options(count=1), lambda request: request)
        thread.join()
    assert result.round_trips.count == 1


@pytest.mark.parametrize(
    "options", [Options(count=0), Options(timeout=0), Options(rate=-1), Options(seconds=-1.0)]
)
def test_options_that_cannot_be(options: Options) -> None:
    with pytest.raises(UsageError):
        ping(LOOPBACK, 9, Plan(), options)
