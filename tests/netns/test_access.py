# SPDX-License-Identifier: Apache-2.0
"""Whom a real unbound or BIND refuses is noted, and only where it refuses somebody."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import dns.flags
import pytest

from carom.kernel.resource import Resource
from netns.cookies import Stub
from netns.line import Line
from netns.nameserver import PORT, Resolver
from netns.process import DEADLINE, INTERFACE, Carom, until

REFUSED, NAME = 5, "www.example.org"
UNBOUND = """
server:
  port: {port}
  interface: 0.0.0.0
  interface: ::0
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: "{folder}/pid"
  use-syslog: no
  num-threads: 1
  local-zone: "example.org" static
  local-data: "www.example.org. 3600 A 198.18.0.10"
  {more}
remote-control:
  control-enable: no
"""
BIND = """
options {{
    directory "{folder}";
    pid-file "{folder}/pid";
    session-keyfile "{folder}/session.key";
    lock-file none;
    listen-on port {port} {{ any; }};
    listen-on-v6 port {port} {{ any; }};
    dnssec-validation no;
    notify no;
    {more}
}};
controls {{ }};
zone "example.org" {{ type primary; file "{folder}/zone"; }};
"""
ZONE = "$TTL 3600\n@ SOA ns a 1 3600 600 86400 300\n@ NS ns\nns A 198.18.0.2\nwww A 198.18.0.10\n"


class Server(Resource):
    """unbound or BIND with this in its configuration; skips the test where it is not installed."""

    def __init__(self, line: Line, folder: Path, kind: str, more: str):
        binary = shutil.which(kind, path="/usr/sbin:/usr/bin")
        if not binary:
            pytest.skip(f"{kind} is not installed")
        text, argument = (UNBOUND, "-d") if kind == "unbound" else (BIND, "-g")
        self.file = folder / f"{kind}.conf"
        self.file.write_text(text.format(folder=folder, port=PORT, more=more))
        (folder / "zone").write_text(ZONE)
        self._process = subprocess.Popen(
            line.server.argv([binary, argument, "-c", str(self.file)]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with Resolver(line.server, "127.0.0.1") as local:
            until(lambda: local.tries(NAME), f"{kind} to answer")

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(DEADLINE)


def front(line: Line, *arguments: str) -> Carom:
    """It caches what the server answers."""
    options = ("--protocol", "dns", "--hook", "tc", "--bind", "::", "--ttl", "1h")
    return Carom(line.server, *options, *arguments, command="front")


def code(line: Line, address: str, name: str = NAME) -> int:
    """What the client is told when it asks this address."""
    with Stub(line.client, address) as stub:
        return stub.exchange(stub.query(name, flags=dns.flags.RD))[3] & 15


@pytest.mark.parametrize(
    ("more", "versions", "note"),
    [
        ("", (), "without access-control for 0.0.0.0/0 and ::/0, all but localhost are refused"),
        ("access-control: 0.0.0.0/0 allow", (4,), "without access-control for ::/0, all others"),
        ("# access-control: 0.0.0.0/0 allow", (), "without access-control for 0.0.0.0/0 and ::/0"),
        ("access-control: 0.0.0.0/0 allow\n  access-control: ::/0 allow", (4, 6), ""),
    ],
)
def test_unbound(
    own_line: Line, tmp_path: Path, more: str, versions: tuple[int, ...], note: str
) -> None:
    """The note is there exactly where somebody is refused."""
    addresses = {4: own_line.address, 6: own_line.address6}
    with Server(own_line, tmp_path, "unbound", more) as server:
        refused = {one for one, at in addresses.items() if code(own_line, at) == REFUSED}
        assert refused == {4, 6} - set(versions)
        with front(own_line) as carom:
            notes = [one for one in carom.ready["notes"] if "unbound" in one]
            assert len(notes) == bool(note)
            for one in notes:
                assert note in one
                assert f"({server.file})" in one
                assert "--allow PREFIX" in one


@pytest.mark.parametrize("allowed", [False, True])
def test_allow_repeats_it(own_line: Line, tmp_path: Path, allowed: bool) -> None:
    """A hit gives to a stranger what the server refuses, unless --allow says who is answered."""
    client, stranger = f"{own_line.client_address}/32", "198.19.0.1/32"
    own_line.client.run("ip", "address", "add", stranger, "dev", "lo")
    own_line.server.run("ip", "route", "add", stranger, "via", own_line.client_address)
    arguments = ("--allow", client) if allowed else ()
    with (
        Server(own_line, tmp_path, "unbound", f"access-control: {client} allow"),
        front(own_line, *arguments),
    ):
        for _ in range(3):
            assert code(own_line, own_line.address) == 0
        source = ("dev", INTERFACE, "src", stranger.partition("/")[0])
        own_line.client.run("ip", "route", "add", f"{own_line.address}/32", *source)
        assert code(own_line, own_line.address) == (REFUSED if allowed else 0)


@pytest.mark.parametrize(
    ("more", "refused", "note"),
    [
        ("", False, "without allow-recursion, allow-query-cache and allow-query"),
        ("recursion no;", True, ""),
        ("allow-recursion { none; };", True, ""),
        ("allow-recursion { 127.0.0.0/8; };", True, "allow-recursion { 127.0.0.0/8; }"),
    ],
)
def test_bind(own_line: Line, tmp_path: Path, more: str, refused: bool, note: str) -> None:
    """Its zone is for everybody; what it would ask others is not: it has no way to them here."""
    with Server(own_line, tmp_path, "named", f"forward only; forwarders {{ ::1 port 9; }}; {more}"):
        assert code(own_line, own_line.address) == 0
        assert (code(own_line, own_line.address, "other.example") == REFUSED) == refused
        with front(own_line) as carom:
            notes = [one for one in carom.ready["notes"] if "named" in one]
            assert len(notes) == bool(note)
            assert all(note in one for one in notes)


def test_what_is_no_file(own_line: Line, tmp_path: Path) -> None:
    """Whatever stands there by now: carom starts, and says that nobody knows."""
    with Server(own_line, tmp_path, "unbound", "") as server:
        os.mkfifo(tmp_path / "fifo")
        server.file.write_text(server.file.read_text() + f'include: "{tmp_path}/fifo"\n')
        with front(own_line) as carom:
            (note,) = (one for one in carom.ready["notes"] if "unbound" in one)
            assert "cannot be read" in note
            assert "--allow PREFIX" in note
