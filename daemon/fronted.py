# SPDX-License-Identifier: Apache-2.0
"""A service that is already there: its replies are learned as they leave its socket."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyroute2.netns
import structlog

from carom.daemon.answered import Answered
from carom.daemon.cache import Clock
from carom.daemon.fastpath import FastPath
from carom.daemon.options import Options
from carom.errors import ServerError, UsageError
from carom.include import libbpf
from carom.include.abi import SLOTS, Event

WRITES_ELSEWHERE = ("refuse", "ttl")
"""What to do where a server may be written to unseen: refuse, or accept staleness up to the TTL."""

_SO_NETNS_COOKIE = 71  # asm-generic/socket.h; Linux 5.14
_LISTENS = "0A"  # TCP_LISTEN, in proc's tables

_WHY_NOT = {
    "raw": "its replies do not name the request that they answer",
    "kv": "its replies do not name the key that they are the value of",
}


log = structlog.get_logger()


class Front:
    """A server that is not ours, to put the cache before; `options` as a Service has them."""

    def __init__(self, options: Options, writes_elsewhere: str = "refuse"):
        """Raises UsageError for a protocol that cannot be learned."""
        if options.protocol in _WHY_NOT:
            raise UsageError(
                f"front cannot learn {options.protocol}: {_WHY_NOT[options.protocol]}",
                hint="--protocol memcached | dns; a Python service of yours runs by `carom serve`",
            )
        if options.fast != "cache" or options.hook == "none":
            raise UsageError("front is a cache in the kernel", hint="--fast cache, --hook xdp | tc")
        if writes_elsewhere not in WRITES_ELSEWHERE:
            raise UsageError(
                f"writes-elsewhere {writes_elsewhere!r} is unknown",
                hint=" | ".join(WRITES_ELSEWHERE),
            )
        self.options = options
        self.writes_elsewhere = writes_elsewhere


class Fronted(Answered):
    """A server that others run on this host, in this namespace or another."""

    learns = True

    def __init__(self, front: Front, id: int):
        """Look for the server. Raises ServerError for none, or one that is written to unseen."""
        super().__init__(front.options, id)
        if self.options.ttl != int(self.options.ttl):
            raise UsageError(
                f"ttl {self.options.ttl:g} is not whole seconds, as front counts them",
                hint="--ttl 1s, or more",
            )
        port = self.options.port
        sockets = _listening(port)
        if not sockets:
            raise ServerError(
                f"no process of this host listens on UDP port {port}",
                hint="start the server first; one on another host cannot be fronted from here",
            )
        if self.options.protocol == "memcached" and front.writes_elsewhere == "refuse":
            _check_unix(port, sockets)
        self._sockets = sockets
        self._watched: tuple[set[int], set[int]] | None = None
        self._fastpath: FastPath | None = None

    def prepare(self, fastpath: FastPath | None, clock: Clock | None) -> None:
        """Watch the server's sockets: before anything is answered."""
        super().prepare(fastpath, clock)
        assert fastpath
        self._fastpath = fastpath
        fastpath.bump(SLOTS + self.id)  # nothing from before carom saw writes
        self._watch(fastpath, self._sockets)

    def look_again(self) -> None:
        """The server may have begun anew, in another network namespace."""
        sockets = _listening(self.options.port)
        if sockets and self._fastpath:
            self._watch(self._fastpath, sockets)

    def _watch(self, fastpath: FastPath, sockets: list[_Socket]) -> None:
        """See what these sockets are asked to write; learn from their network namespace."""
        ports = {self.options.port}
        if self.options.protocol == "memcached":
            ports |= _all_ports(sockets)
        cookies = {_cookie(one.neighbour) for one in sockets}
        if self._watched == (ports, cookies):
            return
        self._watched = ports, cookies
        if len(cookies) > 1:
            log.warning(
                "servers of several network namespaces hold the port: all replies are learned",
                port=self.options.port,
            )
        netns = min(cookies) if len(cookies) == 1 else 0
        for port in ports:
            fastpath.watch(port, self.id, self.protocol, int(self.options.ttl), netns)

    def status(self) -> dict[str, Any]:
        """Its counters."""
        status = super().status()
        events = self._fastpath.events() if self._fastpath else {}
        if status["cache"]:
            status["cache"]["fills"] = events.get(Event.LEARNED, 0)
            status["cache"]["refused"] = events.get(Event.FULL, 0)
            status["cache"]["not_admitted"] = events.get(Event.NOT_ADMITTED, 0)
            status["cache"]["unfit"] = events.get(Event.UNLEARNABLE, 0)
        return status


class _Socket(NamedTuple):
    """A process that holds a socket, its inode, and a process in the socket's network namespace.

    A process may hold a socket of a namespace that it is not in itself.
    """

    pid: int
    inode: str
    neighbour: Path


def _listening(port: int) -> list[_Socket]:
    """The UDP sockets on a port that may be learned from.

    Those of our own network namespace, if it has any; else, or where the kernel cannot tell one
    namespace's replies from another's, those of every one of this host.
    """
    found = _everywhere(port)
    ours = _namespace(Path("/proc/self"))
    own = [one for one in found if _namespace(one.neighbour) == ours]
    return own if own and libbpf.cgroup_skb_has_netns_cookie() else found


def _everywhere(port: int) -> list[_Socket]:
    """The UDP sockets on a port, in every network namespace of this host."""
    inodes: dict[str, Path] = {}
    seen: set[str] = set()
    processes = list(Path("/proc").glob("[0-9]*"))
    for process in processes:
        with contextlib.suppress(OSError):  # it has ended
            namespace = _namespace(process)
            if namespace not in seen:
                inodes |= dict.fromkeys(_udp_inodes(process, port), process)
                seen.add(namespace)
    found = []
    for process in processes if inodes else ():
        with contextlib.suppress(OSError):
            for inode in _sockets(process) & inodes.keys():
                found.append(_Socket(int(process.name), inode, inodes[inode]))
    return found


def _namespace(process: Path) -> str:
    """The name of a process' network namespace; none once it has ended."""
    try:
        return os.readlink(process / "ns/net")
    except FileNotFoundError:
        return ""


def _cookie(process: Path) -> int:
    """The number that the kernel has for a process' network namespace; 0 where it tells none."""
    cookies = [0]

    def ask() -> None:  # in a thread, which alone moves there
        with contextlib.suppress(OSError):
            pyroute2.netns.setns(str(process / "ns/net"))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                cookie = probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
                cookies[0] = int.from_bytes(cookie, sys.byteorder)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return cookies[0]


def _udp_inodes(process: Path, port: int) -> set[str]:
    """Inodes of the UDP sockets bound to a port in a process' network namespace."""
    return {inode for found, inode in _bound(process, "udp", "udp6") if found == port}


def _bound(process: Path, *tables: str) -> Iterator[tuple[int, str]]:
    """Local port and inode of each UDP socket, and of each TCP one that listens (proc(5))."""
    for name in tables:
        for line in (process / "net" / name).read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if name.startswith("udp") or state == _LISTENS:
                yield int(local.rpartition(":")[2], 16), inode


def _all_ports(sockets: Iterable[_Socket]) -> set[int]:
    """Every port that the server's processes can be written to by: writes are seen at each."""
    ports = set()
    for one in sockets:
        process = Path("/proc") / str(one.pid)
        with contextlib.suppress(OSError):  # it has ended
            mine = _sockets(process)
            tables = _bound(process, "udp", "udp6", "tcp", "tcp6")
            ports |= {port for port, inode in tables if inode in mine}
    return ports


def _sockets(process: Path) -> set[str]:
    """Inodes of a process' sockets."""
    found = set()
    for descriptor in (process / "fd").iterdir():
        match = re.fullmatch(r"socket:\[(\d+)\]", str(descriptor.readlink()))
        if match:
            found.add(match[1])
    return found


def _check_unix(port: int, sockets: Iterable[_Socket]) -> None:
    """A server that also listens on a Unix socket takes writes that nobody sees."""
    for one in sockets:
        process = Path("/proc") / str(one.pid)
        try:
            mine = _sockets(process)
            lines = (process / "net/unix").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, _, _, flags, _, _, inode, *path = line.split()
            if int(flags, 16) & 0x10000 and inode in mine:  # __SO_ACCEPTCON: it listens
                raise ServerError(
                    f"the server on port {port} (pid {one.pid}) also listens on the Unix socket "
                    f"{path[0] if path else 'of no name'}, where writes cannot be seen",
                    hint="start it without, or accept staleness up to the TTL: "
                    "--writes-elsewhere ttl",
                )
