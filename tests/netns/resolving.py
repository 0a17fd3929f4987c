# SPDX-License-Identifier: Apache-2.0
"""Name servers as people run them: of zones of their own, and resolvers that validate or do not.

All know two zones of the same records, `plain.test` and `signed.test`. What resolvers ask is an NSD
on the same host.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from carom.vm.namespace import Namespace
from netns.process import DEADLINE, until

PORT, SOURCE_PORT = 53, 5300
ZONES = ("plain.test", "signed.test")
RECORDS = """\
@ SOA ns hostmaster 1 3600 600 86400 300
@ NS ns
@ MX 10 mail
ns A 198.18.0.2
mail A 198.18.0.3
www 300 A 198.18.0.10
six AAAA 2001:db8::10
text TXT "odd" "words"
alias CNAME www
toup CNAME UPPER
UPPER A 198.18.0.13
*.wild 60 A 198.18.0.12
"""
NAMES = ("www", "six", "text", "alias", "toup", "upper", "x.wild", "nothing", "")
"""In either zone."""

NSD = """
server:
  port: {port}
  ip-address: {address}
  username: ""
  chroot: ""
  database: ""
  zonesdir: "{folder}"
  pidfile: "{folder}/pid"
  xfrdfile: "{folder}/xfrd"
  xfrdir: "{folder}"
  zonelistfile: "{folder}/zonelist"
  server-count: 1
  rrl-ratelimit: 0
  answer-cookie: no
remote-control:
  control-enable: no
zone:
  name: plain.test
  zonefile: plain.test
zone:
  name: signed.test
  zonefile: signed.test
"""

KNOT = """
server:
  listen: {address}@{port}
  rundir: "{folder}"
database:
  storage: "{folder}"
zone:
  - domain: plain.test
    file: "{folder}/plain.test"
  - domain: signed.test
    file: "{folder}/signed.test"
"""

BIND = """
options {{
  directory "{folder}"; pid-file none; session-keyfile none; lock-file none;
  listen-on port {port} {{ any; }}; listen-on-v6 {{ none; }};
  answer-cookie no; notify no; qname-minimization off; {options}
}};
controls {{ }};
{more}
"""

BIND_SERVER = {
    "options": "recursion no; dnssec-validation no;",
    "more": 'zone "plain.test" {{ type primary; file "plain.test"; }};'
    ' zone "signed.test" {{ type primary; file "signed.test"; }};',
}
BIND_RESOLVER = {
    "options": "recursion yes; allow-recursion {{ any; }}; dnssec-validation yes;",
    "more": 'trust-anchors {{ "signed.test" static-key {anchor}; }};'
    ' zone "plain.test" {{ type forward; forward only; forwarders {{ {source} port 5300; }}; }};'
    ' zone "signed.test" {{ type forward; forward only; forwarders {{ {source} port 5300; }}; }};',
}

UNBOUND = """
server:
  port: {port}
  interface: 0.0.0.0
  access-control: 0.0.0.0/0 allow
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: "{folder}/pid"
  use-syslog: no
  do-daemonize: no
  do-not-query-localhost: no
  num-threads: 1
  local-zone: "test." nodefault
  module-config: "{modules}"
  trust-anchor: "signed.test. DNSKEY {unquoted}"
stub-zone:
  name: plain.test
  stub-addr: {source}@5300
stub-zone:
  name: signed.test
  stub-addr: {source}@5300
remote-control:
  control-enable: no
"""

POWERDNS = (
    *("--config-dir={folder}", "--socket-dir={folder}", "--local-address=0.0.0.0:{port}"),
    *("--forward-zones=plain.test={source}:5300,signed.test={source}:5300", "--dnssec=off"),
    *("--daemon=no", "--disable-syslog", "--dont-query=", "--threads=1", "--allow-from="),
)
DNSMASQ = (
    *(
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--port={port}",
    ),
    *("--server={source}#5300", "--user=root", "--pid-file=", "--log-facility={folder}/log"),
)


class Kind(NamedTuple):
    """A server: its program and what it is told, in a file or by its command line."""

    program: str
    arguments: tuple[str, ...]
    file: str = ""
    words: dict[str, str] = {}  # noqa: RUF012 - never changed
    resolves: bool = False


KINDS = {
    "nsd": Kind("nsd", ("-d", "-c", "{folder}/file"), NSD),
    "knot": Kind("knotd", ("-c", "{folder}/file"), KNOT),
    "bind": Kind("named", ("-g", "-n", "1", "-c", "{folder}/file"), BIND, BIND_SERVER),
    "bind-resolver": Kind(
        "named", ("-g", "-n", "1", "-c", "{folder}/file"), BIND, BIND_RESOLVER, resolves=True
    ),
    "unbound": Kind(
        *("unbound", ("-d", "-c", "{folder}/file"), UNBOUND),
        {"modules": "validator iterator"},
        resolves=True,
    ),
    "unbound-plain": Kind(
        *("unbound", ("-d", "-c", "{folder}/file"), UNBOUND),
        {"modules": "iterator"},
        resolves=True,
    ),
    "powerdns": Kind("pdns_recursor", POWERDNS, resolves=True),
    "dnsmasq": Kind("dnsmasq", DNSMASQ, resolves=True),
}


def _tool(name: str) -> str:
    path = shutil.which(name, path="/usr/sbin:/usr/bin")
    if not path:
        pytest.skip(f"{name} is not installed")
    return path


def _run(folder: Path, *command: str) -> str:
    program = _tool(command[0])
    done = subprocess.run(
        [program, *command[1:]], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def write_zones(folder: Path) -> tuple[str, str]:
    """Both zones, one of them signed; its key, as BIND and as unbound have it."""
    for zone in ZONES:
        (folder / zone).write_text(f"$ORIGIN {zone}.\n$TTL 3600\n{RECORDS}")
    kinds = ("-a", "ECDSAP256SHA256")
    made = _run(folder, "dnssec-keygen", *kinds, "-f", "KSK", "signed.test")
    _run(folder, "dnssec-keygen", *kinds, "signed.test")
    _run(folder, "dnssec-signzone", "-S", "-o", "signed.test", "-f", "signed", "signed.test")
    (folder / "signed").rename(folder / "signed.test")
    text = (folder / f"{made}.key").read_text()
    words = next(line for line in text.splitlines() if not line.startswith(";")).split()
    flags, protocol, algorithm, *key = words[3:]
    head = f"{flags} {protocol} {algorithm}"
    return f'{head} "{"".join(key)}"', f"{head} {''.join(key)}"


def _answers(namespace: Namespace, address: str, port: int) -> Callable[[], bool]:
    query = b"\0\1\1\0\0\1\0\0\0\0\0\0\3www\5plain\4test\0\0\1\0\1"

    def asked() -> bool:
        udp = namespace.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with udp:
            udp.settimeout(0.3)
            udp.connect((address, port))
            try:
                udp.send(query)
                reply = udp.recv(4096)
            except OSError:
                return False
            return reply[3] & 15 == 0 and reply[7] > 0

    return asked


@contextlib.contextmanager
def running(namespace: Namespace, folder: Path, name: str) -> Iterator[None]:
    """A server of this kind, on every address of a namespace; skips where one is not installed.

    It gives no cookies.
    """
    kind = KINDS[name]
    program = _tool(kind.program)
    if name == "powerdns":
        told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
        if "Recursor 4." not in told.stdout + told.stderr:
            pytest.skip("from PowerDNS 5 on its command line is another")
    anchor, unquoted = write_zones(folder)
    words = {"folder": folder, "port": PORT, "address": "0.0.0.0", "source": "127.0.0.1"}
    words |= {"anchor": anchor, "unquoted": unquoted}
    with contextlib.ExitStack() as stack:
        if kind.resolves:
            source = KINDS["nsd"]
            words |= {"port": SOURCE_PORT, "address": "127.0.0.1"}
            stack.enter_context(_started(namespace, folder, source, words, SOURCE_PORT))
            words |= {"port": PORT, "address": "0.0.0.0"}
        stack.enter_context(_started(namespace, folder, kind, words, PORT))
        yield


@contextlib.contextmanager
def _started(
    namespace: Namespace, folder: Path, kind: Kind, words: dict[str, object], port: int
) -> Iterator[None]:
    own = folder / f"{kind.program}-{port}"
    own.mkdir()
    for zone in ZONES:
        shutil.copy(folder / zone, own)
    words = {**words, "folder": own}
    words |= {name: text.format(**words) for name, text in kind.words.items()}
    (own / "file").write_text(kind.file.format(**words))
    command = [_tool(kind.program), *(one.format(**words) for one in kind.arguments)]
    with (own / "log").open("wb") as log:
        process = subprocess.Popen(
            namespace.argv(command), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    asked = _answers(namespace, "127.0.0.1", port)

    def ready() -> bool:
        assert process.poll() is None, (own / "log").read_text()
        return asked()

    try:
        until(ready, f"{kind.program} to answer")
        yield
    finally:
        process.terminate()
        process.wait(DEADLINE)
