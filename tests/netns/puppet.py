# SPDX-License-Identifier: Apache-2.0
"""Servers and strangers as processes of their own, that do with sockets what a test says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from carom.kernel.resource import Resource
from carom.kernel.waiting import readable
from carom.vm.namespace import Namespace
from netns.fronted import value_reply
from netns.memcache import UDPClient, value_of
from netns.process import DEADLINE, until

CODE = (Path(__file__).parent / "puppet_process.py").read_text()
PYTHON = os.path.realpath(sys.executable)  # not the link in .venv, which others may not reach

NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
SOMEBODY = ("setpriv", "--reuid", "65533", "--regid", "65533", "--clear-groups")
ROOT_OF_NOTHING = (*NOBODY, "unshare", "--user", "--map-root-user")
"""Any user may have a user namespace, and is root there."""
NETWORK_OF_NOTHING = (*ROOT_OF_NOTHING, "--net")
"""The same with a network namespace of one's own."""


class Asked(NamedTuple):
    """A datagram, and who sent it."""

    data: bytes
    host: str
    port: int


class Puppet(Resource):
    """A process in a namespace, of another user if `prefix` makes it so.

    What fails there raises OSError here. A stranger's `name` is another program's than a server's.
    """

    def __init__(self, namespace: Namespace, prefix: tuple[str, ...] = (), *, name: str = "server"):
        self._namespace = namespace
        argv = namespace.argv([*prefix, PYTHON, "-I", "-c", CODE, name])
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._call_raw("")

    def _call_raw(self, line: str) -> str:
        assert self.process.stdin
        assert self.process.stdout
        if line:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "it has ended"
        return answer

    def call(self, name: str, *arguments: Any) -> Any:
        """Call one of the functions of puppet_process.py."""
        return _result(json.loads(self._call_raw(json.dumps([name, *arguments]))))

    @property
    def pid(self) -> int:
        """Its process."""
        return int(self.call("pid"))

    def udp(self, address: str, port: int, *flags: str) -> Socket:
        """Bind a UDP socket."""
        return Socket(self, self.call("udp", address, port, flags))

    def tcp(self, address: str, port: int) -> Socket:
        """Listen."""
        return Socket(self, self.call("tcp", address, port))

    def connect(self, address: str, port: int) -> Socket:
        """A connection of its own."""
        return Socket(self, self.call("connect", address, port))

    def spawn(self, *passed: Socket, name: str = "server") -> Child:
        """A child of its own that has some of its sockets too."""
        pid = self.call("spawn", CODE, name, [one.number for one in passed])
        return Child(self, pid)

    def kill(self) -> None:
        """End it at once; returns when its sockets are gone."""
        self.process.kill()
        self.process.wait(DEADLINE)

    def close(self) -> None:
        """End it."""
        assert self.process.stdin
        assert self.process.stdout
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait(DEADLINE)
        self.process.stdout.close()


class Child(Puppet):
    """A process that a puppet has started; its first sockets, from 1 on, are those passed."""

    def __init__(self, parent: Puppet, pid: int):
        self._parent = parent
        self._pid = pid

    def call(self, name: str, *arguments: Any) -> Any:
        """The same, through its parent."""
        return _result(self._parent.call("child", self._pid, json.dumps([name, *arguments])))

    def passed(self, number: int = 1) -> Socket:
        """One of the sockets that it was given."""
        return Socket(self, number)

    def kill(self) -> None:
        """End it at once."""
        self._parent.call("kill", self._pid)

    def close(self) -> None:
        """The parent ends it."""


class Socket:
    """A puppet's socket."""

    def __init__(self, puppet: Puppet, number: int):
        self.puppet = puppet
        self.number = number

    def accept(self) -> Socket:
        """The next connection."""
        return Socket(self.puppet, self.puppet.call("accept", self.number))

    def ready(self, seconds: float = 0.2) -> Asked | None:
        """What has come, if anything does within so many seconds."""
        found = self.puppet.call("take", self.number, seconds)
        return Asked(bytes.fromhex(found[0]), *found[1:]) if found else None

    def take(self) -> Asked:
        """What comes next."""
        found = self.ready(DEADLINE)
        assert found, "nothing came"
        return found

    def answer(self, asked: Asked, text: bytes) -> None:
        """Answer a memcached's request."""
        self.send(asked.data[:8] + text, asked.host, asked.port)

    def is_asked(self, udp: UDPClient, key: bytes, value: bytes) -> bool:
        """As Fake.is_asked(): does this socket get the question, or does the kernel answer?"""
        number, found = udp.send(b"get %b\r\n" % key), None
        end = time.monotonic() + DEADLINE
        while not found and not readable([udp.socket], 0.01):
            assert time.monotonic() < end, "nobody answers"
            found = self.ready(0.01)
        if found:
            self.answer(found, value_reply(key, value))
        assert value_of(udp.receive(number)) == value
        return found is not None

    def learned(self, udp: UDPClient, key: bytes, value: bytes) -> None:
        """Have the kernel answer for a key."""
        until(lambda: not self.is_asked(udp, key, value), f"a hit of {key!r}")

    def send(self, data: bytes, host: str = "", port: int = 0) -> None:
        """Send to somebody, or to its peer."""
        self.puppet.call("send", self.number, data.hex(), host, port)

    def close(self) -> None:
        """Close it."""
        self.puppet.call("close", self.number)


def _result(answer: list[Any]) -> Any:
    if len(answer) > 1:
        raise OSError(answer[1], os.strerror(answer[1]))
    return answer[0]
