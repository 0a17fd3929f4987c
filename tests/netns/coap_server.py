# SPDX-License-Identifier: Apache-2.0
"""Real CoAP servers in a namespace (coap-server, aiocoap), and a client of single messages."""

from __future__ import annotations

import itertools
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from carom.kernel.resource import Resource
from carom.vm.namespace import Namespace
from netns.process import DEADLINE, environment, until
from netns.sums import looks_half_made
from reference.coap import CON, GET, PATH, PUT, QUERY, Message, Options, decode

PORT = 5683


def path(name: str, *queries: str) -> Options:
    """Options that ask for a resource."""
    segments = [(PATH, one.encode()) for one in name.split("/") if one]
    return [*segments, *((QUERY, one.encode()) for one in queries)]


class Client(Resource):
    """Sends one message after another from a socket of its own, and takes the replies to them."""

    def __init__(self, namespace: Namespace, address: str, port: int = PORT):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.socket = namespace.call(lambda: socket.socket(family, socket.SOCK_DGRAM))
        self.socket.settimeout(DEADLINE)
        self.socket.connect((address, port))
        self._ids = itertools.count(random.randrange(1 << 16))

    def request(
        self,
        options: Options,
        code: int = GET,
        *,
        type: int = CON,
        token: bytes | None = None,
        payload: bytes | None = None,
    ) -> Message:
        """A message with an id and, if none is said, a token that are new."""
        while True:
            id = next(self._ids) % (1 << 16)
            mine = id.to_bytes(2) if token is None else token
            message = Message(type, code, id, mine, options, payload)
            if not looks_half_made(self.socket, message.encode()):
                return message

    def send(self, message: Message) -> None:
        """Send it."""
        self.socket.send(message.encode())

    def receive(self) -> Message:
        """What comes next."""
        return decode(self.socket.recv(65_536))

    def reply_to(self, message: Message) -> Message:
        """Send a message and take the reply that has its token; a separate one is acknowledged."""
        self.send(message)
        while True:
            reply = self.receive()
            if reply.code and reply.token == message.token:
                if reply.type == CON:
                    self.socket.send(b"\x60\0" + reply.id.to_bytes(2))
                return reply

    def get(self, name: str, *queries: str, type: int = CON) -> Message:
        """The reply to a GET."""
        return self.reply_to(self.request(path(name, *queries), type=type))

    def put(self, name: str, value: bytes) -> Message:
        """The acknowledgement of a PUT."""
        return self.reply_to(self.request(path(name), PUT, payload=value))

    def answers(self) -> bool:
        """Whether a server is there."""
        self.socket.settimeout(0.2)
        try:
            return bool(self.get("").code)
        except OSError:
            return False
        finally:
            self.socket.settimeout(DEADLINE)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


class LibCoAP(Resource):
    """libcoap's coap-server, which makes resources by PUT; skips the test where it is missing."""

    def __init__(self, namespace: Namespace):
        program = shutil.which("coap-server-notls")
        if not program:
            pytest.skip("coap-server is not installed (libcoap3-bin)")
        self._process = subprocess.Popen(
            namespace.argv([program, "-A", "::", "-d", "100", "-v", "0"]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with Client(namespace, "127.0.0.1") as client:
            until(client.answers, "coap-server to answer")

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(DEADLINE)


class AIOCoAP(Resource):
    """A server by aiocoap: what is PUT anywhere is kept; below /slow responses are separate."""

    def __init__(self, namespace: Namespace):
        pytest.importorskip("aiocoap")
        self._process = subprocess.Popen(
            namespace.argv([sys.executable, "-P", str(Path(__file__).with_name("coap_things.py"))]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(log := tempfile.TemporaryFile()),  # noqa: SIM115  # closed with this
            env=environment(),
        )
        self._log = log
        with Client(namespace, "127.0.0.1") as client:
            until(lambda: self._process.poll() is not None or client.answers(), "aiocoap")
        if self._process.poll() is not None:
            log.seek(0)
            pytest.fail(log.read().decode())

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(DEADLINE)
        self._log.close()
