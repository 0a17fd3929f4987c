# SPDX-License-Identifier: Apache-2.0
"""How routes stand, what their programs do, and what is not led, by name."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from carom.errors import CaromError
from carom.kernel.processes import name_of
from carom.routes import group, records, sockets, tables
from carom.routes.group import Group
from carom.routes.leading import Leading
from carom.routes.programs import Process, Why


class Stranger(NamedTuple):
    """Something that gets out, or may: whose it is, and why."""

    pid: int
    name: str
    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid}): {self.what}: {self.why}"


_WHY = {
    "direct": "it was open before, or came from outside, and leaves as any other",
    "mark only": "it was open before: its mark leads it, and no switch stops it",
    "taken along": "its holder is not in the route: what it opens anew is not led",
}


def strangers(led: Leading) -> list[Stranger]:
    """The sockets that are not led as others are, and who holds them. Raises BPFError, OSError."""
    found = []
    inside = {*led.group.pids()}
    for one, how in sockets.of_route(led):
        if how == "led":
            continue
        for pid in one.held:
            if how == "taken along" or pid in inside:
                found.append(Stranger(pid, name_of(pid), str(one), _WHY[how]))
    return found


def route_of(pid: int) -> str | None:
    """The route that a process is in, or in a group of; None for none. Raises OSError."""
    for line in Path(f"/proc/{pid}/cgroup").read_text(errors="replace").splitlines():
        number, _, path = line.split(":", 2)
        first = path.lstrip("/").split("/")[0]
        if number == "0" and first.startswith(group.PREFIX):
            return first.removeprefix(group.PREFIX)
    return None


State = Literal["leads", "cut", "left"]
"""`cut`: its interface is gone or down. `left`: nobody keeps it, so it follows no change."""


class Row(NamedTuple):
    """A route, as `ls` shows it; `keeper` is 0 where nobody keeps it."""

    name: str
    via: str
    state: State
    keeper: int
    processes: int
    dns: tuple[str, ...]
    mark: int
    refused: dict[str, int]


def routes() -> list[Row]:
    """All routes that are up or were left. Raises CaromError, OSError."""
    known = {record.name: record for record in records.all_of_them()}
    links = tables.links()
    rows = []
    for name in sorted({*group.names(), *known}):
        record = known.get(name)
        via = record.route.via if record else ""
        link = links.get(via, tables.GONE)
        kept = group.is_kept(name)
        state: State = "left" if not kept else "leads" if link.up else "cut"
        processes, refused = _inside(name)
        rows.append(
            Row(
                name,
                via or "?",
                state,
                record.keeper if record and kept else 0,
                processes,
                record.route.dns if record else (),
                record.mark if record else 0,
                refused,
            )
        )
    return rows


def _inside(name: str) -> tuple[int, dict[str, int]]:
    """How many processes are in a route, and what was refused there."""
    try:
        with Group(name) as found:
            count = len(found.pids())
        with Leading(name) as led:
            return count, words(led.maps.refused())
    except (FileNotFoundError, CaromError):
        return 0, {}


def words(refused: dict[Why, int]) -> dict[str, int]:
    """What was refused, by its reason's name."""
    return {why.name.lower(): count for why, count in refused.items() if count}


class Held(NamedTuple):
    """A socket, as `sockets` shows it; `held` are its holders' names by pid."""

    route: str
    socket: str
    how: str
    mark: int
    held: dict[int, str]


def sockets_of(name: str | None) -> Iterator[Held]:
    """The sockets of a route, or of all. Raises CaromError, OSError."""
    for one in [name] if name else [row.name for row in routes()]:
        with Leading(one) as led:
            for found, how in sockets.of_route(led):
                held = {pid: name_of(pid) for pid in found.held}
                yield Held(one, str(found), how, found.mark, held)


class Rate(NamedTuple):
    """What a process' sockets do, as `top` shows it; bytes, and bytes a second."""

    route: str
    pid: int
    program: str
    uid: int
    alive: bool
    sockets: int
    by: str
    out_bytes_s: float
    in_bytes_s: float
    out_packets_s: float
    in_packets_s: float
    out_bytes: int
    in_bytes: int
    why: dict[str, int]


class Watch:
    """Looks at all routes' processes again and again."""

    def __init__(self) -> None:
        self._time = time.monotonic()
        self._before = self._now()

    def _now(self) -> dict[tuple[str, int], Process]:
        found: dict[tuple[str, int], Process] = {}
        for name in group.names():
            with contextlib.suppress(CaromError), Leading(name) as led:
                found |= {(name, pid): one for pid, one in led.maps.processes().items()}
        return found

    def look(self) -> list[Rate]:
        """What was done since the last look, the busiest first. Raises OSError."""
        seconds, before = time.monotonic() - self._time, self._before
        self._time, self._before = time.monotonic(), self._now()
        rows = [
            _rate(name, pid, one, before.get((name, pid)), seconds)
            for (name, pid), one in self._before.items()
        ]
        return sorted(rows, key=lambda row: -row.out_bytes_s - row.in_bytes_s)


def _rate(name: str, pid: int, now: Process, before: Process | None, seconds: float) -> Rate:
    def since(field: str) -> float:
        earlier: int = getattr(before, field) if before else 0
        done: int = getattr(now, field) - earlier
        return max(done, 0) / seconds

    return Rate(
        route=name,
        pid=pid,
        program=now.name or name_of(pid),
        uid=now.uid,
        alive=Path(f"/proc/{pid}").exists(),
        sockets=now.open,
        by=_interface(now.ifindex),
        out_bytes_s=since("out_bytes"),
        in_bytes_s=since("in_bytes"),
        out_packets_s=since("out_packets"),
        in_packets_s=since("in_packets"),
        out_bytes=now.out_bytes,
        in_bytes=now.in_bytes,
        why=words(now.refused),
    )


def _interface(index: int) -> str:
    if not index:
        return ""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return f"gone ({index})"
