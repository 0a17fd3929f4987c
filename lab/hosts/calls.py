# SPDX-License-Identifier: Apache-2.0
"""The calls of an agent on its host: servers, clients, and the CPU time that they take."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from carom import apps, log
from carom.daemon import control
from carom.errors import ExperimentError
from carom.kernel import libbpf, links
from carom.kernel.bpf import Module
from carom.lab.clients import load
from carom.lab.clients.load import Load
from carom.lab.clients.mix import Choice, Mix, planned
from carom.lab.clients.ping import Options, Ping, ping
from carom.lab.clients.requests import Plan
from carom.lab.clients.several import crowd
from carom.lab.hosts import cpu_time
from carom.lab.hosts.environment import environment
from carom.lab.hosts.recipes import swap
from carom.lab.record import Environment
from carom.xdp.link import Link, Mode

_DIES_WITH_US = ("setpriv", "--pdeathsig", "TERM")
_STOP_PATIENCE = 10.0  # seconds for a server to end when told to
_SWITCHED = {"gro": "generic-receive-offload", "tso": "tcp-segmentation-offload"}


_RATES = ("--prefix-rate", "0", "--total-rate", "0")
_UNBOUND = {"serve": (*_RATES, "--echoes", "0"), "front": _RATES}
"""Options that lift the limits on one client: an experiment's client is the whole load."""


class Calls:
    """The calls on one host: its public methods, which every experiment may call."""

    def __init__(self) -> None:
        self._servers: dict[int, subprocess.Popen[str]] = {}
        self._napi: list[int] = []
        self._hidden = False  # whether threads that receive exist but cannot be seen
        self._receiving: set[str] = set()
        self._stack = contextlib.ExitStack()
        self._attached = contextlib.ExitStack()
        self._parts: dict[str, Any] = {}

    def does(self, name: str) -> Callable[..., Any]:
        """A call by its name: one of these methods, or `PART:CALL`, a call of an experiment's own.

        That is a public method of `Calls` in `carom.lab.experiments.PART.calls`. Each host has one
        such object, as long as its agent runs.
        """
        part, _, call = name.rpartition(":")
        if not part:
            method: Callable[..., Any] = getattr(self, name)
            return method
        if part not in self._parts:
            module = importlib.import_module(f"carom.lab.experiments.{part}.calls")
            self._parts[part] = self._stack.enter_context(module.Calls(self))
        return getattr(self._parts[part], call)  # type: ignore[no-any-return]

    # The host

    def cpus(self) -> list[int]:
        """The CPUs that this process may use."""
        return sorted(os.sched_getaffinity(0))

    def environment(self, pair: str, driver: str, offloads: dict[str, bool]) -> Environment:
        """The machine, with what the caller knows of its interface."""
        return environment(pair, driver, None, offloads)

    def lacking(self, programs: list[str]) -> list[str]:
        """Those of these programs that are not installed."""
        return [program for program in programs if not shutil.which(program)]

    # Clients

    def ping(
        self,
        address: str,
        port: int,
        plan: dict[str, Any],
        options: dict[str, Any],
        app: str,
        clients: int | None,
    ) -> Ping:
        """Ask as `carom ping` does; with `clients`, by as many processes at once."""
        how = msgspec.convert(plan, Plan), msgspec.convert(options, Options)
        if clients:
            return crowd(address, port, *how, app, clients)
        return ping(address, port, *how, apps.expectation(app))

    def load(
        self,
        interface: str,
        address: str,
        port: int,
        plan: dict[str, Any],
        options: dict[str, Any],
        app: str,
    ) -> Load:
        """Ask in turn for each key of a plan, as `carom load` does."""
        mix = Mix(planned(msgspec.convert(plan, Plan)), [], Choice(draw="sequential"))
        target = load.target(interface, address, port)
        return load.load(target, mix, msgspec.convert(options, load.Options), apps.expectation(app))

    # Servers

    def serve(self, arguments: list[str], command: str = "serve") -> dict[str, Any]:
        """Start `carom serve`, or `front`, and return its ready line."""
        argv = [sys.executable, "-P", "-m", "carom", command, "--json"]
        argv += [*_UNBOUND[command], *arguments]
        server = self.start(argv, output=subprocess.PIPE)
        assert server.stdout and server.stderr
        line = server.stdout.readline()
        if not line:
            del self._servers[server.pid]
            reason = server.communicate()[1].strip()
            raise ExperimentError(f"carom {command} {' '.join(arguments)} did not start: {reason}")
        ready: dict[str, Any] = msgspec.json.decode(line)
        return ready

    def start(self, argv: list[str], output: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """Start a program that ends with this one, or by `stop`; `output` is where it prints."""
        argv = [*_DIES_WITH_US, *argv]
        server = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, text=True
        )
        self._servers[server.pid] = server
        return server

    def attach(self, interface: str, program: Literal["swap", "pass"], mode: Mode) -> None:
        """Attach at XDP, until `detach`, a bare swap of UDP over IPv4, or a program that passes."""
        if program == "swap":
            descriptor = self._attached.enter_context(Module(swap())).program("swap_ends")
        else:
            descriptor = libbpf.load_xdp_pass()
            self._attached.callback(os.close, descriptor)
        self._attached.enter_context(Link(descriptor, links.interface(interface), mode))

    def detach(self) -> None:
        """Detach the program."""
        self._attached.close()

    def met(self, interface: str) -> bool:
        """Whether the interface has an XDP program already."""
        return libbpf.attached_xdp(socket.if_nametoindex(interface)) is not None

    def status(self, pid: int) -> Any:
        """The status of a server, as `carom status --json` shows it."""
        return control.call("status", pid)

    def stop(self, pid: int) -> None:
        """End a server."""
        server = self._servers.pop(pid)
        server.send_signal(signal.SIGTERM)
        try:
            server.communicate(timeout=_STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            server.kill()
            server.communicate()
            raise ExperimentError(f"the server (pid {pid}) had to be killed") from None

    # CPU time

    def pin(self, pid: int, cpu: int) -> None:
        """Let a process, with all its threads, run on one CPU."""
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {cpu})

    def receive_on(self, interface: str, cpu: int | None) -> None:
        """Receive an interface's packets in kernel threads on one CPU; None: without threads.

        So each host of a namespace pair has a CPU of its own, and its CPU time can be measured
        alone. A veth has such a thread only with GRO on, and a socket's packets reach its peer's
        thread only with TSO off. When the agent ends, the interface is as before.
        """
        switch = Path(f"/sys/class/net/{interface}/threaded")
        if interface not in self._receiving:
            self._receiving.add(interface)
            before = _switched(interface), _text(switch)
            self._stack.callback(_receive_as_before, interface, *before)
        _switch(interface, {"gro": "on", "tso": "on" if cpu is None else "off"})
        earlier = _napi_threads()
        try:
            switch.write_text("0" if cpu is None else "1")
        except OSError as error:
            raise ExperimentError(
                f"{interface} cannot receive in a thread of its own: {error.strerror}",
                hint="this needs Linux 5.12 and a driver with NAPI",
            ) from error
        self._hidden = False
        if cpu is not None:  # some kernels keep an earlier thread, so that none is new
            self._napi = sorted(_napi_threads() - earlier) or self._napi
            if not self._napi:
                self._hidden = True
                log.warning("kernel threads cannot be seen here: CPU times are not measured")
            for pid in self._napi:
                self.pin(pid, cpu)

    def machine_cpu_seconds(self) -> float:
        """CPU time that this machine has been busy so far."""
        return cpu_time.of_machine()

    def cpu_seconds(self, pids: list[int]) -> float | None:
        """CPU time so far of processes and of the kernel threads of `receive_on`.

        None where the threads cannot be seen, as in a PID namespace.
        """
        if self._hidden:
            return None
        return sum(cpu_time.of_process(pid) for pid in (*pids, *self._napi))

    def close(self) -> None:
        """End all servers, and undo all changes."""
        self._attached.close()
        self._stack.close()
        for pid in list(self._servers):
            self.stop(pid)


def _switched(interface: str) -> dict[str, str]:
    """The state of the offloads that `receive_on` switches: `on` or `off` by short name."""
    done = subprocess.run(["ethtool", "-k", interface], capture_output=True, text=True, check=False)
    features = dict(re.findall(r"^([\w-]+): (on|off)", done.stdout, re.MULTILINE))
    return {short: features[name] for short, name in _SWITCHED.items() if name in features}


def _switch(interface: str, to: dict[str, str]) -> None:
    words = [word for pair in to.items() for word in pair]
    subprocess.run(["ethtool", "-K", interface, *words], capture_output=True, check=False)


def _text(switch: Path) -> str:
    try:
        return switch.read_text().strip()
    except OSError:  # the switch is absent, or the device does not support it
        return ""


def _receive_as_before(interface: str, offloads: dict[str, str], threaded: str) -> None:
    with contextlib.suppress(OSError):
        if threaded:
            Path(f"/sys/class/net/{interface}/threaded").write_text(threaded)
    _switch(interface, offloads)


def _napi_threads() -> set[int]:
    """The kernel threads that receive, of every interface."""
    threads = set()
    for comm in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):  # it has ended
            if comm.read_text().startswith("napi/"):
                threads.add(int(comm.parent.name))
    return threads
