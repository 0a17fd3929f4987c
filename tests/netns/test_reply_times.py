# SPDX-License-Identifier: Apache-2.0
"""How long servers take: of one request in 32, from its coming to its reply's leaving."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from carom.kernel.abi import SAMPLED, TIMES
from netns import memcache
from netns.line import Line
from netns.memcache import Memcached, TCPClient, UDPClient
from netns.process import Carom
from netns.services import sized_request
from netns.test_metrics import one, samples, told
from netns.wire import Client

ROUNDS, WAIT = 10, 0.05
CPUS = os.cpu_count() or 1
ASKED = ROUNDS * SAMPLED


def times_of(carom: Carom) -> dict[str, Any]:
    (service,) = carom.status()["services"]
    return dict(service["reply_times"])


def check_sum(times: dict[str, Any]) -> None:
    """The sum is what the counts allow it to be."""
    most = sum(count * 2**bits for bits, count in enumerate(times["counts"])) / 1e6
    least = sum(count * 2**bits // 2 for bits, count in enumerate(times["counts"])) / 1e6
    assert least <= times["sum_seconds"] < most


def test_a_python_server(own_line: Line) -> None:
    """It works for 2 ms on each: none is shorter, and hits are not among them."""
    with (
        Carom(own_line.server, "--app", "services:sized", "--work", "2ms") as carom,
        Client(own_line.client, own_line.address) as client,
    ):
        for number in range(ASKED):
            client.ask(sized_request(8, 20 + number // 256) + number.to_bytes(2, "big"))
        times = times_of(carom)
        timed = sum(times["counts"])
        assert (times["one_in"], len(times["counts"])) == (SAMPLED, TIMES)
        assert 1 <= timed <= ROUNDS + 1
        check_sum(times)
        assert sum(times["counts"][:11]) == 0  # less than 1,024 us
        assert times["sum_seconds"] >= 0.002 * timed
        for _ in range(2 * SAMPLED):
            client.ask(sized_request(8, 20) + bytes(2))
        assert times_of(carom) == times
        text = told("--pid", str(carom.pid)).stdout
        where = {"address": "0.0.0.0", "port": "51141"}
        assert one(text, "carom_reply_time_seconds_count", **where) == timed
        assert one(text, "carom_reply_time_seconds_sum", **where) == times["sum_seconds"]
        assert one(text, "carom_reply_time_seconds_bucket", le="+Inf", **where) == timed
        buckets = {
            float(dict(labels)["le"]): value
            for (name, labels), value in samples(text).items()
            if name == "carom_reply_time_seconds_bucket"
        }
        assert [buckets[le] for le in sorted(buckets)] == sorted(buckets.values())
        assert buckets[0.001024] == 0 and buckets[16.777216] <= timed


@pytest.mark.parametrize("known", [True, False])
def test_a_fronted_server(own_line: Line, known: bool) -> None:
    """Also where what it says is not kept: that a key is absent."""
    with (
        Memcached(own_line.server) as memcached,
        Carom(own_line.server, "--mode", "generic", command="front") as carom,
        TCPClient(own_line.client, own_line.address) as tcp,
        UDPClient(own_line.client, own_line.address) as udp,
    ):
        keys = [b"key%d" % number for number in range(ASKED)]
        for key in keys if known else ():
            tcp.set(key, b"value")
        for key in keys:
            assert udp.get(key) == (b"value" if known else None)
        before = times_of(carom)
        timed = sum(before["counts"])
        assert ROUNDS <= timed <= ROUNDS + CPUS
        check_sum(before)
        memcached.stop()
        asked = [
            udp.send(b"get slow%d\r\n" % number)
            for number in range(CPUS * SAMPLED)  # one of them at least is timed
        ]
        time.sleep(WAIT)
        assert times_of(carom) == before  # no reply, no time
        memcached.go_on()
        for number in asked:
            udp.receive(number)
        after = times_of(carom)
        grown = [new - old for new, old in zip(after["counts"], before["counts"], strict=True)]
        assert sum(grown[:16]) == 0 < sum(grown)  # none of less than 32,768 us
        assert after["sum_seconds"] - before["sum_seconds"] >= WAIT * sum(grown)
        check_sum(after)


def test_whose_reply_it_is_has_to_be_known(own_line: Line) -> None:
    """Requests of one client, port and id that wait at once are not timed: a later one may be the
    first once more, or another."""
    with (
        Memcached(own_line.server) as memcached,
        Carom(own_line.server, "--mode", "generic", command="front") as carom,
        Client(own_line.client, own_line.address, memcache.PORT) as client,
    ):
        memcached.stop()
        for number in range(CPUS * SAMPLED):
            for _ in range(3):  # the one to be timed is each of them in turn
                client.send(number.to_bytes(2, "big") + b"\0\0\0\1\0\0get absent\r\n")
        memcached.go_on()
        for _ in range(3 * CPUS * SAMPLED):
            client.receive()
        assert sum(times_of(carom)["counts"]) == 0
