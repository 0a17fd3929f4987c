# SPDX-License-Identifier: Apache-2.0
"""Keys that anybody may ask for, in every output that could show them: none acts on its reader."""

from __future__ import annotations

import json
import os
import pty
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from carom.daemon.key_text import key_text
from netns.line import Line
from netns.process import CAROM, Carom, environment, run, until
from netns.wire import Client

KEYS = [
    bytes(range(32)),
    b"\x1b]0;title\x07\x1b[2J\x9b1m",
    b"\r\x08\x7f\x00\x85",
    b"<script>alert('1')</script>&amp;",
    b"\"quoted\" 'quoted' `quoted` $(id) \\",
    b"[/red] [bold]:smile:{braces}%s%n",
    b'key_total{label="x"} 1 # HELP',
    b"\xff\xfe\xc3\x28\xed\xa0\x80",
    "\u202eright to left\u2028line".encode(),
    b"0x41",
    random.Random(1).randbytes(256),
    b"a" * 256,
]
ANSWER = b"yes"

APP = f"""
from carom import Service
service = Service(51141)
@service.reply
def answer(request):
    if request.startswith(b"!"):
        raise ValueError(request)
    if request.startswith(b"echo"):
        return request
    return {ANSWER!r}
"""


@pytest.fixture(scope="module")
def asked(straight: Line, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Carom]:
    """A service that was asked for each of them, often enough to be seen."""
    folder = tmp_path_factory.mktemp("app")
    (folder / "hostile.py").write_text(APP)
    program = ["env", f"PYTHONPATH={folder}", *CAROM]
    options = ("--app", "hostile:service", "--mode", "generic")
    with (
        Carom(straight.server, *options, program=program, handlers_fail=True) as carom,
        Client(straight.client, straight.address) as client,
    ):
        for key in KEYS:
            for _ in range(20):
                assert client.ask(key) == ANSWER
        yield carom


def check_harmless(text: str) -> None:
    """Lines of what can be printed: no command for a terminal, and nothing that changes its way."""
    for line in text.splitlines():
        assert line.isprintable(), repr(line)


COMMANDS = {
    "list": ("cache", "ls"),
    "list, JSON": ("cache", "ls", "--json"),
    "top": ("top", "--once", "--interval", "0.3", "--keys", "12"),
    "top, JSON": ("top", "--once", "--interval", "0.3", "--keys", "12", "--json"),
    "status": ("status",),
    "status, JSON": ("status", "--json"),
    "metrics": ("metrics",),
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_outputs(asked: Carom, words: tuple[str, ...]) -> None:
    ended = run(asked.namespace, *words, "--pid", str(asked.pid))
    assert ended.code == 0, ended
    check_harmless(ended.stdout + ended.stderr)
    if "--json" in words:
        for line in ended.stdout.splitlines():
            json.loads(line)
    if words == ("metrics",):
        values = {
            value
            for family in text_string_to_metric_families(ended.stdout)
            for sample in family.samples
            for value in sample.labels.values()
        }
        assert values
        assert not values & {key_text(key) for key in KEYS}, "labels are bounded: no keys"


@pytest.mark.parametrize("key", KEYS, ids=key_text)
def test_each_is_named_by_what_is_shown(asked: Carom, key: bytes) -> None:
    """What is shown of a key is what finds it, and explains a request for it."""
    pid = ("--pid", str(asked.pid))
    got = run(asked.namespace, "cache", "get", *pid, "--", key_text(key))
    assert got.code == 0, got
    check_harmless(got.stdout + got.stderr)
    why = run(asked.namespace, "why", "--from", "198.18.0.1", *pid, "--", f"0x{key.hex()}")
    assert why.code == 0, why
    assert "\nhit: answered from the cache\n" in why.stdout, why
    check_harmless(why.stdout + why.stderr)


def test_a_file_of_them(asked: Carom, tmp_path: Path) -> None:
    """Saved, and put back as they were."""
    file, pid = str(tmp_path / "replies"), ("--pid", str(asked.pid))
    for words in (("cache", "save", file), ("cache", "load", file)):
        ended = run(asked.namespace, *words, *pid)
        assert ended.code == 0, ended
        check_harmless(ended.stdout + ended.stderr)
    check_harmless(Path(file).read_text(encoding="utf-8"))


def test_the_log(straight: Line, asked: Carom) -> None:
    """Of a request that its handler fails at; the handler's own exception is shown by Python."""
    with Client(straight.client, straight.address) as client:
        client.send(b"!" + KEYS[1])
        client.ask(KEYS[0])
    until(lambda: (b"!" + KEYS[1]).hex() in asked.stderr(), "the log to say so")
    check_harmless(asked.stderr())


def test_a_reply_on_a_terminal(straight: Line, asked: Carom) -> None:
    """It may be what its client chose. Into a file it is written as it is."""
    key = b"echo" + KEYS[1]
    with Client(straight.client, straight.address) as client:
        assert client.ask(key) == key
    words = ("cache", "get", f"0x{key.hex()}", "--pid", str(asked.pid))
    master, slave = pty.openpty()
    command = asked.namespace.argv([*CAROM, *words])
    subprocess.run(command, stdout=slave, check=True, env=environment())
    os.close(slave)
    shown = os.read(master, 65_536).decode()
    os.close(master)
    assert shown == f"{key_text(key)}\r\n"
    done = subprocess.run(command, capture_output=True, check=True, env=environment())
    assert done.stdout == key
