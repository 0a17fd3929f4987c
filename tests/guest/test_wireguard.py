# SPDX-License-Identifier: Apache-2.0
"""A route by a real WireGuard: what is led is in the tunnel, and its own packets are not led."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from guest.ends import CLIENT, SERVER, Ends
from netns.process import until

INSIDE = {"client": "198.18.50.1", "server": "198.18.50.2"}
THERE, PORT, WIREGUARD = "198.18.100.1", 7000, 51820
ANSWERS = f"""
import socket
asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asked.bind(("{THERE}", {PORT}))
print("ready", flush=True)
while True:
    _, client = asked.recvfrom(100)
    asked.sendto(client[0].encode(), client)
"""
ASKS = f"""
import json, socket, sys
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.settimeout(2)
print("ready", flush=True)
for line in sys.stdin:
    try:
        asking.sendto(b"x", ("{THERE}", {PORT}))
        said = asking.recv(100).decode()
    except OSError as error:
        said = type(error).__name__ + " " + str(error.errno)
    print(json.dumps(said), flush=True)
"""
COUNTS = """
import socket, struct
seen = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
seen.bind(("eth0", 0x0800))
print("ready", flush=True)
while True:
    packet, (_, _, kind, *_) = seen.recvfrom(2000)
    if kind != 4 and packet[9] == 17:
        source = socket.inet_ntoa(packet[12:16])
        print(source, struct.unpack_from("!H", packet, 22)[0], flush=True)
"""


@contextlib.contextmanager
def started(*argv: str) -> Iterator[subprocess.Popen[str]]:
    """A process whose first line says that it is ready."""
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert process.stdout and process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def wg(*words: str) -> str:
    return subprocess.run(["wg", *words], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def tunnel(ends: Ends) -> Iterator[Ends]:
    """Both ends have a wg0 to each other; the server has one more address."""
    ends.addresses("eth0")
    with tempfile.TemporaryDirectory() as folder:
        files, public = {}, {}
        for role in INSIDE:
            key = wg("genkey")
            files[role] = Path(folder, role)
            files[role].write_text(key)
            done = subprocess.run(["wg", "pubkey"], input=key, capture_output=True, text=True)
            public[role] = done.stdout.strip()
        for role, other, host, peer in (
            ("client", "server", ends.client, SERVER),
            ("server", "client", ends.server, CLIENT),
        ):
            host.run("ip", "link", "add", "wg0", "type", "wireguard")
            host.run(
                *("wg", "set", "wg0", "listen-port", str(WIREGUARD), "private-key"),
                *(str(files[role]), "peer", public[other], "allowed-ips", "0.0.0.0/0"),
                *("endpoint", f"{peer}:{WIREGUARD}"),
            )
            host.address("wg0", INSIDE[role], 24)
            host.up("wg0")
        ends.server.run("ip", "address", "add", f"{THERE}/32", "dev", "lo")
        ends.client.run("ip", "route", "add", "default", "via", SERVER)
        yield ends


def test_a_program_is_led_by_it(tunnel: Ends) -> None:
    """What it sends is inside; nothing of it leaves beside, also when the tunnel is gone."""
    carom = (sys.executable, "-P", "-m", "carom")
    led = (*carom, "route", "run", "--via", "wg0", "--", sys.executable, "-c", ASKS)
    with (
        started(*tunnel.server.argv([sys.executable, "-c", ANSWERS])),
        started(*tunnel.server.argv([sys.executable, "-c", COUNTS])) as counted,
        started(*tunnel.client.argv([sys.executable, "-c", ASKS])) as direct,
        started(*tunnel.client.argv(list(led))) as inside,
    ):
        assert asked(direct) == CLIENT
        assert asked(inside) == INSIDE["client"]
        rows = json.loads(tunnel.client.run(*carom, "route", "sockets", "--json"))
        assert [row["how"] for row in rows] == ["led"]
        tunnel.client.run("ip", "link", "delete", "wg0")
        until(lambda: asked(inside).split()[0] == "OSError", "the tunnel to be gone")
        assert asked(direct) == CLIENT
        counted.kill()
        assert counted.stdout
        seen = [line.split() for line in counted.stdout]
    beside = [line for line in seen if int(line[1]) != WIREGUARD]
    assert len(beside) == 2, f"those of the program that is not led alone: {beside}"
    assert len(seen) > len(beside), "and the tunnel's own, which is not led by itself"


def asked(process: subprocess.Popen[str]) -> str:
    assert process.stdin and process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    said: str = json.loads(process.stdout.readline())
    return said
