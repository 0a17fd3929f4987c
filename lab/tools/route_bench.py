# SPDX-License-Identifier: Apache-2.0
"""What it costs a program to be led: CPU time of a datagram that it sends, each way beside plain.

Each way has a host of its own, as a rule, a program or a table there is everybody's. Their senders
send in turns, a burst each; what leaves is dropped where it arrives. The kernel's own times of
programs (kernel.bpf_stats) say what of it is theirs.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import os
import shutil
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from carom.errors import ExperimentError
from carom.kernel import libbpf
from carom.kernel.bpf import Module
from carom.kernel.cgroups import mounted
from carom.kernel.recipe import Recipe
from carom.routes import group as groups
from carom.routes import leading, programs
from carom.routes.group import Group
from carom.routes.leading import Leading
from carom.routes.programs import Maps, Policy
from carom.routes.route import Mark, Route
from carom.vm.namespace import Namespace, join

_HERE = Path(__file__).resolve().parent
_WORLD, _PORT, _VIA = "198.18.0.2", 7000, "eth0"
_MARK, _MASK, _TABLE = 0x2A000000, 0x3F000000, 51_900_000
_MASK_OF_ROUTES = 0x00FF0000
_SENDS = 5_000
_ALLOW, _DROP = 1, 2  # a control group's verdict, and TC_ACT_SHOT
_SENDER = f"""
import socket, sys, time
sending = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
if int(sys.argv[1]):
    sending.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, int(sys.argv[1]))
data, to = bytes(100), ("{_WORLD}", {_PORT})
print(flush=True)
for line in sys.stdin:
    begin = time.thread_time_ns()
    for _ in range(int(line)):
        sending.sendto(data, to)
    print(time.thread_time_ns() - begin, flush=True)
"""


class Cost(NamedTuple):
    """One way: nanoseconds of CPU time a datagram, and above the plain one of the same round with
    the middle half of the rounds. `program` is what its program at egress takes a run, an empty
    one's taken off; None where there is none."""

    way: str
    nanoseconds: float
    above: float
    low: float
    high: float
    program: float | None


class _Sender:
    """A process that sends when it is told; `group` is where it is led, `mark` its socket's."""

    def __init__(self, host: Namespace, group: Group | None, mark: int = 0):
        argv = host.argv([sys.executable, "-P", "-c", _SENDER, str(mark)])
        # It must not have a socket before it is in its group, and has none before its first line.
        held = ["/bin/sh", "-c", 'read _; exec "$@"', "sh", *argv]
        self.process = subprocess.Popen(
            held, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if group:
            group.enter(self.process.pid)
        self._say("")
        self._hear()

    def _say(self, text: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def _hear(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline()

    def send(self, count: int) -> float:
        """Nanoseconds of its CPU time a datagram."""
        self._say(str(count))
        told = self._hear()
        if not told:
            raise ExperimentError("a sender of route_bench has ended")
        return int(told) / count

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


class _Way(NamedTuple):
    name: str
    sender: _Sender
    program: int = 0


def bench(
    rounds: int = 40, progress: Callable[[int], None] = lambda done: None
) -> tuple[list[Cost], list[str]]:
    """Measure every way in turns; the costs, and which ways this host lacks, with the reason.

    Raises PrivilegeError, BPFError, ExperimentError.
    """
    with contextlib.ExitStack() as stack:
        lacks = list[str]()
        ways = list(_ways(_Hosts(stack), lacks))
        for way in ways:
            way.sender.send(_SENDS)
        times: list[list[float]] = [[] for _ in ways]
        for done in range(rounds):
            for way, measured in zip(ways, times, strict=True):
                measured.append(way.sender.send(_SENDS))
            progress(done + 1)
        runs = [_program_time(way) for way in ways]
    empty = next(time for way, time in zip(ways, runs, strict=True) if way.name == _EMPTY) or 0
    return [
        _cost(way, measured, times[0], None if time is None else time - empty)
        for way, measured, time in zip(ways, times, runs, strict=True)
    ], lacks


_EMPTY = "a program that only lets pass"


def _cost(way: _Way, times: list[float], plain: list[float], program: float | None) -> Cost:
    above = [one - other for one, other in zip(times, plain, strict=True)]
    low, _, high = statistics.quantiles(above, n=4)
    return Cost(way.name, statistics.median(times), statistics.median(above), low, high, program)


def _program_time(way: _Way) -> float | None:
    if not way.program:
        return None
    stats = libbpf.enable_stats()
    try:
        before = libbpf.runs(way.program)
        way.sender.send(_SENDS)
        after = libbpf.runs(way.program)
    finally:
        os.close(stats)
    return (after.nanoseconds - before.nanoseconds) / max(after.times - before.times, 1)


class _Hosts:
    """Makes hosts, groups and senders, which go with a stack."""

    def __init__(self, stack: contextlib.ExitStack):
        self.stack, self._numbers = stack, itertools.count()

    def host(self) -> Namespace:
        """One whose packets are dropped on arrival at another."""
        host, world = (self.stack.enter_context(Namespace(role)) for role in ("host", "world"))
        self._join(host, world, "198.18.0.1", _WORLD)
        drop = libbpf.load_constant(libbpf.PROG_TYPE_SCHED_CLS, b"drop", _DROP)
        self.stack.callback(os.close, drop)
        link = world.call(lambda: libbpf.link_tcx_ingress(drop, _index(world)))
        self.stack.callback(os.close, link)
        return host

    def inside(self, host: Namespace) -> Namespace:
        """Another one, whose way leads by that one, if that forwards."""
        inside = self.stack.enter_context(Namespace("inside"))
        self._join(inside, host, "198.18.1.1", "198.18.1.2", other_end="inner")
        inside.run("ip", "route", "add", "default", "via", "198.18.1.2")
        return inside

    @staticmethod
    def _join(one: Namespace, other: Namespace, *addresses: str, other_end: str = _VIA) -> None:
        join(one, _VIA, other, other_end)
        for end, interface, address in zip((one, other), (_VIA, other_end), addresses, strict=True):
            end.address(interface, address, 24)
            end.up(interface)
        one.neighbour(_VIA, addresses[1], other.mac(other_end))

    def group(self) -> Group:
        """A control group."""
        name = f"bench-{os.getpid()}-{next(self._numbers)}"
        group = self.stack.enter_context(groups.make(name))
        self.stack.callback(group.remove)
        self.stack.callback(group.kill)
        return group

    def sender(self, host: Namespace, group: Group | None = None, mark: int = 0) -> _Sender:
        """A sender."""
        made = _Sender(host, group, mark)
        self.stack.callback(made.close)
        return made


def _index(host: Namespace) -> int:
    return host.call(lambda: socket.if_nametoindex(_VIA))


def _ways(hosts: _Hosts, lacks: list[str]) -> Iterator[_Way]:
    yield _Way("plain", hosts.sender(hosts.host()))
    yield _mark_way(hosts)
    yield _empty_way(hosts)
    yield _switch_way(hosts)
    yield _led_way(hosts)
    yield _cookie_way(hosts)
    for made in (_nft_way, _namespace_way):
        try:
            yield made(hosts)
        except ExperimentError as error:
            lacks.append(str(error))


def _mark_way(hosts: _Hosts) -> _Way:
    host = hosts.host()
    _mark_rule(host)
    return _Way("a mark and its rule", hosts.sender(host, mark=_MARK))


def _mark_rule(host: Namespace) -> None:
    index = _index(host)

    def add(asked: Any) -> None:
        words = {"family": socket.AF_INET, "table": _TABLE}
        asked.rule("add", fwmark=_MARK, fwmask=_MASK, priority=5_000, **words)
        asked.route("add", dst="default", oif=index, **words)

    host.netlink(add)


def _empty_way(hosts: _Hosts) -> _Way:
    program = libbpf.load_constant(libbpf.PROG_TYPE_CGROUP_SKB, b"empty", _ALLOW)
    hosts.stack.callback(os.close, program)
    return _at_egress(hosts, _EMPTY, hosts.host(), program)


def _at_egress(hosts: _Hosts, name: str, host: Namespace, program: int) -> _Way:
    group = hosts.group()
    libbpf.attach_cgroup(program, group.descriptor, libbpf.CGROUP["egress"])
    return _Way(name, hosts.sender(host, group), program)


def _switch_way(hosts: _Hosts) -> _Way:
    """The route's own switch by itself, without its marks and counts."""
    routes = Path(programs.__file__).resolve().parent
    recipe = Recipe(
        *(routes / "lead.c", _HERE / "switch.c"),
        include=(routes,),
        hooks={"only_switch": "cgroup"},
    )
    host, module = hosts.host(), hosts.stack.enter_context(Module(recipe))
    own = (ipaddress.ip_address("198.18.0.1"),)
    program = module.program("only_switch")
    Maps(module.maps()).say(Policy(0, 0, _index(host), 0, (), own))
    return _at_egress(hosts, "the switch alone", host, program)


def _led_way(hosts: _Hosts) -> _Way:
    name, host, stack = f"bench-{os.getpid()}", hosts.host(), hosts.stack

    def up() -> None:
        leading.bring_up(group, Route(via=_VIA, gateway=(_WORLD,)), Mark(_MASK_OF_ROUTES))

    def down() -> None:
        leading.take_down(name, kill=True)

    group = stack.enter_context(groups.make(name))
    host.call(up)
    stack.callback(host.call, down)
    led = stack.enter_context(Leading(name))
    number = libbpf.programs_at(led.group.descriptor, libbpf.CGROUP["egress"])[-1]
    program = libbpf.program_by_id(number)
    stack.callback(os.close, program)
    sender = hosts.sender(host, led.group)
    return _Way("carom route: marked, switched and counted", sender, program)


def _cookie_way(hosts: _Hosts) -> _Way:
    hooks = {"remember": "create", "tell": "tc"}
    recipe = Recipe(_HERE / "cookie.c", hooks=hooks)  # type: ignore[arg-type]
    host, module = hosts.host(), hosts.stack.enter_context(Module(recipe))
    group = hosts.group()
    libbpf.attach_cgroup(module.program("remember"), group.descriptor, libbpf.CGROUP["create"])
    program = module.program("tell")
    link = host.call(lambda: libbpf.link_tcx_egress(program, _index(host)))
    hosts.stack.callback(os.close, link)
    sender = hosts.sender(host, group)
    return _Way("TC egress: socket's cookie and a hash", sender, program)


def _nft(host: Namespace, *commands: str) -> None:
    """Raises ExperimentError for what cannot be done here."""
    if not shutil.which("nft"):
        raise ExperimentError("nft is not installed")
    for command in commands:
        done = host.call(
            lambda command=command: subprocess.run(  # type: ignore[misc]
                ["nft", command], capture_output=True, text=True
            )
        )
        if done.returncode:
            raise ExperimentError(f"nft refuses {command!r}: {done.stderr.splitlines()[0]}")


def _nft_way(hosts: _Hosts) -> _Way:
    host, group = hosts.host(), hosts.group()
    _mark_rule(host)
    # nft(8) looks for the group below /sys/fs/cgroup, where older distributions have version 1.
    point = next((Path(point) for point, _ in mounted()), Path("/sys/fs/cgroup"))
    path = point.relative_to("/sys/fs/cgroup") / f"{groups.PREFIX}{group.name}"
    _nft(
        host,
        "add table inet led",
        "add chain inet led out { type route hook output priority 0; }",
        f'add rule inet led out socket cgroupv2 level 1 "{path}" meta mark set {_MARK:#x}',
    )
    return _Way("nft: socket cgroupv2, mark and rule", hosts.sender(host, group))


def _namespace_way(hosts: _Hosts) -> _Way:
    """What needs neither groups nor programs: a network namespace, and its addresses translated."""
    host = hosts.host()
    inside = hosts.inside(host)
    host.call(lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1"))
    _nft(
        host,
        "add table ip led",
        "add chain ip led out { type nat hook postrouting priority srcnat; }",
        f"add rule ip led out oifname {_VIA} masquerade",
    )
    return _Way("a network namespace behind NAT", hosts.sender(inside))
