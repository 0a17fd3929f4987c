# SPDX-License-Identifier: Apache-2.0
"""The lab's agent on a host, which makes the calls that it is told on stdin by JSON lines.

One stays up through an experiment, so that Python's start-up is paid once a host and not once a
measurement. It ends with its stdin, and takes its servers with it.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from typing import Any

import msgspec
import structlog

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
_BEATS = 6  # words in the time after which silence would be taken for the lab's end


def main() -> None:
    """Do as stdin says until it ends."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout answers
    signals.told()
    calls = Calls()
    try:
        for line in sys.stdin:
            if line == "\n":  # only to say that the lab is there
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
    """The lab's end: calls what runs on a host. Leaving it ends the agent and its servers."""

    def __init__(self, host: Host):
        self.host = host
        self.busy = False
        """Whether it was interrupted in a call: it has an answer to come, and takes no other."""
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
        """Say that the lab is still there, whatever the agent is busy with."""
        with contextlib.suppress(BrokenPipeError, ValueError):  # it has ended, or was closed
            while not self._closing.wait(interval):
                self._say("")

    def call(self, name: str, **arguments: Any) -> Any:
        """Call, and wait for the result. Raises ExperimentError with what the agent said."""
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
        """Ask the service there; replies are compared with those of `app`.

        So many `clients` ask at once, each a process of its own; None: the agent asks itself.
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
        """Ask for each key of a plan in turn, at a rate or as fast as it goes."""
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
        if self.busy:  # an interrupt left it in the middle of a call
            self._process.terminate()
        try:
            self._process.wait(timeout=_STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


if __name__ == "__main__":
    main()
