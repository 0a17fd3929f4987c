# SPDX-License-Identifier: Apache-2.0
"""A host with three ways to the outside world, and programs that are led there by one of them.

eth0 is how packets leave that nobody leads; tun0 and tun1 stand for tunnels. Control groups are the
machine's, so routes here have names that no other test has.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from carom.kernel import kept
from carom.kernel.resource import Resource
from carom.routes import group, tables
from carom.vm.namespace import Namespace, join
from netns.process import CAROM, DEADLINE, HERE, Ended, end_of, environment, let_in, start

PYTHON = os.path.realpath(sys.executable)
"""One that nobody may run too: the environment of the tests may be root's alone."""

ACTOR = (PYTHON, "-IS", "-c", (HERE / "route_actor.py").read_text())
WAYS = {"eth0": 1, "tun0": 2, "tun1": 3}
RESOLVERS = ("198.18.100.53", "2001:db8:100::53")
"""The route's; ROUTER is the LAN's, at eth0."""
ROUTER = "198.18.1.2"
SERVERS = (*RESOLVERS, ROUTER, "2001:db8:1::2")
NOBODY = ("--user", "65534")


def own(way: str) -> tuple[str, str]:
    """The host's addresses at an interface."""
    return f"198.18.{WAYS[way]}.1", f"2001:db8:{WAYS[way]}::1"


def router(way: str) -> tuple[str, str]:
    """The outside's."""
    return f"198.18.{WAYS[way]}.2", f"2001:db8:{WAYS[way]}::2"


def by(way: str) -> tuple[str, ...]:
    """The options of a route that leads by an interface."""
    four, six = router(way)
    return "--via", way, "--gateway", four, "--gateway", six


class Running(Resource):
    """`carom route WORD...` that goes on; stdin and stdout are the program's that it runs."""

    def __init__(
        self,
        namespace: Namespace,
        words: Sequence[str],
        variables: Mapping[str, str],
        program: Sequence[str],
    ):
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in close
        self.process = subprocess.Popen(
            namespace.argv([*program, "route", *words]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            cwd=HERE,
            env=environment(**variables),
        )
        self.pid = self.process.pid
        self.inside = 0
        """The program's pid, if it has said it."""

    def stderr(self) -> str:
        """What it has said so far."""
        return os.pread(self._stderr.fileno(), 1 << 20, 0).decode()

    def line(self) -> str:
        """The next line; it fails if there is none."""
        assert self.process.stdout
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            assert selector.select(DEADLINE), self.stderr()
        line = self.process.stdout.readline()
        assert line, self.stderr()
        return line

    def told(self) -> Any:
        """The next line, which is JSON."""
        return json.loads(self.line())

    def ask(self, patience: float = 5.0) -> dict[str, str]:
        """What sockets that are held do now (`held` of the actor)."""
        assert self.process.stdin
        self.process.stdin.write(f"{patience}\n")
        self.process.stdin.flush()
        found: dict[str, str] = self.told()
        return found

    def kill(self) -> None:
        """End carom itself by SIGKILL, and nothing else."""
        self.process.kill()
        self.process.wait(DEADLINE)

    def let_go(self) -> None:
        """Close the program's stdin."""
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def end(self) -> Ended:
        """Wait for the end, once stdin is closed."""
        self.let_go()
        assert self.process.stdout
        code = self.process.wait(DEADLINE)
        ended = Ended(self.pid, code, self.process.stdout.read(), self.stderr())
        assert "Traceback" not in ended.stderr, ended
        return ended

    def close(self) -> None:
        """End it, if it has not ended."""
        self.let_go()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.kill()
        print(self.stderr())  # for whoever reads of a failure
        assert self.process.stdout
        self.process.stdout.close()
        self._stderr.close()


class Routed(Resource):
    """The host, the outside, and the routes that tests make there; nobody, too, has files in its
    folder."""

    def __init__(self, folder: Path):
        let_in(folder)
        self.folder, self._names, self._pids = folder, set[str](), set[int]()
        self._numbers = itertools.count()
        self.host, self.outside = Namespace("host"), Namespace("outside")
        self._stack = contextlib.ExitStack()
        self._stack.callback(self.outside.close)
        self._stack.callback(self.host.close)
        self.variables = {
            "CAROM_RUN": str(folder / "run"),
            "CAROM_CACHE": str(kept.folder()),
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",  # nobody may look into all of them
        }
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        for namespace in (self.host, self.outside):
            namespace.up("lo")
            for which in ("all", "default"):
                sysctl(namespace, f"net.ipv4.conf.{which}.rp_filter", 0)
        sysctl(self.host, "net.ipv4.ping_group_range", "0 65535")
        sysctl(self.outside, "net.ipv4.icmp_ratelimit", 0)
        for address in ("198.18.100.1", "2001:db8:100::1", *RESOLVERS):
            self.outside.address("lo", address, 128 if ":" in address else 32)
        self.host.call(lambda: Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6").write_text("0"))
        for way in WAYS:
            self.make(way)
        self.default()
        script = str(HERE / "outside.py")
        self._answers = self.outside.popen([PYTHON, "-IS", script, *SERVERS])
        self._stack.callback(self._hush)
        assert self._answers.stdout
        assert self._answers.stdout.readline() == "ready\n"

    def _hush(self) -> None:
        self._answers.kill()
        self._answers.communicate()

    def default(self) -> None:
        """What is not led leaves by eth0."""
        for address in router("eth0"):
            self.host.run("ip", "route", "replace", "default", "via", address, "dev", "eth0")

    def make(self, way: str) -> None:
        """An interface, with its other end outside."""
        join(self.host, way, self.outside, f"w{way}")
        for namespace, name, addresses in (
            (self.host, way, own(way)),
            (self.outside, f"w{way}", router(way)),
        ):
            for address in addresses:
                namespace.address(name, address, 64 if ":" in address else 24)
        self._find_neighbours(self.host, way, "fe80::1")
        self._find_neighbours(self.outside, f"w{way}", "fe80::2")

    @staticmethod
    def _find_neighbours(namespace: Namespace, interface: str, address: str) -> None:
        """Neighbours of IPv6 are asked from an address of the link, or not at all."""
        namespace.run("ip", "addr", "replace", f"{address}/64", "dev", interface, "nodad")

    def up(self, way: str, *, outside: bool = False) -> None:
        """Set one up that was down, or its other end, with the IPv6 addresses that it lost."""
        namespace, name = (self.outside, f"w{way}") if outside else (self.host, way)
        address = (router(way) if outside else own(way))[1]
        namespace.run("ip", "link", "set", name, "up")
        namespace.run("ip", "addr", "replace", f"{address}/64", "dev", name, "nodad")
        self._find_neighbours(namespace, name, "fe80::2" if outside else "fe80::1")

    def down(self, way: str) -> None:
        """Set an interface down."""
        self.host.run("ip", "link", "set", way, "down")

    def remove(self, way: str) -> None:
        """Delete an interface."""
        self.host.run("ip", "link", "del", way)

    def told(self) -> dict[str, Any]:
        """What the outside saw since it was asked last, by the host's interfaces."""
        assert self._answers.stdin and self._answers.stdout
        self._answers.stdin.write("\n")
        self._answers.stdin.flush()
        told: dict[str, Any] = json.loads(self._answers.stdout.readline())
        assert not told["lost"], "frames that were not counted"
        told["seen"] = {way.removeprefix("w"): seen for way, seen in told["seen"].items()}
        return told

    def seen(self) -> dict[str, dict[str, int]]:
        """The packets of it."""
        seen: dict[str, dict[str, int]] = self.told()["seen"]
        return seen

    def settle(self) -> None:
        """Forget what was seen, once nothing more comes: the ends of connections do, late."""
        while self.seen():
            time.sleep(0.05)

    def name(self, word: str = "one") -> str:
        """A route's name."""
        name = f"{word}-{os.getpid()}-{next(self._numbers)}"
        self._names.add(name)
        return name

    def file(self, routes: Mapping[str, str], marks: str = "") -> tuple[str, ...]:
        """The option of a policy file with these routes."""
        path = self.folder / f"{next(self._numbers)}.toml"
        text = "\n".join(f'[route."{name}"]\n{lines}' for name, lines in routes.items())
        path.write_text(f"{text}\n[marks]\n{marks}\n")
        return "--config", str(path)

    def route(self, *words: str, at: Namespace | None = None, **options: Any) -> Ended:
        """`carom route WORD...`, on the host or elsewhere, to its end; no traceback."""
        process = start(at or self.host, "route", *words, **{**self.variables, **options})
        self._pids.add(process.pid)
        ended = end_of(process, DEADLINE)
        assert "Traceback" not in ended.stderr, ended
        return ended

    def done(self, *words: str, **options: Any) -> str:
        """What a command prints that ends well."""
        ended = self.route(*words, **options)
        assert ended.code == 0, ended
        return ended.stdout

    def json(self, *words: str) -> Any:
        """The same of one with --json."""
        return json.loads(self.done(*words, "--json"))

    def run(self, *actor: str, route: Sequence[str] = (), **options: Any) -> Any:
        """What the actor tells, led by tun0 or by the options of a `route`."""
        route = route or (*by("tun0"), *NOBODY)
        return json.loads(self.done("run", *route, "--", *ACTOR, *actor, **options))

    def direct(self, *actor: str) -> Any:
        """What it tells where nobody leads it."""
        return json.loads(self.host.run(*ACTOR, *actor))

    def running(self, *words: str, program: Sequence[str] = CAROM) -> Running:
        """`carom route WORD...` that goes on."""
        running = Running(self.host, words, self.variables, program)
        self._pids.add(running.pid)
        return running

    def led(self, *actor: str, route: Sequence[str] = ()) -> Running:
        """The actor, led and going on; it has said that it is ready."""
        route = route or (*by("tun0"), *NOBODY)
        running = self.running("run", *route, "--", *ACTOR, *actor)
        try:
            running.inside = running.told()["ready"]
        except BaseException:
            running.close()
            raise
        return running

    def started(self, name: str, config: Sequence[str], program: Sequence[str] = CAROM) -> Running:
        """A route of a file that is kept up."""
        running = self.running("start", name, *config, program=program)
        try:
            assert running.line().startswith(f"ready: {name}")
        except BaseException:
            running.close()
            raise
        return running

    def ls(self) -> dict[str, dict[str, Any]]:
        """`ls`, by name; the routes of other tests are left out."""
        return {row["name"]: row for row in self.json("ls") if self._is_own(row["name"])}

    def _is_own(self, name: str) -> bool:
        pid = name.rpartition("-")[2]
        return name in self._names or (pid.isdigit() and int(pid) in self._pids)

    def the_route(self) -> str:
        """The name of the only one there is."""
        (name,) = filter(self._is_own, group.names())
        return name

    def rules(self) -> list[str]:
        """The rules that are routes'."""
        told = (self.host.run("ip", *six, "-details", "rule") for six in ((), ("-6",)))
        return [
            line
            for text in told
            for line in text.splitlines()
            if f"proto {tables.OWNER}" in line or f"protocol {tables.OWNER}" in line
        ]

    def table(self) -> list[str]:
        """What is in their tables."""
        words = ("route", "show", "table", "all", "proto", str(tables.OWNER))
        told = (self.host.run("ip", six, *words) for six in ("-4", "-6"))
        return [line for text in told for line in text.splitlines() if line.strip()]

    def left(self) -> list[str]:
        """What there is of routes: groups, rules, tables and files."""
        folder = self.folder / "run" / "routes"
        files = (path.name for path in folder.glob("*") if path.name != ".lock")
        return [*filter(self._is_own, group.names()), *self.rules(), *self.table(), *files]

    def clear(self) -> None:
        """Take away what a test that failed has left."""
        for name in filter(self._is_own, group.names()):
            self.route("stop", name, "--kill")
        self.route("stop")

    def check_clean(self) -> None:
        """Nothing is left; what is, is taken away."""
        left = self.left()
        if left:
            self.clear()
        assert not left

    def close(self) -> None:
        """Take it all away."""
        self._stack.close()


def sysctl(namespace: Namespace, name: str, value: object) -> None:
    """Set one of a namespace's own."""
    namespace.run("sysctl", "-qw", f"{name}={value}")


def sources(told: Mapping[str, Any]) -> set[Any]:
    """The different answers."""
    return {str(value) for value in told.values()}


def listening(path: Path) -> socket.socket:
    """A Unix socket that anybody may connect to."""
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    path.chmod(0o777)
    made.listen()
    made.settimeout(DEADLINE)
    return made
