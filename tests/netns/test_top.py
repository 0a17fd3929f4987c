# SPDX-License-Identifier: Apache-2.0
"""`carom top` beside running caroms: on a terminal, through a pipe, as JSON, and when they end."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pty
import re
import selectors
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netns.line import Line
from netns.process import CAROM, DEADLINE, INTERFACE, Carom, Ended, end_of, environment, until
from netns.services import PORT, sized_request
from netns.test_rights import limited
from netns.wire import Client

TOP = [*CAROM, "top"]
FAST = ("--interval", "0.2")
SIZE = struct.Struct("HHHH")  # struct winsize
ESCAPE = re.compile(r"\x1b\[[?\d;]*[A-Za-z]")


@pytest.fixture(scope="module")
def served(straight: Line) -> Iterator[Carom]:
    options = ("--mode", "generic", "--app", "services:sized", "--prefix-rate", "0")
    with Carom(straight.server, *options, "--total-rate", "0", "--ttl", "1h") as carom:
        yield carom


@pytest.fixture
def client(straight: Line) -> Iterator[Client]:
    with Client(straight.client, straight.address) as client:
        yield client


def started(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*TOP, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        **options,
    )


def told(*arguments: str) -> Ended:
    """`carom top` to its end."""
    return end_of(started(*arguments), DEADLINE)


@contextlib.contextmanager
def stream(*arguments: str) -> Iterator[Callable[[], dict[str, Any]]]:
    """The next look of `carom top --json`; Ctrl-C ends it, without a word."""
    with started("--json", *arguments) as process:
        assert process.stdout and process.stderr
        lines = process.stdout
        try:
            yield lambda: json.loads(lines.readline())
        finally:
            process.send_signal(signal.SIGINT)
            assert (process.wait(DEADLINE), process.stderr.read()) == (0, "")


@contextlib.contextmanager
def asked(client: Client, requests: list[bytes]) -> Iterator[None]:
    """Ask these over and over meanwhile."""
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            for request in requests:
                client.ask(request)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_what_was_asked(served: Carom, client: Client) -> None:
    """The sum of all intervals is what there was."""
    with stream("--pid", str(served.pid), *FAST) as look:
        look()
        before = served.counters()
        for _ in range(20):
            client.ask(sized_request(30, 41))
        packets, fills, verdicts = [0.0, 0.0], 0.0, {"hit": 0.0, "miss": 0.0}
        services = 0.0
        end = time.monotonic() + DEADLINE
        while round(packets[0]) < 19 and time.monotonic() < end:
            one = look()
            seconds = one["seconds"]
            packets[0] += one["packets"]["answered"] * seconds
            packets[1] += one["packets"]["missed"] * seconds
            fills += one["cache"]["fills"] * seconds
            for name in verdicts:
                verdicts[name] += one["verdicts"]["xdp"].get(name, 0) * seconds
            (service,) = one["services"]
            services += service["packets"]["answered"] * seconds
        served.expect(before, hit=19, miss=1, fills=1, replies=1)
    assert [round(count) for count in (*packets, fills, services)] == [19, 1, 1, 19]
    assert {name: round(count) for name, count in verdicts.items()} == {"hit": 19, "miss": 1}
    assert one["pid"] == served.pid and one["up"]
    assert 0 <= one["lease_age_seconds"] < 2


def test_once(served: Carom, client: Client) -> None:
    client.ask(sized_request(30, 42))
    with asked(client, [sized_request(30, 42)]):
        looks = iter(lambda: told("--once", "--pid", str(served.pid)), None)
        ended = next(look for look in looks if "hits -" not in look.stdout)
    assert (ended.code, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert len(lines) <= 24 and all(len(line) <= 80 for line in lines)
    assert f"carom {served.pid}, up " in lines[0] and "lease renewed" in lines[0]
    assert re.search(r"packets a second: [\d,.]+ answered, 0 missed", lines[1]), lines
    assert lines[2].startswith("hits 100.0%")
    assert any(line.split()[:2] == ["xdp", "hit"] for line in lines)
    assert any(line.startswith(f"{PORT} ") for line in lines)
    assert re.search(rf"{INTERFACE} +generic( +-){{4}} +generic XDP:", ended.stdout)
    assert "\x1b" not in ended.stdout
    once = told("--once", "--json", "--pid", str(served.pid))
    assert once.code == 0 and len(once.stdout.splitlines()) == 1


def test_letters_that_an_encoding_has_not(served: Carom) -> None:
    once = ["--once", "--pid", str(served.pid)]
    done = subprocess.run(
        [*TOP, *once], capture_output=True, text=True, env=environment(PYTHONIOENCODING="ascii")
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"carom {served.pid}") and done.stdout.isascii()


def test_a_pipe(served: Carom) -> None:
    """One look after the other, as text; whoever closes it ends it without a word."""
    with started("--pid", str(served.pid), *FAST) as process:
        assert process.stdout and process.stderr
        heads = 0
        while heads < 3:
            line = process.stdout.readline()
            assert line and "\x1b" not in line
            heads += line.startswith(f"carom {served.pid}, ")
        process.stdout.close()
        assert process.wait(DEADLINE) == 1
        assert process.stderr.read() == ""


class Terminal:
    """`carom top` on a terminal of its own."""

    def __init__(self, *arguments: str, columns: int = 80, lines: int = 24):
        self._master, own = pty.openpty()
        self.text = ""
        self.resize(columns, lines)
        self.process = subprocess.Popen(
            [*TOP, *arguments],
            stdin=own,
            stdout=own,
            stderr=own,
            start_new_session=True,
            env=self._environment(),
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(own)

    @staticmethod
    def _environment() -> dict[str, str]:
        """Without the size of another terminal, which readline(3) leaves in a process' own."""
        ours = environment(TERM="xterm-256color")
        return {name: value for name, value in ours.items() if name not in ("COLUMNS", "LINES")}

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, SIZE.pack(lines, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def read(self) -> bool:
        """Read what it shows, if there is more within a moment; False at its end."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._master, selectors.EVENT_READ)
            if not selector.select(0.1):
                return True
        try:
            data = os.read(self._master, 65_536)
        except OSError as error:
            assert error.errno == errno.EIO  # nobody has it open any more
            return False
        self.text += data.decode()
        return bool(data)

    def frames(self) -> list[list[str]]:
        """The lines of each frame, which begins at the upper left, without escapes."""
        shown = self.text.replace("\r", "").split("\x1b[H")[1:]
        frames = [ESCAPE.sub("", frame).split("\n") for frame in shown]
        return [frame for frame in frames if any(frame)]

    def until(self, true: Callable[[], object], what: str) -> None:
        until(lambda: self.read() and true(), what)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


def test_a_terminal(served: Carom) -> None:
    """In place of what was there, which comes back at its end; of the terminal's size at once."""
    with contextlib.closing(Terminal("--pid", str(served.pid), "--interval", "3600")) as slow:
        slow.until(lambda: "looking again: one moment" in slow.text, "the first frame")
        slow.resize(40, 12)
        slow.until(lambda: len(slow.frames()[-1]) == 12, "a frame of the new size")
    with contextlib.closing(Terminal("--pid", str(served.pid), *FAST)) as terminal:
        terminal.until(lambda: terminal.text.count(f"carom {served.pid}") >= 3, "looks")
        assert "\x1b[?1049h" in terminal.text and "\x1b[?1049l" not in terminal.text
        for frame in terminal.frames()[:-1]:  # the last may be half there
            assert len(frame) == 24 and all(len(line) <= 80 for line in frame)
        terminal.resize(100, 30)
        terminal.until(lambda: len(terminal.frames()[-1]) == 30, "a frame of the new size")
        terminal.type(b"\x03")
        until(lambda: not terminal.read(), "its end")
        assert terminal.process.wait(DEADLINE) == 0
        assert terminal.text.rindex("\x1b[?1049l") > terminal.text.rindex("\x1b[?1049h")
        assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")
        assert "Traceback" not in terminal.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_end_it_as_well(served: Carom, number: signal.Signals) -> None:
    with contextlib.closing(Terminal("--pid", str(served.pid), *FAST)) as terminal:
        terminal.until(lambda: f"carom {served.pid}" in terminal.text, "a look")
        terminal.process.send_signal(number)
        until(lambda: not terminal.read(), "its end")
        assert terminal.process.wait(DEADLINE) == 0
        assert terminal.text.rindex("\x1b[?1049l") > terminal.text.rindex("\x1b[?1049h")


def test_a_carom_that_ends_and_comes_back(
    own_line: Line, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It says so, and goes on with the next one, from nothing."""
    monkeypatch.setenv("CAROM_RUN", str(tmp_path))
    options = ("--mode", "generic", "--fast", "bounce")
    with contextlib.ExitStack() as stack:
        with (
            Carom(own_line.server, *options) as first,
            Client(own_line.client, own_line.address) as client,
        ):
            for _ in range(5):
                assert client.ask(b"here") == b"here"
            look = stack.enter_context(stream(*FAST))
            assert look()["pid"] == first.pid
            shown = stack.enter_context(contextlib.closing(Terminal(*FAST)))
            shown.until(lambda: f"carom {first.pid}, up" in shown.text, "a look")
        gone = next(one for one in iter(look, None) if not one["up"])
        assert "no carom of this user is running here" in gone["why"]
        shown.until(lambda: "looking again: no carom of this user" in shown.text, "that it is gone")
        with (
            Carom(own_line.server, *options) as second,
            Client(own_line.client, own_line.address) as client,
        ):
            again = next(one for one in iter(look, None) if one["up"])
            assert again["pid"] == second.pid
            assert client.ask(b"there") == b"there"
            found = next(one for one in iter(look, None) if one["packets"]["answered"])
            assert found["packets"]["answered"] * found["seconds"] == pytest.approx(1)
            shown.until(lambda: f"carom {second.pid}, up" in shown.text, "the next one")


def test_one_that_hangs(served: Carom) -> None:
    with stream("--pid", str(served.pid), *FAST) as look:
        assert look()["up"]
        served.signal(signal.SIGSTOP)
        try:
            hung = next(one for one in iter(look, None) if not one["up"])
            assert f"carom {served.pid} does not answer" in hung["why"]
        finally:
            served.signal(signal.SIGCONT)
        assert next(one for one in iter(look, None) if one["up"])["pid"] == served.pid


def is_untimed(carom: Carom, client: Client) -> bool:
    """Whether the kernel took no time of a program that ran; another process may have it do so."""

    def runs() -> int:
        return int(carom.status()["programs"]["xdp"]["runs"])

    before = runs()
    client.ask(sized_request(30, 43))
    return runs() == before


def test_what_programs_cost(straight: Line, served: Carom, client: Client) -> None:
    """Only while it is asked for."""
    until(lambda: is_untimed(served, client), "nobody to time programs")
    with (
        Client(straight.client, straight.address) as other,
        asked(other, [sized_request(30, 43)]),
        stream("--cost", "--pid", str(served.pid), *FAST) as look,
    ):
        one = next(one["programs"]["xdp"] for one in iter(look, None) if one["programs"])
        assert one["runs"] > 0 and one["nanoseconds"] > 1
        assert one["cpu"] == pytest.approx(one["runs"] * one["nanoseconds"] / 1e9)
    until(lambda: is_untimed(served, client), "it to time programs no more")


def test_the_kernel_times_no_more_when_it_is_killed(served: Carom, client: Client) -> None:
    with started("--json", "--cost", "--pid", str(served.pid), *FAST) as process:
        assert process.stdout
        process.stdout.readline()
        assert not is_untimed(served, client)
        process.kill()
        process.wait()
    until(lambda: is_untimed(served, client), "the kernel to time programs no more")


def test_keys(served: Carom, client: Client) -> None:
    """Those that are hit most come first, and hostile ones harm no terminal."""
    hot = b"\0\x08\x1b[2J[/x]<b>\xff"
    cold = [b"\0\x08" + bytes([number]) * 250 for number in range(3)]
    sums = dict.fromkeys((key.hex() for key in (hot, *cold)), 0.0)

    def is_ahead() -> bool:
        """In all that was seen so far: one look may see few hits where others take the CPUs."""
        for one in stream_of(served)()["keys"]:
            assert one["port"] == PORT
            sums[one["key"]] += one["hits_per_second"]
        first, second = sorted(sums, key=lambda key: -sums[key])[:2]
        return first == hot.hex() and sums[first] > 5 * sums[second] > 0

    def is_shown() -> bool:
        text = told("--once", "--keys", "9", "--pid", str(served.pid)).stdout
        assert "\x1b" not in text and all(len(line) <= 80 for line in text.splitlines())
        return f"0x{hot.hex()}" in text

    with asked(client, [hot] * 30 + cold):
        until(is_ahead, "the key that is asked for 30 times as often to come first")
        until(is_shown, "it to be among those that are shown")


def stream_of(carom: Carom) -> Callable[[], dict[str, Any]]:
    """Looks with keys, each of a process of its own."""
    return lambda: json.loads(
        told("--once", "--json", "--keys", "4", "--pid", str(carom.pid)).stdout
    )


def test_nothing_is_changed_by_looking_at_keys(served: Carom, client: Client) -> None:
    """All that was in the cache is there, and is hit."""
    requests = [sized_request(20, 60 + number) for number in range(50)]
    for request in requests:
        client.ask(request)
    before, entries = served.counters(), served.status()["cache"]["entries"]
    with asked(client, requests):
        for _ in range(3):
            stream_of(served)()
    assert served.status()["cache"]["entries"] == entries
    assert set(served.since(before)) == {"hit"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--port", "9"), 2, f"no service on port 9\n  hint: --port takes one of {PORT}"),
        (("--pid", "1"), 1, "carom 1 does not answer"),
        (("--interval", "0"), 2, "greater than or equal to 0.1"),
        (("--interval", "nan"), 2, ""),
        (("--keys", "-1"), 2, "greater than or equal to 0"),
        (("once",), 2, "unexpected extra argument"),
    ],
)
def test_wrong_arguments(served: Carom, arguments: tuple[str, ...], code: int, words: str) -> None:
    pid = () if "--pid" in arguments else ("--pid", str(served.pid))
    ended = told(*arguments, *pid)
    assert (ended.code, ended.stdout) == (code, ""), ended
    assert words in ended.stderr and "Traceback" not in ended.stderr, ended


def test_without_a_carom(tmp_path: Path) -> None:
    process = subprocess.run(
        TOP, capture_output=True, text=True, env=environment(CAROM_RUN=str(tmp_path))
    )
    assert (process.returncode, process.stdout) == (1, "")
    assert "no carom of this user is running here" in process.stderr


def test_who_may_not_time_programs(served: Carom) -> None:
    """He is told, and may look at all else."""
    may_not = [*limited("dac_override"), *TOP, "--once", "--pid", str(served.pid)]
    process = subprocess.run([*may_not, "--cost"], capture_output=True, text=True)
    assert process.returncode == 1 and "not allowed to time programs" in process.stderr
    assert subprocess.run(may_not, capture_output=True).returncode == 0


def test_a_service_of_several(own_line: Line, tmp_path: Path) -> None:
    file = tmp_path / "two.toml"
    file.write_text(
        '[[service]]\nport = 5001\napp = "services:sized"\n'
        '[[service]]\nport = 5002\napp = "services:told"\n'
    )
    with Carom(own_line.server, "--mode", "generic", "--config", str(file)) as carom:
        looks = [
            json.loads(told("--once", "--json", "--pid", str(carom.pid), *port).stdout)
            for port in ((), ("--port", "5002"))
        ]
        assert [[one["port"] for one in look["services"]] for look in looks] == [
            [5001, 5002],
            [5002],
        ]
