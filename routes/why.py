# SPDX-License-Identifier: Apache-2.0
"""How a process or a socket is led, check by check."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from carom.errors import UsageError
from carom.kernel.processes import name_of
from carom.routes import group, records, sockets, tables
from carom.routes.group import Group
from carom.routes.leading import Leading
from carom.routes.programs import NO_IPV6
from carom.routes.report import route_of, words
from carom.routes.route import table_of
from carom.routes.sockets import Socket


class Explained(NamedTuple):
    """A process or a socket; the route that it is of, if any; whether it is led: a process, whether
    what it opens anew is; and what decides that, a sentence each."""

    subject: str
    route: str | None
    led: bool
    checks: list[str]


def of_process(pid: int) -> Explained:
    """How a process is led. Raises CaromError, OSError."""
    try:
        name = route_of(pid)
    except (FileNotFoundError, ProcessLookupError):
        raise UsageError(f"there is no process {pid}") from None
    subject = _process(pid)
    if name is None:
        checks = [
            "it is in no route: its packets go as any other's",
            f"carom route adopt NAME {pid} brings it into one",
        ]
        return Explained(subject, None, False, checks)
    with Leading(name) as led:
        done = led.maps.processes().get(pid)
        refused = words(done.refused) if done else {}
        said = ", ".join(f"{count:,} {_SAYS[word]}" for word, count in refused.items())
        checks = [
            f"it is in route {name}",
            *_standing(name, led),
            *(f"{one}: {how}" for one, how in sockets.of_route(led) if pid in one.held),
            f"refused so far: {said or 'nothing'}",
        ]
    return Explained(subject, name, True, checks)


def of_sockets(local: str) -> list[Explained]:
    """How the sockets of a local end are led, as `sockets` shows it (ADDRESS:PORT).

    Raises CaromError, OSError.
    """
    found = [one for one in sockets.listed() if one.inode and sockets.shown(one.local) == local]
    if not found:
        raise UsageError(
            f"no TCP or UDP socket here has {local} as its own end",
            hint="give it as carom route sockets or ss shows it: ADDRESS:PORT, or [ADDRESS]:PORT",
        )
    held = sockets.held_by(sockets.processes())
    marks = {record.mark: record.name for record in records.here()}
    groups = {_number(name): name for name in group.names()}
    return [
        _of_socket(one, held.get(one.inode, []), marks.get(one.mark), groups.get(one.group))
        for one in found
    ]


def _of_socket(one: Socket, held: list[int], by_mark: str | None, made_in: str | None) -> Explained:
    """`by_mark` is the route whose mark it has, `made_in` the one whose group it was made in."""
    holders = ", ".join(map(_process, held))
    checks = [f"held by {holders}" if holders else "no process holds it"]
    if by_mark:
        checks.append(f"it has the mark of route {by_mark}, {one.mark:#x}: the rules lead it")
    else:
        checks.append(f"it has no route's mark, but {one.mark:#x}: it goes as any other")
    if made_in:
        checks.append(f"it was made in route {made_in}: its switch looks at each packet")
    else:
        checks.append("it was made in no route: no switch looks at its packets")
    if by_mark and not made_in:
        checks.append("so it is led for as long as the rules are there; after that, it leaves")
    if made_in and not by_mark:
        checks.append("so what would leave by another interface is refused")
    if by_mark and made_in:
        with Leading(by_mark) as led:
            checks += _standing(by_mark, led)
    return Explained(str(one), made_in or by_mark, bool(by_mark), checks)


def _process(pid: int) -> str:
    return f"{name_of(pid)} (pid {pid})"


def _number(name: str) -> int:
    try:
        with Group(name) as found:
            return found.number
    except FileNotFoundError:
        return 0


_SAYS = {
    "netns": "sockets in another network namespace",
    "mptcp": "sockets of MPTCP",
    "stray": "packets that would have left by another interface",
    "source": "packets from an address that is not the interface's",
    "ipv6": "ways by IPv6, which is not led",
    "dns": "questions that cannot be led to the resolver",
}


def _standing(name: str, led: Leading) -> Iterator[str]:
    record = records.find(name)
    if record is None:
        yield "what was asked of it is not known any more: stop it, and start it anew"
        return
    link, policy = tables.links().get(record.route.via, tables.GONE), led.maps.policy()
    via = record.route.via
    if not link.ifindex or not link.up:
        yield f"{via} is {'down' if link.ifindex else 'gone'}: nothing leaves until it is back"
    elif policy.ifindex != link.ifindex:
        yield f"{via} is another one than the switch knows: carom route use {name} --via {via}"
    else:
        yield f"new sockets have mark {record.mark:#x}, and leave by {via} or not at all"
    if not group.is_kept(name):
        yield "nobody keeps it: a change of the interface is not followed"
    shown = ", ".join(str(one) for one in policy.sources if not one.is_link_local)
    yield f"from {shown or 'no address'}; table {record.route.table or table_of(via)}"
    if policy.flags & NO_IPV6:
        yield "IPv6 is refused at once, so that programs go on with IPv4"
    resolvers = ", ".join(map(str, policy.dns))
    yield (
        f"names are asked of {resolvers}" if resolvers else "names are asked as resolv.conf says"
    )
