# SPDX-License-Identifier: Apache-2.0
"""Every command, by a user without any right: it says so, and root's carom does not notice."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

from carom.cli import app
from netns.line import Line
from netns.process import INTERFACE, Carom, Ended, attached, run
from netns.test_errors import NOBODY
from netns.wire import Client

ON = ("-i", INTERFACE)
FILE = "{folder}/carom.toml"
CAPTURE = "{folder}/capture.pcap"
NEW = "{folder}/new"

REFUSED: dict[str, tuple[str, ...]] = {
    "serve": ON,
    "front": ON,
    "run": (FILE,),
    "status": (),
    "reload": (),
    "top": ("--once",),
    "trace": (),
    "why": ("0x00",),
    "replay": (CAPTURE, "-p", "51141", "--protocol", "raw"),
    "load": (*ON, "{address}", "51141"),
    "cache ls": (),
    "cache get": ("0x00",),
    "cache drop": ("0x00",),
    "cache flush": (),
    "cache save": ("{folder}/theirs/new",),
    "cache load": ("{folder}/replies",),
    "filter show": (),
    "filter use": ("reject",),
    "filter set": ("rate=1",),
    "filter print": (),
    "filter count": (),
    "filter stats": (),
    "route run": ("--via", INTERFACE, "--", "true"),
    "route start": ("office",),
    "route stop": (),
    "route use": ("office", "--via", INTERFACE),
    "route ls": (),
    "route sockets": (),
    "route top": ("--once",),
    "route why": ("1",),
    "route adopt": ("office", "1"),
    "lab run": ("bounce",),
    "lab bench": (),
    "lab admission": (),
}
"""What takes rights: it is refused, exit 1."""

OTHERWISE: dict[str, tuple[str, ...]] = {
    "config check": (FILE,),
    "config show": (FILE,),
    "doctor": (*ON, "--skip", "machine"),
    "metrics": (),
    "ping": ("{address}", "51141", "--count", "3"),
    "filter ls": (),
    "filter build": ("{folder}/carom.toml", "-o", NEW),
    "unpin": (),
    "lab list": (),
    "lab clean": (),
    "lab report": ("{folder}", "-o", NEW),
    "lab compare": ("{folder}", "{folder}"),
    "build": ("-o", NEW),
    "programs": (),
    "pack": ("-o", NEW),
    "push": ("{folder}", "{folder}"),
    "pull": ("{folder}", "-o", NEW),
    "client": ("{address}", "51141"),
}
"""What takes none, or other rights: it does its work, or says in words why not."""

NOT_TRIED = {"vm up", "vm status", "vm run", "vm down"}
"""They are for machines, which another user may have too."""


def commands(command: Any, path: str = "") -> Iterator[str]:
    """All that can be said, but for options."""
    if not hasattr(command, "commands"):
        yield path
        return
    for name, one in command.commands.items():
        yield from commands(one, f"{path} {name}".strip())


@pytest.fixture(scope="module")
def roots(straight: Line) -> Iterator[Carom]:
    if run(straight.server, "--version", prefix=NOBODY).code:
        pytest.skip("user 65534 cannot read this installation")
    with (
        Carom(straight.server, "--mode", "generic", "--protocol", "raw") as carom,
        Client(straight.client, straight.address) as client,
    ):
        assert client.ask(b"kept") == client.ask(b"kept")
        yield carom


@pytest.fixture
def folder(straight: Line, roots: Carom) -> Iterator[Path]:
    """One that anybody may look into, and root alone write to, but for one folder."""
    with tempfile.TemporaryDirectory(prefix="carom-", dir="/tmp") as name:
        yield filled(Path(name), straight, roots)


def filled(folder: Path, straight: Line, roots: Carom) -> Path:
    """With what commands read."""
    folder.chmod(0o755)
    (folder / "carom.toml").write_text(f'interfaces = ["{INTERFACE}"]\n[[service]]\napp = "echo"\n')
    frame = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP() / UDP(dport=51141)
    wrpcap(str(folder / "capture.pcap"), [frame / b"asked"])
    replies = folder / "replies"
    words = ("cache", "save", "--pid", str(roots.pid), str(replies))
    assert run(straight.server, *words).code == 0
    replies.chmod(0o644)
    (folder / "theirs").mkdir()
    os.chown(folder / "theirs", 65_534, 65_534)
    return folder


def test_each_command_is_tried() -> None:
    all = set(commands(typer.main.get_command(app)))
    assert REFUSED.keys() | OTHERWISE.keys() | NOT_TRIED == all


@pytest.mark.parametrize("command", [*REFUSED, *OTHERWISE])
def test_by_nobody(straight: Line, roots: Carom, folder: Path, command: str) -> None:
    before, program = roots.status(), attached(straight.server)
    words = [
        word.format(folder=folder, address=straight.address)
        for word in {**REFUSED, **OTHERWISE}[command]
    ]
    ended: Ended = run(straight.server, *command.split(), *words, prefix=NOBODY)
    assert "Traceback" not in ended.stderr, ended
    if command in REFUSED:
        assert ended.code == 1, ended
        assert "carom: " in ended.stderr, ended
    elif ended.code:
        assert ended.code in (1, 2), ended
    after = roots.status()
    assert attached(straight.server) == program
    assert after["services"][0]["address"] == before["services"][0]["address"]
    assert after["cache"]["entries"] >= before["cache"]["entries"] > 0
    assert not list(folder.rglob("new"))
