# SPDX-License-Identifier: Apache-2.0
"""A pair of machines that are reached by ssh.

OpenSSH's own client connects, not a library: so what works by hand works here, with the user's
~/.ssh/config, agent, jump hosts and known_hosts. A host whose key is not known is refused, unless
its entry says `host_keys = "accept-new"`. The user is never asked anything.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from carom.errors import (
    ExperimentError,
    HostError,
    HostKeyError,
    LoginError,
    UnreachableError,
)
from carom.kernel.resource import Resource
from carom.vm import deploy
from carom.vm.pair import offloads

FOLDER = "/var/lib/carom"
PORT = "51141"  # that of the experiments, so that a firewall's refusal shows early
_HERE = Path(__file__).resolve().parent
_FAILED = 255  # ssh's own exit status; any other is the program's
_AS_ROOT = 'if [ "$(id -u)" = 0 ]; then exec "$@"; else exec sudo -n -- "$@"; fi'
_LOOK = 'id -u; ls /sys/class/net; ip -4 -o addr show dev "$1"'
_OPTIONS = (
    "BatchMode=yes",
    "ConnectTimeout=10",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",  # a dead connection is noticed after 15 seconds
    "ControlMaster=no",  # a connection of its own, which ends with what runs over it
    "ControlPath=none",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "PermitLocalCommand=no",
    "LogLevel=ERROR",
)

Progress = Callable[[str], None]
"""Gets a line about each step that takes a while."""


class Machine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A machine as a pair's file describes it.

    `host` is what ssh takes: a name, an address, or a `Host` of its configuration. `interface`
    faces the other machine, and `address` is its IPv4 address. `user`, `port`, `jump`, `identity`,
    `config` (in place of ~/.ssh/config) and `known_hosts` are options of ssh, whose configuration
    holds where they are not given. With `sudo`, a user who is not root becomes root by `sudo -n`.
    `python` is a Python there that has carom: with it nothing is deployed. Without it, carom is
    deployed to `folder`.
    """

    host: str
    interface: str
    address: str
    user: str | None = None
    port: int | None = None
    jump: str | None = None
    identity: str | None = None
    config: str | None = None
    known_hosts: str | None = None
    host_keys: Literal["known", "accept-new"] = "known"
    sudo: bool = True
    python: str | None = None
    folder: str = FOLDER


class SSHHost:
    """One end of a pair: a machine that ssh reaches.

    `name` is its name in messages: `client` or `server`.
    """

    silence = 30.0

    def __init__(self, name: str, machine: Machine):
        self.name = name
        self.machine = machine
        self.interface = machine.interface
        self.address = machine.address
        self.python = machine.python or "python3"

    def __str__(self) -> str:
        return f"{self.name} ({self.machine.host})"

    def ssh(self, command: str) -> list[str]:
        """The local command that has a shell there run `command`."""
        its = self.machine
        argv = ["ssh", "-T"]
        for flag, value in (
            ("-F", its.config),
            ("-i", its.identity),
            ("-l", its.user),
            ("-p", its.port),
            ("-J", its.jump),
        ):
            argv += [] if value is None else [flag, str(value)]
        keys = "yes" if its.host_keys == "known" else "accept-new"
        options = [*_OPTIONS, f"StrictHostKeyChecking={keys}"]
        if its.known_hosts is not None:
            options.append(f'UserKnownHostsFile="{its.known_hosts}"')
        for option in options:
            argv += ["-o", option]
        return [*argv, "--", its.host, command]

    def argv(self, argv: Sequence[str]) -> list[str]:
        """The local command that runs a program there, as root if `sudo` says so.

        `sh` comes first because the user's own shell there may be any.
        """
        become = ["sh", "-c", _AS_ROOT, "sh"] if self.machine.sudo else []
        return self.ssh("exec " + shlex.join([*become, *argv]))

    def popen(self, argv: Sequence[str], *, listens: bool = False) -> subprocess.Popen[str]:
        """Start a program there, with pipes on stdin and stdout; it dies with the connection.

        The connection dies with the thread that started it; Ctrl-C does not reach it. If it is cut,
        a program that `listens` ends too, since it gets no more input.
        """
        tether = (_HERE / "tether.py").read_text()
        silence = self.silence if listens else 0.0
        remote = self.argv([self.python, "-I", "-c", tether, str(silence), *argv])
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *remote],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=_asks_nothing(),
        )

    def run(self, *argv: str, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a program there to its end. Raises HostError if it could not be started."""
        done = subprocess.run(
            self.argv(argv),
            input=input,
            capture_output=True,
            check=False,
            start_new_session=True,
            env=_asks_nothing(),
        )
        self._check_started(done)
        return done

    def stream(self, *argv: str, progress: Progress) -> None:
        """Run a program there and pass its output on. Raises HostError if it fails."""
        last = ""
        with subprocess.Popen(
            self.argv(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            env=_asks_nothing(),
        ) as process:
            assert process.stdout
            try:
                for line in process.stdout:
                    last = line.rstrip() or last
                    progress(f"{self.name}: {line.rstrip()}")
            except BaseException:
                process.terminate()
                raise
        if process.returncode == _FAILED:
            raise _refused(self, last)
        if process.returncode:
            raise HostError(
                f"the {self} cannot be set up: {last}", hint="what it said before stands above"
            )

    def ended(self, status: int) -> ExperimentError:
        """The error for a program there that ended before it was told to."""
        if status == _FAILED or status < 0:
            return UnreachableError(
                f"the connection to the {self} broke",
                hint="is it up, and the way to it? what ran there ends by itself",
            )
        return HostError(
            f"the lab's agent on the {self} ended (status {status})",
            hint="its last words are above",
        )

    def check(self) -> None:
        """Check that we can log in, and the interface has its address. Raises HostError."""
        done = self.run("sh", "-c", _LOOK, "sh", self.interface)
        user, *rest = done.stdout.decode(errors="replace").splitlines() or [""]
        if not user.isdecimal():
            output = (user or done.stderr.decode(errors="replace")).strip()
            raise LoginError(
                f"a shell on the {self} does not do as it is told: {output}",
                hint="it must let us run commands, and print nothing of its own (~/.bashrc?)",
            )
        if user != "0":
            raise LoginError(
                f"on the {self} we are not root", hint="log in as root, or leave sudo = false out"
            )
        interfaces = [line for line in rest if " " not in line]
        if self.interface not in interfaces:
            raise HostError(
                f"there is no interface {self.interface!r} on the {self}",
                hint="there are " + ", ".join(interfaces),
            )
        addresses = re.findall(r" inet ([\d.]+)", "\n".join(rest))
        if self.address not in addresses:
            raise HostError(
                f"{self.interface} of the {self} has not the address {self.address}",
                hint=f"it has {', '.join(addresses) or 'none of IPv4'}",
            )

    def deploy(self, progress: Progress) -> None:
        """Install this carom there, unless it is there already. Raises HostError."""
        if self.machine.python is None:
            self.python = deploy.deploy(self, self.machine.folder, progress)
            return
        done = self.run(self.python, "-P", "-c", "import carom.lab.hosts.agent")
        if done.returncode:
            output = done.stderr.decode(errors="replace").strip().splitlines() or [
                "it says nothing"
            ]
            raise HostError(
                f"{self.python} of the {self} cannot run carom's lab: {output[-1]}",
                hint="leave `python` out, and carom is put there",
            )

    def driver(self) -> str:
        """The network driver of the interface. Raises HostError."""
        match = re.search(r"^driver: (\S+)", self._ethtool("-i"), re.MULTILINE)
        return match[1] if match else "unknown"

    def offloads(self) -> dict[str, bool]:
        """Offloads of the interface, as ethtool names them. Raises HostError."""
        return offloads(self._ethtool("-k"))

    def _ethtool(self, flag: str) -> str:
        done = self.run("ethtool", flag, self.interface)
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip()
            raise HostError(f"ethtool {flag} {self.interface} failed on the {self}: {reason}")
        return done.stdout.decode()

    def _check_started(self, done: subprocess.CompletedProcess[bytes]) -> None:
        output = done.stderr.decode(errors="replace").strip()
        if done.returncode == _FAILED:
            raise _refused(self, output)
        if done.returncode and re.search(r"^(sudo: |sh: .*sudo)", output, re.MULTILINE):
            raise LoginError(
                f"on the {self} we cannot become root: {output.splitlines()[-1]}",
                hint="allow it in sudoers (NOPASSWD), or log in as root",
            )


class SSHPair(Resource):
    """Two machines. Only carom stays on them, in its folder, for the next time.

    Raises HostError.
    """

    name = "ssh"
    one_machine = False

    def __init__(self, client: SSHHost, server: SSHHost, progress: Progress = lambda line: None):
        self.client = client
        self.server = server
        for host in (client, server):
            progress(f"{host.name}: connecting to {host.machine.host}")
            host.check()
            host.deploy(progress)
        self._check_path()

    def _check_path(self) -> None:
        """Raises HostError unless a datagram gets there and back by the interfaces named."""
        text = (_HERE / "reach.py").read_text()
        server, client = self.server, self.client
        listen = [server.python, "-I", "-c", text, "listen", server.address, PORT]
        with _ended(server.popen(listen)) as listener:
            assert listener.stdout
            if listener.stdout.readline() != "ready\n":
                raise HostError(
                    f"nothing can listen on {server.address} port {PORT} of the {server}",
                    hint="the reason stands above",
                )
            where = (client.interface, client.address, server.address, PORT)
            done = client.run(client.python, "-I", "-c", text, "ask", *where)
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip()
            raise HostError(
                f"the {client} gets no reply from {server.address} through {client.interface}: "
                f"{reason}",
                hint=f"do these interfaces face each other? does a firewall stop UDP port {PORT}?",
            )

    def close(self) -> None:
        """Nothing: what runs there ends with its connection."""


def _asks_nothing() -> dict[str, str]:
    """An environment in which ssh asks nothing, not even that of a jump host.

    BatchMode does not hold for the latter; it has no terminal to ask on either.
    """
    return {**os.environ, "SSH_ASKPASS_REQUIRE": "never"}


@contextlib.contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """End a program when the context is left."""
    with process:
        try:
            yield process
        finally:
            process.terminate()


_REFUSALS: tuple[tuple[str, type[HostError], str, str], ...] = (
    (
        "IDENTIFICATION HAS CHANGED",
        HostKeyError,
        "has another host key than before",
        "find out why; if it was installed anew, `ssh-keygen -R` forgets the old key",
    ),
    (
        "Host key verification failed",
        HostKeyError,
        "has a host key that is not known here",
        "connect once by hand and compare its fingerprint, "
        'or let its entry say host_keys = "accept-new"',
    ),
    (
        "Permission denied",
        LoginError,
        "does not let us in",
        "is the right key in ssh-agent or named by `identity`? no password is ever asked for",
    ),
    (
        "",
        UnreachableError,
        "cannot be reached",
        "try it by hand: the same ssh, with the same configuration",
    ),
)


def _refused(host: SSHHost, output: str) -> HostError:
    """The error for ssh's own output."""
    for words, kind, problem, hint in _REFUSALS:
        if words in output:
            last = output.splitlines()[-1] if output else "ssh says nothing"
            return kind(f"the {host} {problem}: {last.strip()}", hint=hint, details=output)
    raise AssertionError(output)  # not reached: the last one matches everything
