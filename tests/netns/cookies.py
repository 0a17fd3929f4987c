# SPDX-License-Identifier: Apache-2.0
"""Name servers, most of which give cookies (BIND, NSD, Knot), and a client that insists on them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import dns.edns
import dns.exception
import dns.message
import dns.rcode
import pytest

from carom.kernel.resource import Resource
from carom.protocols.dns import message as messages
from carom.vm.namespace import Namespace
from netns.process import DEADLINE, until
from netns.sums import looks_half_made

PORT = 53
COOKIE = 10
PLAIN = 5.0
"""Seconds that a client waits before it gives a reply up that it would discard."""

ZONE = """
$TTL 3600
@ IN SOA ns hostmaster 1 3600 600 86400 300
@ IN NS ns
ns IN A 198.18.0.2
www IN A 198.18.0.10
odd IN TXT "xy"
even IN TXT "xyz"
some IN TXT "SOME"
large IN TXT "LONG" "LONG" "LONG" "LONG"
name0 IN A 198.18.1.0
name1 IN A 198.18.1.1
name2 IN A 198.18.1.2
name3 IN A 198.18.1.3
name4 IN A 198.18.1.4
name5 IN A 198.18.1.5
name6 IN A 198.18.1.6
name7 IN A 198.18.1.7
name8 IN A 198.18.1.8
name9 IN A 198.18.1.9
""".replace("LONG", "x" * 250).replace("SOME", "y" * 200)

BIND = """
options {{
    directory "{folder}"; listen-on port {port} {{ any; }}; listen-on-v6 port {port} {{ any; }};
    recursion no; dnssec-validation no; pid-file none; session-keyfile none;
    answer-cookie {cookies}; {secret}
}};
controls {{}};
zone "example.org" {{ type primary; file "zone"; }};
"""

NSD = """
server:
  port: {port}
  ip-address: 0.0.0.0
  ip-address: ::0
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
  answer-cookie: {cookies}
  {secret}
remote-control:
  control-enable: no
zone:
  name: example.org
  zonefile: zone
"""

KNOT = """
server:
  listen: [0.0.0.0@{port}, ::@{port}]
  rundir: "{folder}"
database:
  storage: "{folder}"
mod-cookies:
  - id: cookies
    {secret}
template:
  - id: default
    {cookies}
zone:
  - domain: example.org
    file: "{folder}/zone"
"""

UNBOUND = """
server:
  port: {port}
  interface: 0.0.0.0
  interface: ::0
  access-control: 0.0.0.0/0 allow
  access-control: ::/0 allow
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: "{folder}/pid"
  use-syslog: no
  do-daemonize: no
  num-threads: 1
  {secret}
auth-zone:
  name: example.org
  for-upstream: no
  zonefile: zone
remote-control:
  control-enable: no
"""


def _written(kind: str, folder: Path, secret: bytes | None, cookies: bool) -> list[str]:
    """Write a server's configuration; the command that runs it in the foreground."""
    told, word = secret.hex() if secret else "", "yes" if cookies else "no"
    if kind == "bind":
        text, binary = BIND, "named"
        line = f'cookie-algorithm siphash24; cookie-secret "{told}";' if secret else ""
        arguments = ["-g", "-n", "1", "-c"]
    elif kind == "nsd":
        text, binary, arguments = NSD, "nsd", ["-d", "-c"]
        line = f'cookie-secret: "{told}"' if secret else ""
    elif kind == "unbound":  # its cookies came with 1.18, which Debian 12 has not
        text, binary, arguments, line = UNBOUND, "unbound", ["-d", "-c"], ""
    else:
        text, binary, arguments = KNOT, "knotd", ["-c"]
        line = f"secret: 0x{told}" if secret else "badcookie-slip: 1"
        word = "global-module: mod-cookies/cookies" if cookies else ""
    path = shutil.which(binary, path="/usr/sbin:/usr/bin")
    if not path:
        pytest.skip(f"{binary} is not installed")
    file = folder / f"{kind}.conf"
    file.write_text(text.format(folder=folder, port=PORT, secret=line, cookies=word))
    return [path, *arguments, str(file)]


class CookieServer(Resource):
    """A real name server with one zone; skips the test where it is not installed.

    `secret` is what it makes its cookies by; None: one that it draws for itself; not for unbound.
    """

    def __init__(
        self,
        namespace: Namespace,
        folder: Path,
        kind: str,
        secret: bytes | None = None,
        *,
        cookies: bool = True,
        zone: str = ZONE,
    ):
        self.kind = kind
        self._namespace = namespace
        self._folder = folder
        self._zone = folder / "zone"
        self._zone.write_text(zone)
        self._start(secret, cookies)

    def _start(self, secret: bytes | None, cookies: bool) -> None:
        command = _written(self.kind, self._folder, secret, cookies)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._namespace.argv(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        with Stub(self._namespace, "127.0.0.1") as stub:
            until(lambda: self._answers(stub), f"{self.kind} to answer")

    def _answers(self, stub: Stub) -> bool:
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            stub.exchange(stub.query("ns.example.org"), patience=0.2)
        except OSError:
            return False
        return True

    def reload(self, zone: str) -> None:
        """Serve another text of the zone; returns at once, and it reads that in its own time."""
        new = self._zone.with_suffix(".new")
        new.write_text(zone)
        new.rename(self._zone)
        self._process.send_signal(signal.SIGHUP)

    def restart(self, secret: bytes | None = None, *, cookies: bool = True) -> None:
        """End it and start it anew, with another secret or none."""
        self.close()
        self._start(secret, cookies)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(DEADLINE)


class Discarded(AssertionError):
    """No reply came but such as a client discards."""


class Stub(Resource):
    """A stub resolver with cookies (RFC 7873 5): once it has had one it discards what has none."""

    def __init__(self, namespace: Namespace, address: str, port: int = PORT):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = namespace.call(lambda: socket.socket(family, socket.SOCK_DGRAM))
        self._socket.connect((address, port))
        self.client = os.urandom(8)
        self.server = b""

    @property
    def address(self) -> str:
        """Its own."""
        return str(self._socket.getsockname()[0])

    def query(self, name: str, kind: str = "A", *options: bytes, flags: int = 0) -> bytes:
        """A query with EDNS and these COOKIEs."""
        edns = [dns.edns.GenericOption(COOKIE, one) for one in options]
        while True:
            query = dns.message.make_query(
                name, kind, use_edns=0, payload=1400, options=edns, flags=flags
            ).to_wire()
            if not looks_half_made(self._socket, query):
                return query

    def exchange(
        self,
        query: bytes,
        *,
        patience: float = DEADLINE,
        takes: Callable[[bytes], bool] = lambda reply: True,
    ) -> bytes:
        """Ask; the first reply to it that is taken. Raises TimeoutError."""
        self._socket.send(query)
        end = time.monotonic() + patience
        while (left := end - time.monotonic()) > 0:
            self._socket.settimeout(left)
            reply = self._socket.recv(65_536)
            if reply[:2] == query[:2] and takes(reply):
                return reply
        raise TimeoutError(f"no reply that is taken in {patience} s")

    def ask(self, name: str, kind: str = "A") -> dns.message.Message:
        """Ask as a careful client does: with the cookie that it has, and once more with a new one.

        Raises Discarded.
        """
        for _ in range(2):
            try:
                reply = self.exchange(
                    self.query(name, kind, self.client + self.server),
                    patience=PLAIN if self.server else DEADLINE,
                    takes=self._takes,
                )
            except TimeoutError as error:
                raise Discarded(name) from error
            cookie = messages.cookie_of(reply)
            if cookie:
                self.server = cookie[8:]
            parsed = dns.message.from_wire(reply)
            if parsed.rcode() != dns.rcode.BADCOOKIE:
                return parsed
        raise AssertionError("its cookie is not taken")

    def _takes(self, reply: bytes) -> bool:
        cookie = messages.cookie_of(reply)
        return cookie[:8] == self.client if cookie else not self.server

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
