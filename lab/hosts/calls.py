# SPDX-License-Identifier: Apache-2.0
"""What an agent does on its host for the lab: servers, clients, and the CPU time that they take."""

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
import threading
import time
from pathlib import Path
from typing import Any, Literal

import msgspec
import structlog

from carom import apps
from carom.daemon import control
from carom.errors import ExperimentError
from carom.kernel import libbpf, links
from carom.kernel.bpf import Module
from carom.lab.clients import load
from carom.lab.clients.behaviours import Choice as Behaviour
from carom.lab.clients.load import Load
from carom.lab.clients.mix import Choice, Mix, planned
from carom.lab.clients.ping import Options, Ping, ping
from carom.lab.clients.requests import Plan
from carom.lab.clients.several import crowd
from carom.lab.experiments.filters import client as filter_client
from carom.lab.experiments.filters.model import Filled
from carom.lab.experiments.ports.client import ask
from carom.lab.experiments.ports.grid import Settings as PortSettings
from carom.lab.experiments.ports.ports import Name
from carom.lab.experiments.ports.server import Serving
from carom.lab.hosts import cpu_time, udp_counts
from carom.lab.hosts.environment import environment
from carom.lab.model import Environment
from carom.xdp.link import Link, Mode

log = structlog.get_logger()

_DIES_WITH_US = ("setpriv", "--pdeathsig", "TERM")
_STOP_PATIENCE = 10.0  # seconds for a server to end when told to
_SWAP = Path(__file__).resolve().parent / "swap.c"
_BULK = bytes(1 << 20)
_SWITCHED = {"gro": "generic-receive-offload", "tso": "tcp-segmentation-offload"}


_RATES = ("--prefix-rate", "0", "--total-rate", "0")
_UNBOUND = {"serve": (*_RATES, "--echoes", "0"), "front": _RATES}
"""An experiment's one client is all of the load, and may ask for the same all the time."""


class Hand:
    """One host's: its public methods are the calls."""

    def __init__(self) -> None:
        self._servers: dict[int, subprocess.Popen[str]] = {}
        self._napi: list[int] = []
        self._hidden = False  # threads that receive are there, but not to be seen
        self._receiving: set[str] = set()
        self._stack = contextlib.ExitStack()
        self._attached = contextlib.ExitStack()
        self._ports: Serving | None = None

    # What the host is

    def cpus(self) -> list[int]:
        """The CPUs that we may use."""
        return sorted(os.sched_getaffinity(0))

    def environment(self, pair: str, driver: str, offloads: dict[str, bool]) -> Environment:
        """The machine, with what the caller knows of its interface."""
        return environment(pair, driver, None, offloads)

    def lacking(self, programs: list[str]) -> list[str]:
        """Those of these programs that are not installed."""
        return [one for one in programs if not shutil.which(one)]

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
        """Ask as `carom ping` does; or so many clients at once, each a process."""
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

    def stream(self, address: str, port: int, seconds: float) -> float:
        """Send on one TCP connection for so long, as fast as it goes; bytes a second."""
        with socket.create_connection((address, port), _STOP_PATIENCE) as tcp:
            sent, start = 0, time.perf_counter()
            while time.perf_counter() - start < seconds:
                sent += tcp.send(_BULK)
            return sent / (time.perf_counter() - start)

    def reset(self, address: str, port: int) -> None:
        """Empty the key that `fill` counts in, of a key-value server that is then idle."""
        filter_client.reset(address, port)

    def fill(
        self,
        address: str,
        port: int,
        behaviour: dict[str, Any],
        rate: float,
        pid: int | None,
        cpu: int,
    ) -> Filled:
        """Send a key-value server what a behaviour says, until it has done all of it.

        `pid` is the server's where it runs on this machine.
        """
        choice = msgspec.convert(behaviour, Behaviour)
        return filter_client.fill(address, port, choice, rate, pid, cpu)

    def ask_port(
        self,
        experiment: Name,
        address: str,
        which: int,
        port: int,
        settings: dict[str, Any],
        **how: Any,
    ) -> Ping:
        """Ask at one of four ports, and check every reply."""
        return ask(experiment, address, which, port, msgspec.convert(settings, PortSettings), **how)

    # Servers

    def serve(self, arguments: list[str], command: str = "serve") -> dict[str, Any]:
        """Start `carom serve`, or `front`, and return its ready line."""
        argv = [sys.executable, "-P", "-m", "carom", command, "--json"]
        argv += [*_UNBOUND[command], *arguments]
        server = _start(argv, said=subprocess.PIPE)
        assert server.stdout and server.stderr
        line = server.stdout.readline()
        if not line:
            said = server.communicate()[1].strip()
            raise ExperimentError(f"carom {command} {' '.join(arguments)} did not start: {said}")
        self._servers[server.pid] = server
        ready: dict[str, Any] = msgspec.json.decode(line)
        return ready

    def start(self, argv: list[str], ready: str, arguments: dict[str, Any]) -> int:
        """Start a server, and have `ready` (MODULE:FUNCTION of the lab) make it so; its pid."""
        server = _start(argv, said=subprocess.DEVNULL)
        self._servers[server.pid] = server
        module, function = ready.split(":")
        getattr(importlib.import_module(f"carom.lab.{module}"), function)(**arguments)
        return server.pid

    def sink(self, address: str, port: int) -> None:
        """Take whatever comes on TCP connections to a port, until the agent ends."""
        listener = socket.create_server((address, port))
        self._stack.callback(listener.close)
        threading.Thread(target=_sink, args=(listener,), daemon=True).start()

    def attach(self, interface: str, program: Literal["swap", "pass"], mode: Mode) -> None:
        """Answer UDP datagrams over IPv4 by a bare swap at XDP, or pass all, until `detach`."""
        if program == "swap":
            descriptor = self._attached.enter_context(Module(_SWAP)).program("swap_ends")
        else:
            descriptor = libbpf.load_xdp_pass()
            self._attached.callback(os.close, descriptor)
        self._attached.enter_context(Link(descriptor, links.interface(interface), mode))

    def detach(self) -> None:
        """End that."""
        self._attached.close()

    def met(self, interface: str) -> bool:
        """Whether an XDP program is there already."""
        return libbpf.attached_xdp(socket.if_nametoindex(interface)) is not None

    def serve_ports(
        self, series: str, interface: str, address: str, cpu: int, settings: dict[str, Any]
    ) -> dict[str, Any]:
        """Answer at four ports in one of `port_grid.SERIES`' ways, until `leave_ports`."""
        chosen = msgspec.convert(settings, PortSettings)
        self._ports = Serving(series, interface, address, cpu, chosen)
        return {"pids": self._ports.pids, "mode": self._ports.mode}

    def port_counts(self) -> dict[str, list[int]]:
        """The requests that were counted there so far."""
        assert self._ports
        return self._ports.counts()

    def leave_ports(self) -> None:
        """End that."""
        if self._ports:
            self._ports.close()
            self._ports = None

    def status(self, pid: int) -> Any:
        """What `carom status` shows of a server."""
        return control.call("status", pid)

    def arrivals(self, pid: int, port: int) -> dict[str, int]:
        """What a server's filter, if it has one, and this host's UDP sockets have counted."""
        shown = control.call("status", pid)["filter"]
        tallies = shown["tallies"] if shown else {}
        return {**{name: sum(cpus) for name, cpus in tallies.items()}, **udp_counts.read(port)}

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
        """Let kernel threads on one CPU deal with what an interface receives; None: no threads.

        So a host of a namespace pair has a CPU, whose time can be told from its neighbour's. A veth
        has a thread to give only with GRO on, and a socket's packets come to its peer's thread only
        with TSO off. The interface is as it was when the agent ends.
        """
        switch = Path(f"/sys/class/net/{interface}/threaded")
        if interface not in self._receiving:
            self._receiving.add(interface)
            before = _switched(interface), _text(switch)
            self._stack.callback(_receive_as_before, interface, *before)
        _switch(interface, {"gro": "on", "tso": "on" if cpu is None else "off"})
        there = _napi_threads()
        try:
            switch.write_text("0" if cpu is None else "1")
        except OSError as error:
            raise ExperimentError(
                f"{interface} receives in no thread of its own: {error.strerror}",
                hint="this needs Linux 5.12 and a driver with NAPI",
            ) from error
        self._hidden = False
        if cpu is not None:  # some kernels keep a thread that has nothing to do
            self._napi = sorted(_napi_threads() - there) or self._napi
            if not self._napi:
                self._hidden = True
                log.warning("kernel threads cannot be seen here: CPU times are not told")
            for pid in self._napi:
                self.pin(pid, cpu)

    def machine_cpu_seconds(self) -> float:
        """CPU time that this machine was busy, so far."""
        return cpu_time.of_machine()

    def cpu_seconds(self, pids: list[int]) -> float | None:
        """CPU time of processes and of what `receive_on` has set apart, so far.

        None where that cannot be seen, as in a PID namespace.
        """
        if self._hidden:
            return None
        return sum(cpu_time.of_process(pid) for pid in (*pids, *self._napi))

    def close(self) -> None:
        """End all that is still there."""
        self.leave_ports()
        self._attached.close()
        self._stack.close()
        for pid in list(self._servers):
            self.stop(pid)


def _start(argv: list[str], said: int) -> subprocess.Popen[str]:
    """Start a program that ends with this one; `said` is where its words go."""
    return subprocess.Popen(
        [*_DIES_WITH_US, *argv], stdin=subprocess.DEVNULL, stdout=said, stderr=said, text=True
    )


def _sink(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it was closed
        while True:
            connection, _ = listener.accept()
            buffer = bytearray(len(_BULK))
            with connection:
                while connection.recv_into(buffer):
                    pass


def _switched(interface: str) -> dict[str, str]:
    """How the offloads stand that `receive_on` switches."""
    done = subprocess.run(["ethtool", "-k", interface], capture_output=True, text=True, check=False)
    found = dict(re.findall(r"^([\w-]+): (on|off)", done.stdout, re.MULTILINE))
    return {short: found[name] for short, name in _SWITCHED.items() if name in found}


def _switch(interface: str, to: dict[str, str]) -> None:
    words = [word for pair in to.items() for word in pair]
    subprocess.run(["ethtool", "-K", interface, *words], capture_output=True, check=False)


def _text(switch: Path) -> str:
    try:
        return switch.read_text().strip()
    except OSError:  # no such switch, or of a device that has no use for it
        return ""


def _receive_as_before(interface: str, offloads: dict[str, str], threaded: str) -> None:
    with contextlib.suppress(OSError):
        if threaded:
            Path(f"/sys/class/net/{interface}/threaded").write_text(threaded)
    _switch(interface, offloads)


def _napi_threads() -> set[int]:
    """The kernel's threads that receive, of every interface."""
    found = set()
    for comm in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):  # it has ended
            if comm.read_text().startswith("napi/"):
                found.add(int(comm.parent.name))
    return found
