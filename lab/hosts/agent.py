# SPDX-License-Identifier: Apache-2.0
"""The lab's agent on a host, which makes the calls that come on its stdin as JSON lines.

It runs through a whole experiment, so that Python starts once for each host and not for each
measurement. It ends with its stdin, and ends its servers.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from typing import Any

import msgspec

from carom.daemon.control import Answer, Request
from carom.errors import CaromError, ExperimentError
from carom.kernel import signals
from carom.kernel.resource import Resource
from carom.lab.clients import load
from carom.lab.clients.ping import Options, Ping
from carom.lab.clients.requests import Plan
from carom.lab.hosts.calls import Calls
from carom.vm.pair import Host

_STOP_PATIENCE = 10.0  # seconds for an agent to end when told to
_BEATS = 6  # lines sent in the time after which the host takes silence for the lab's end


def main() -> None:
    """Make the calls that come on stdin, until it ends."""
    signals.told()
    calls = Calls()
    try:
        for line in sys.stdin:
            if line == "\n":  # a beat: the lab is still there
                continue
            order = msgspec.json.decode(line, type=Request)
            try:
                answer = Answer(calls.does(order.call)(**order.arguments))
            except CaromError as error:
                answer = Answer(error=str(error), hint=error.hint)
            sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
            sys.stdout.flush()
    finally:
        calls.close()


class Agent(Resource):
    """The lab's end of an agent. Leaving it ends the agent and its servers."""

    def __init__(self, host: Host):
        self.host = host
        self.busy = False
        """Whether a call has no answer yet (it was interrupted): no other may be made."""
        argv = [host.python, "-P", "-m", "carom.lab.hosts.agent"]
        self._process = host.popen(argv, listens=True)
        self._speaking = threading.Lock()
        self._closing = threading.Event()
        if host.silence:
            beats = (host.silence / _BEATS,)
            threading.Thread(target=self._beat, args=beats, daemon=True).start()

    def _say(self, line: str) -> None:
        assert self._process.stdin
        with self._speaking:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _beat(self, interval: float) -> None:
        """Tell the host that the lab is still there, also during calls."""
        with contextlib.suppress(BrokenPipeError, ValueError):  # it has ended, or was closed
            while not self._closing.wait(interval):
                self._say("")

    def call(self, name: str, **arguments: Any) -> Any:
        """Make a call, and wait for its result. Raises ExperimentError with the agent's error."""
        stdout = self._process.stdout
        assert stdout
        try:
            self._say(msgspec.json.encode(Request(name, arguments)).decode())
            self.busy = True
            line = stdout.readline()
            self.busy = False
        except BrokenPipeError:
            line = ""
        if not line:
            raise self.host.ended(self._process.wait())
        answer = msgspec.json.decode(line, type=Answer)
        if answer.error is not None:
            raise ExperimentError(answer.error, hint=answer.hint)
        return answer.result

    def ping(
        self,
        address: str,
        port: int,
        plan: Plan,
        options: Options,
        app: str,
        *,
        clients: int | None = None,
    ) -> Ping:
        """Ask a service from this host; replies are compared with those of `app`.

        `clients` clients ask at once, each a process of its own; with None, the agent itself asks.
        """
        result = self.call(
            "ping",
            address=address,
            port=port,
            plan=msgspec.to_builtins(plan),
            options=msgspec.to_builtins(options),
            app=app,
            clients=clients,
        )
        return msgspec.convert(result, Ping)

    def load(
        self,
        interface: str,
        address: str,
        port: int,
        plan: Plan,
        options: load.Options,
        app: str,
    ) -> load.Load:
        """Ask for each key of a plan in turn, at a rate or as fast as possible."""
        result = self.call(
            "load",
            interface=interface,
            address=address,
            port=port,
            plan=msgspec.to_builtins(plan),
            options=msgspec.to_builtins(options),
            app=app,
        )
        return msgspec.convert(result, load.Load)

    def close(self) -> None:
        """End the agent."""
        assert self._process.stdin and self._process.stdout
        self._closing.set()
        with contextlib.suppress(BrokenPipeError), self._speaking:  # it may have ended
            self._process.stdin.close()
        if self.busy:  # an interrupt left it in a call
            self._process.terminate()
        try:
            self._process.wait(timeout=_STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


if __name__ == "__main__":
    main()
