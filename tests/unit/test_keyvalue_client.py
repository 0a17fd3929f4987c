# SPDX-License-Identifier: Apache-2.0
"""The key-value client on loopback: against the real store and server, and against worse."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from carom.daemon.udp_server import UDPServer
from carom.errors import ExperimentError, UsageError
from carom.lab.clients import keyvalue as keyvalue_client
from carom.lab.clients.behaviours import Choice, Step
from carom.lab.clients.keyvalue import LAG, Client, Options, Pacer, Result, run
from carom.protocols.kv.store import KeyValueStore

LOOPBACK = "127.0.0.1"
DEADLINE = 60.0
"""Seconds after which a test gives up on what it waits for; nothing is measured by it."""

Handler = Callable[[bytes], bytes | None]


def bound() -> socket.socket:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((LOOPBACK, 0))
    return udp


@contextmanager
def serving(handler: Handler) -> Iterator[int]:
    """carom's own server on a port of its own, which is given."""
    with bound() as udp:
        server = UDPServer(udp, handler, None)
        thread = threading.Thread(target=server.run_until_stopped, args=("block",))
        thread.start()
        try:
            yield udp.getsockname()[1]
        finally:
            server.stop()
            thread.join()


class Told:
    """A handler, and what it was asked; `silent` once it has left a GET without a reply."""

    def __init__(self, handler: Handler):
        self._handler = handler
        self.requests: list[bytes] = []
        self.silent = threading.Event()

    def __call__(self, request: bytes) -> bytes | None:
        self.requests.append(request)
        reply = self._handler(request)
        if reply is None and request.startswith(b"GET"):
            self.silent.set()
        return reply

    def heard(self, count: int) -> None:
        """Wait until it was asked so often."""
        end = time.monotonic() + DEADLINE
        while len(self.requests) < count:
            assert time.monotonic() < end, self.requests
            time.sleep(0.001)


class Patient:
    """Polls for a reply until it is there, or the server has chosen not to give one.

    So no test hangs on how long the machine takes.
    """

    def __init__(self, poll: select.poll, silent: threading.Event):
        self._poll = poll
        self._silent = silent

    def poll(self, milliseconds: float) -> list[tuple[int, int]]:
        end = time.monotonic() + (DEADLINE if milliseconds else 0)
        while not (found := self._poll.poll(1 if milliseconds else 0)):
            if time.monotonic() >= end or self._silent.is_set():
                break
        self._silent.clear()
        return found


def patiently(port: int, told: Told, choice: Choice) -> Result:
    with closing(Client(LOOPBACK, port, Options(patience=DEADLINE))) as client:
        client._poll = Patient(client._poll, told.silent)  # type: ignore[assignment]
        return client.run(choice)


def model(requests: list[bytes]) -> tuple[list[int | None], dict[int, int]]:
    """What the store is to reply to each GET and to hold at the end: another reading of the paper,
    which shares nothing with protocols/kv.
    """
    values: dict[int, int] = {}
    replies: list[int | None] = []
    for request in requests:
        if request[:3] == b"PUT" and len(request) == 15:
            key = int.from_bytes(request[3:7], "little")
            added = int.from_bytes(request[7:], "little", signed=True)
            values[key] = values.get(key, 0) + added
        elif request[:3] == b"GET" and len(request) == 7:
            replies.append(values.get(int.from_bytes(request[3:], "little")))
        elif request[:6] == b"DELETE" and len(request) == 10:
            values.pop(int.from_bytes(request[6:], "little"), None)
    return replies, values


SIF = dict.fromkeys([4660, 2, 4, 6, 8, 12, 14, 16, 18, 20], 10)

# So few packets that all of them fit into the server's receive buffer: none can be lost.
RUNS: list[tuple[Choice, list[int | None], dict[int, int], int, int]] = [
    (Choice(name="thor"), [], {10: 14}, 9, 0),
    (Choice(name="odin"), [7, 14], {10: 14}, 11, 0),
    (Choice(name="loki", packets=20), [7, 14], {10: 14}, 11, 20),
    (Choice(name="loki", packets=20, equal_length=True), [7, 14], {10: 14}, 11, 20),
    (Choice(name="njord"), [7, 7], {}, 17, 0),
    (Choice(name="sylvie", packets=50), [], {10: 50}, 51, 0),
    (Choice(name="sif"), [None, 10, 10, 10, None], SIF, 18, 0),
    (Choice(name="frey", packets=51, percent=33), [34], {10: 34}, 36, 17),
    (Choice(name="frigg", packets=111, percent=25), [83], {10: 83}, 84, 28),
    (Choice(name="stop"), [], {}, 1, 0),
    (Choice(name="getstop"), [None], {}, 2, 0),
]


@pytest.mark.parametrize(
    ("choice", "replies", "left", "valid", "invalid"), RUNS, ids=[run[0].name for run in RUNS]
)
def test_every_behaviour_against_the_store(
    choice: Choice,
    replies: list[int | None],
    left: dict[int, int],
    valid: int,
    invalid: int,
) -> None:
    store = KeyValueStore()
    told = Told(store.handle)
    with serving(told) as port:
        result = patiently(port, told, choice)
        told.heard(valid + invalid)
    assert (result.sent_valid, result.sent_invalid) == (valid, invalid)
    assert (result.refused, result.late, result.complete) == (0, 0, True)
    assert told.requests == [step.payload for step in choice.steps() for _ in range(step.times)]
    assert result.sent_puts == sum(request.startswith(b"PUT") for request in told.requests)
    assert result.values == replies
    assert store.values == left
    assert store.invalid == invalid
    assert model(told.requests) == (replies, left)


def test_over_ipv6() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp:
        try:
            udp.bind(("::1", 0))
        except OSError as error:
            pytest.skip(f"no IPv6 here: {error.strerror}")
        assert run("::1", udp.getsockname()[1], Choice(name="stop")).sent_valid == 1
        assert udp.recv(99) == b"STOP"


def test_a_get_without_a_reply_waits_its_patience() -> None:
    with bound() as udp:
        began = time.monotonic()
        options = Options(patience=0.05)
        result = run(LOOPBACK, udp.getsockname()[1], Choice(name="odin"), options)
        assert time.monotonic() - began >= 2 * 0.05
    assert result.values == [None, None]
    assert result.seconds >= 2 * 0.05
    assert (result.sent_valid, result.refused, result.complete) == (11, 0, True)


def test_a_late_reply_is_not_the_next_ones() -> None:
    """It has come, before the next GET leaves: told in lockstep."""
    with bound() as udp, closing(Client(*udp.getsockname(), Options(patience=0))) as client:

        def tell(step: Step, reply: bytes | None) -> None:
            request, origin = udp.recvfrom(99)
            assert request == step.payload
            if step.word == "GET":
                assert reply is None
                udp.sendto(b"7", origin)

        result = client.run(Choice(name="sif"), tell)
    assert result.values == [None] * 5
    assert result.late == 5


@pytest.mark.parametrize("reply", [b"", b"GET\x0a\0\0\0", b"7\n", b"1_0", b"+7", b"9" * 5000])
def test_a_reply_that_is_no_number(reply: bytes) -> None:
    with (
        serving(lambda request: reply) as port,
        pytest.raises(ExperimentError, match="which is not a number"),
    ):
        run(LOOPBACK, port, Choice(name="getstop"), Options(patience=DEADLINE))


@pytest.mark.parametrize(("reply", "value"), [(b"-5", -5), (b"%d" % -(2**63), -(2**63))])
def test_a_negative_value(reply: bytes, value: int) -> None:
    with serving(lambda request: reply if request[:3] == b"GET" else None) as port:
        result = run(LOOPBACK, port, Choice(name="getstop"), Options(patience=DEADLINE))
    assert result.values == [value]


def test_nobody_there_is_counted() -> None:
    with bound() as udp:
        port = udp.getsockname()[1]
    result = run(LOOPBACK, port, Choice(name="frey", packets=100, percent=50))
    # On loopback the refusal of one packet is there before the next, which it keeps from being
    # sent: 50 of 100 are, and the GET, whose refusal comes while its reply is waited for, and the
    # STOP, whose refusal is found at the end.
    assert (result.sent_puts, result.sent_invalid, result.sent_valid) == (25, 25, 27)
    assert result.refused == 52
    assert (result.values, result.complete) == ([None], True)


def test_ctrl_c_between_packets_keeps_the_counts() -> None:
    with bound() as udp:

        def tell(step: Step, reply: bytes | None) -> None:
            if step.word == "BAD":
                raise KeyboardInterrupt

        result = run(*udp.getsockname(), Choice(name="loki", packets=7), tell=tell)
    assert (result.sent_valid, result.sent_invalid, result.values) == (5, 7, [None])
    assert (result.complete, result.refused) == (False, 0)
    assert result.seconds > 0


def test_ctrl_c_in_a_burst_keeps_the_counts() -> None:
    with bound() as udp, closing(Client(*udp.getsockname(), Options())) as client:
        real, sent = client._socket, []

        class Interrupted:
            def send(self, payload: bytes) -> int:
                sent.append(real.send(payload))
                if len(sent) == 40:
                    raise KeyboardInterrupt
                return sent[-1]

        client._socket = Interrupted()  # type: ignore[assignment]
        result = client.run(Choice(name="sylvie", packets=100))
        client._socket = real
    assert (result.sent_valid, result.sent_puts, result.complete) == (40, 40, False)


def test_a_burst_goes_on_after_a_refusal() -> None:
    with bound() as udp, closing(Client(*udp.getsockname(), Options())) as client:
        real, calls = client._socket, []

        class Refusing:
            def send(self, payload: bytes) -> int:
                calls.append(payload)
                if len(calls) in (1, 5, 6, 20):
                    raise ConnectionRefusedError(111, "Connection refused")
                return len(payload)

        client._socket = Refusing()  # type: ignore[assignment]
        result = client.run(Choice(name="sylvie", packets=19))
        client._socket = real
    assert len(calls) == 20
    assert (result.sent_puts, result.sent_valid, result.refused) == (16, 16, 4)


def test_a_send_that_fails_is_one_clear_error() -> None:
    with bound() as udp, closing(Client(*udp.getsockname(), Options())) as client:
        client._socket.close()
        with pytest.raises(ExperimentError, match="cannot send to"):
            client.run(Choice(name="thor"))


class Clock:
    """Time that passes only in sleeps, each `over` longer than asked, and by hand."""

    def __init__(self, over: float = 0.0):
        self.now = 1000.0
        self.over = over

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds + self.over


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(keyvalue_client, "time", clock)
    return clock


def go(pacer: Pacer, wanted: int) -> list[int]:
    """The bursts that so many packets are sent in."""
    bursts = []
    while wanted:
        bursts.append(pacer.take(wanted))
        assert 1 <= bursts[-1] <= wanted
        wanted -= bursts[-1]
    return bursts


def test_a_pacer_keeps_the_rate_on_average(clock: Clock) -> None:
    clock.over = 0.0005  # of a sleep: five packets' time
    pacer = Pacer(10_000)
    bursts = go(pacer, 9_999) + go(pacer, 2)
    assert sum(bursts) == 10_001
    assert 0.999 <= clock.now - 1000 <= 1.002
    assert max(bursts) <= 7


def test_a_slow_pacer_sends_one_by_one(clock: Clock) -> None:
    assert go(Pacer(4), 9) == [1] * 9
    assert clock.now - 1000 == 2.0


def test_a_pacer_makes_up_for_a_short_stall_only(clock: Clock) -> None:
    pacer = Pacer(1000)
    assert go(pacer, 10) == [1] * 10
    clock.now += 5
    assert pacer.take(9999) == pytest.approx(LAG * 1000 + 1, abs=1)
    clock.now += 0.005
    assert pacer.take(9999) == pytest.approx(5, abs=1)


def test_time_that_was_meant_to_pass_is_not_made_up(clock: Clock) -> None:
    pacer = Pacer(1000)
    assert go(pacer, 10) == [1] * 10
    clock.now += 0.008
    pacer.rest()
    assert pacer.take(9999) == 1


def test_the_wait_for_a_reply_is_not_made_up(clock: Clock) -> None:
    class Poll:
        def poll(self, milliseconds: float) -> list[tuple[int, int]]:
            clock.now += milliseconds / 1e3
            return []

    options = Options(rate=1000, patience=5)
    with bound() as udp, closing(Client(*udp.getsockname(), options)) as client:
        client._poll = Poll()  # type: ignore[assignment]
        result = client.run(Choice(name="odin"))
    # Four packets' time before each GET, and twice the patience.
    assert result.seconds == pytest.approx(4 * 0.001 + 5 + 4 * 0.001 + 5)


def test_no_rate_is_no_pacing(clock: Clock) -> None:
    assert Pacer(0).take(10**9) == 10**9
    assert clock.now == 1000


def test_a_paced_run_takes_its_time_and_no_cpu() -> None:
    with bound() as udp:
        cpu = time.thread_time()
        choice = Choice(name="sylvie", packets=100)
        result = run(*udp.getsockname(), choice, Options(rate=200))
        cpu = time.thread_time() - cpu
    assert result.seconds >= 100 / 200
    assert result.rate <= 101 / 0.5
    assert (result.asked, result.sent_valid) == (200, 101)
    assert cpu < 0.25


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(rate=-1), "rate -1"),
        (Options(rate=float("nan")), "rate nan"),
        (Options(rate=1e-9), "rate 1e-09"),
        (Options(rate=float("inf")), "rate inf"),
        (Options(patience=-1), "patience"),
        (Options(patience=float("nan")), "patience"),
    ],
)
def test_options_that_cannot_be(options: Options, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        run(LOOPBACK, 9, Choice(name="stop"), options)


# The command line.


def start(*argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "carom", "client", *argv],
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def carom_client(*argv: str) -> tuple[int, str, str]:
    with start(*argv) as process:
        stdout, stderr = process.communicate(timeout=DEADLINE)
    assert "Traceback" not in stderr
    return process.returncode, stdout, stderr


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["-b", "balder"], "there is no behaviour 'balder'\n  hint: there are thor, odin"),
        (["-b", "frey", "-p", "101"], "percent 101 is out of range\n  hint: 0 to 100"),
        (["-b", "frey", "-p", "-1"], "percent -1 is out of range"),
        (["-b", "frey", "-n", "-1"], "packets -1 is out of range\n  hint: 0 to"),
        (["-b", "frey", "-n", "99999999999"], "packets 99999999999 is out of range"),
        (["-b", "thor", "-n", "5"], "thor has no number of packets to choose\n  hint: these"),
        (["-b", "thor", "--rate", "0"], "'0' is not a rate\n  hint: "),
        (["-b", "thor", "--patience", "soon"], "'soon' is not a duration\n  hint: "),
        (["0", "-b", "thor"], "greater than or equal to 1"),
        ([], "--behaviour"),
    ],
)
def test_a_mistake_is_one_clear_message(argv: list[str], words: str) -> None:
    code, stdout, stderr = carom_client(LOOPBACK, *argv)
    assert (code, stdout) == (2, "")
    assert words in stderr


@pytest.mark.parametrize("address", ["nowhere.invalid", "", "a" * 70 + ".invalid"])
def test_an_address_that_is_none(address: str) -> None:
    code, stdout, stderr = carom_client(address, "-b", "stop")
    assert (code, stdout) == (2, "")
    assert "is no address" in stderr and "hint: " in stderr


def test_the_summary_and_each_step() -> None:
    with serving(KeyValueStore().handle) as port:
        code, stdout, stderr = carom_client(
            LOOPBACK, str(port), "-b", "frigg", "-n", "120", "-p", "10", "-v", "--patience", "60s"
        )
    assert code == 0, stderr
    assert stdout.startswith("frigg: 121 sent, 109 valid, 12 invalid, 0 refused, in ")
    assert stdout.endswith(" packets/s\nGET: 108\n")
    assert stderr.splitlines() == [
        "PUT 10 1 x 90",
        "BAD, 259 bytes x 10",
        "PUT 10 1 x 18",
        "BAD, 259 bytes x 2",
        "GET 10: 108",
    ]


def test_what_is_told_is_bounded() -> None:
    with bound() as udp:
        argv = ("-b", "frigg", "-n", "100000", "--equal-length", "-v")
        code, _, stderr = carom_client(LOOPBACK, str(udp.getsockname()[1]), *argv)
    lines = stderr.splitlines()
    assert code == 0
    assert len(lines) == 202
    assert lines[198:] == [
        "PUT 10 1 x 50", "BAD, 15 bytes x 50", "... and so on", "GET 10: nothing came",
    ]  # fmt: skip


def test_json() -> None:
    store = KeyValueStore()
    with serving(store.handle) as port:
        code, stdout, stderr = carom_client(
            LOOPBACK, str(port), "-b", "odin", "--rate", "2k", "--patience", "60s", "--json"
        )
    assert (code, stderr) == (0, "")
    result = json.loads(stdout)
    assert result.pop("seconds") > 0
    assert 0 < result.pop("rate") <= 11 / (8 / 2000)
    assert result == {
        "behaviour": "odin",
        "sent_valid": 11,
        "sent_puts": 8,
        "sent_invalid": 0,
        "refused": 0,
        "late": 0,
        "values": [7, 14],
        "asked": 2000.0,
        "complete": True,
    }


def test_nobody_there() -> None:
    with bound() as udp:
        port = str(udp.getsockname()[1])
    code, stdout, stderr = carom_client(LOOPBACK, port, "-b", "odin", "--json")
    assert code == 1
    assert json.loads(stdout)["refused"] > 0
    assert json.loads(stdout)["values"] == [None, None]
    assert f"nothing listens on 127.0.0.1 port {port}" in stderr and "hint: " in stderr


def test_ctrl_c_shows_what_was_done() -> None:
    told = Told(KeyValueStore().handle)
    with (
        serving(told) as port,
        start(LOOPBACK, str(port), "-b", "sylvie", "--rate", "100", "--json") as process,
    ):
        told.heard(3)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=DEADLINE)
        result = json.loads(stdout)
        told.heard(result["sent_puts"])
    assert "Traceback" not in stderr
    assert (process.returncode, result["complete"]) == (1, False)
    assert len(told.requests) == result["sent_puts"] == result["sent_valid"] >= 3
