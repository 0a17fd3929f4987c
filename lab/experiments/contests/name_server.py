# SPDX-License-Identifier: Apache-2.0
"""A name server to measure, with numbered names, and dnsperf, which asks for them."""

from __future__ import annotations

import re
import socket
import struct
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from carom.errors import ExperimentError

_PATIENCE = 5.0  # seconds until it answers
_ONCE = 60.0  # seconds that asking for every name may take
_QUERY = struct.Struct("!HHHHHH")
_A, _IN = 1, 1
_RCODE, _SERVFAIL = 0xF, 2

_CONFIGURATION = """
server:
{addresses}
  username: ""
  chroot: ""
  zonesdir: "{folder}"
  pidfile: "{folder}/pid"
  xfrdfile: "{folder}/xfrd"
  zonelistfile: "{folder}/zonelist"
  answer-cookie: no
  server-count: 1
  rrl-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: example.org
  zonefile: zone
"""

_ZONE = """$ORIGIN example.org.
$TTL 3600
@ SOA ns hostmaster 1 3600 600 86400 300
@ NS ns
ns A 198.18.0.2
"""


def names(count: int) -> list[str]:
    """So many names of the zone that have an address."""
    return [f"n{number}.example.org" for number in range(count)]


def configure(folder: Path, addresses: Iterable[str], port: int, zone: str) -> list[str]:
    """Write the files of an NSD of one process, with one zone, example.org; returns its command."""
    configuration, bound = folder / "nsd.conf", (f"  ip-address: {one}@{port}" for one in addresses)
    configuration.write_text(_CONFIGURATION.format(folder=folder, addresses="\n".join(bound)))
    (folder / "zone").write_text(zone)
    return ["nsd", "-d", "-c", str(configuration)]


def zone(count: int) -> str:
    """A zone with so many names."""
    lines = (f"{name}. A 198.18.{n >> 8 & 255}.{n & 255}\n" for n, name in enumerate(names(count)))
    return _ZONE + "".join(lines)


def wait(address: str, port: int) -> None:
    """Return once the server answers. Raises ExperimentError if it does not."""
    question = b"".join(bytes([len(label)]) + label for label in (b"ns", b"example", b"org"))
    query = _QUERY.pack(1, 0, 1, 0, 0, 0) + question + b"\0" + struct.pack("!HH", _A, _IN)
    end = time.monotonic() + _PATIENCE
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect((address, port))
        udp.settimeout(0.05)
        while time.monotonic() < end:
            try:
                udp.send(query)
                if udp.recv(512)[3] & _RCODE != _SERVFAIL:  # it has read its zone
                    return
            except OSError:
                time.sleep(0.02)
    raise ExperimentError(f"NSD does not answer at {address} port {port}")


def family(pid: int) -> list[int]:
    """A process and those that it and its children have started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in family(int(child)))]


def ask(folder: Path, address: str, port: int, count: int, seconds: float, cpu: int) -> list[str]:
    """Have dnsperf ask for the names in turn for that long, or once each if that is 0.

    Returns what it prints. Raises ExperimentError where a query was not answered as it should.
    """
    questions = folder / "questions"
    questions.write_text("".join(f"{name} A\n" for name in names(count)))
    long = ("-l", str(seconds)) if seconds else ("-n", "1")
    argv = ["taskset", "-c", str(cpu), "dnsperf", "-s", address, "-p", str(port)]
    argv += ["-d", str(questions), "-t", "1", *long]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, check=True, timeout=seconds + _ONCE
        )
    except subprocess.CalledProcessError as error:
        raise ExperimentError(f"dnsperf failed: {error.stderr.strip()}") from error
    except subprocess.TimeoutExpired as error:
        raise ExperimentError(f"dnsperf did not end within {error.timeout:g} s") from error
    said = done.stdout.splitlines()
    if not any(re.search(r"NOERROR \d+ \(100\.00%\)", line) for line in said):
        codes = next((line.strip() for line in said if "Response codes" in line), "none answered")
        raise ExperimentError(f"not all replies to dnsperf were right: {codes}")
    return said


def number(said: list[str], name: str) -> float:
    """The number that a line of dnsperf's statistics begins with."""
    found = (re.match(rf"\s*{name}:\s+([0-9.]+)", line) for line in said)
    return float(next(match[1] for match in found if match))
