# SPDX-License-Identifier: Apache-2.0
"""A real name server (NSD) in a namespace, and a client that asks it."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from scapy.layers.dns import DNS, DNSQR

from carom.kernel.resource import Resource
from carom.lab.experiments.contests import name_server
from carom.vm.namespace import Namespace
from netns.process import DEADLINE, until
from netns.sums import looks_half_made

PORT = 53
SERVFAIL = 2

ZONE = """
$ORIGIN example.org.
$TTL 3600
@ SOA ns hostmaster 1 3600 600 86400 300
@ NS ns
ns A 198.18.0.2
www 300 A 198.18.0.10
www 300 A 198.18.0.11
www 600 AAAA 2001:db8::10
alias CNAME www
brief 0 A 198.18.0.12
long TXT "LONG" "LONG"
""".replace("LONG", "x" * 250)


class NSD(Resource):
    """NSD with one zone; skips the test where it is not installed."""

    def __init__(self, namespace: Namespace, folder: Path, zone: str = ZONE, *, port: int = PORT):
        binary = shutil.which("nsd", path="/usr/sbin:/usr/bin")
        if not binary:
            pytest.skip("nsd is not installed")
        _, *arguments = name_server.configure(folder, ("0.0.0.0", "::0"), port, zone)
        self._zone = folder / "zone"
        self._process = subprocess.Popen(
            namespace.argv([binary, *arguments]),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with Resolver(namespace, "127.0.0.1", port) as resolver:
            until(lambda: resolver.tries("ns.example.org"), "NSD to answer")

    def reload(self, zone: str) -> None:
        """Serve another text of the zone; returns at once, and NSD reads it in its own time."""
        new = self._zone.with_suffix(".new")
        new.write_text(zone)
        new.rename(self._zone)
        self._process.send_signal(signal.SIGHUP)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(DEADLINE)


class Resolver(Resource):
    """Asks a name server."""

    def __init__(self, namespace: Namespace, address: str, port: int = PORT):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = namespace.call(lambda: socket.socket(family, socket.SOCK_DGRAM))
        self._socket.connect((address, port))
        self._id = 0

    def tries(self, name: str) -> bool:
        """Whether there is an answer within a moment; SERVFAIL is none: zones are still read."""
        try:
            reply = self.ask(name, patience=0.2)
        except OSError:
            return False
        return bool(reply.rcode != SERVFAIL)

    def _next(self, name: str, kind: str, **fields: int) -> DNS:
        self._id = self._id % 65_535 + 1
        return DNS(**{"id": self._id, "rd": 0} | fields, qd=DNSQR(qname=name, qtype=kind))

    def ask(self, name: str, kind: str = "A", *, patience: float = DEADLINE, **fields: int) -> DNS:
        """Ask, and return the reply, which answers just this question."""
        self._socket.settimeout(patience)
        query = self._next(name, kind, **fields)
        while looks_half_made(self._socket, bytes(query)):
            query = self._next(name, kind, **fields)
        self._socket.send(bytes(query))
        while (reply := DNS(self._socket.recv(65_536))).id != query.id:
            pass  # to an earlier try, which it was late for
        assert (reply.id, reply.rd, reply.qr) == (query.id, query.rd, 1)
        assert bytes(reply.qd[0].qname).decode() == name + "."
        return reply

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
