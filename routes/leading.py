# SPDX-License-Identifier: Apache-2.0
"""Routes brought up, changed and taken away, in an order in which nothing gets out meanwhile.

What is wanted of rules and tables follows from the records of all routes, so whoever changes one
also takes away what a process that was killed has left.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from carom.errors import BPFError, BusyError, InterfaceError, UsageError
from carom.kernel import netns
from carom.kernel.netlink import Network
from carom.kernel.resource import Resource
from carom.routes import group as groups
from carom.routes import programs, records, tables
from carom.routes.group import Group
from carom.routes.lost import Lost
from carom.routes.programs import LAN, NO_IPV6, OTHER_NETNS, Maps, Policy
from carom.routes.records import Record
from carom.routes.route import Mark, Route, leads_ipv6, table_of
from carom.routes.tables import GONE, Link, Rule, Table, Tables


class Leading(Resource):
    """A route that is up: its group and its maps. It stays up when this is closed."""

    def __init__(self, name: str):
        """Raises UsageError where there is no route of this name, BPFError, PrivilegeError."""
        try:
            self.group = Group(name)
        except FileNotFoundError as error:
            raise UsageError(
                f"there is no route {name}", hint="carom route ls shows those that there are"
            ) from error
        try:
            found = programs.find(self.group.descriptor)
        except BaseException:
            self.group.close()
            raise
        if found is None:
            self.group.close()
            raise BPFError(
                f"the control group of route {name} has no programs",
                hint=f"take it away: carom route stop {name}",
            )
        self.maps: Maps = found

    def close(self) -> None:
        """Close what was opened."""
        self.maps.close()
        self.group.close()


def bring_up(group: Group, route: Route, mark: Mark) -> None:
    """Make a route of a new group, all of it, or nothing.

    Raises UsageError, InterfaceError, BPFError, PrivilegeError, OSError.
    """
    name = group.name
    with records.locked(), contextlib.ExitStack() as undone:
        _check(route, _link(route.via))
        _check_tables(name, route)
        Tables().check(mark.mask)
        number = records.free_number(mark)
        used = {route.via: route.gateway}
        record = Record(name, netns.own_cookie(), os.getpid(), number, mark.mask, route, used)
        with programs.attach(group.descriptor) as maps:
            undone.callback(_forget, name)
            records.write(record)
            _settle(records.here(), {name: maps})
        undone.pop_all()


def refresh(name: str, lost: Lost) -> Link:
    """Have a route follow its interface, which is returned. Raises as `bring_up`."""
    with records.locked(), Leading(name) as leading:
        record = _recorded(name)
        links = _settle(records.here(), {name: leading.maps}, lost)
    return links.get(record.route.via, GONE)


def change(name: str, route: Route) -> None:
    """Lead a route's programs by another interface. Raises as `bring_up`."""
    with records.locked(), Leading(name) as leading:
        before = _recorded(name)
        _check(route, _link(route.via))
        _check_tables(name, route)
        used = before.used | {route.via: route.gateway}
        record = msgspec.structs.replace(before, route=route, used=used)
        records.write(record)
        try:
            _settle(records.here(), {name: leading.maps})
        except BaseException:
            records.write(before)
            raise


def take_down(name: str, *, kill: bool = False) -> None:
    """Take a route away, with all that a killed one left; with `kill`, end what runs in it.

    Raises UsageError where there is none, BusyError where programs run in it, OSError.
    """
    with records.locked():
        _taken_down(name, kill=kill)


def _taken_down(name: str, *, kill: bool = False) -> None:
    record = records.find(name)
    try:
        led = Group(name)
    except FileNotFoundError:
        if record is None:
            raise UsageError(f"there is no route {name}") from None
    else:
        with led:
            if kill:
                led.kill()
            if not led.is_empty() or not led.remove():
                raise BusyError(
                    f"programs run in route {name}: {_named(led.pids())}",
                    hint="end them first, or with --kill",
                )
    if record is None or record.netns == netns.own_cookie():
        _forget(name)
    else:
        records.remove(name)


def _named(pids: list[int]) -> str:
    shown = ", ".join(map(str, pids[:8]))
    return (
        f"pid {shown}{' and more' if len(pids) > 8 else ''}" if pids else "in groups of their own"
    )


def sweep() -> list[str]:
    """Take away the routes that nobody keeps and nothing runs in; their names. Raises OSError."""
    gone = []
    with records.locked():
        for name in sorted({*groups.names(), *(one.name for one in records.all_of_them())}):
            if not groups.is_kept(name):
                with contextlib.suppress(BusyError, UsageError):
                    _taken_down(name)
                    gone.append(name)
    return gone


def _forget(name: str) -> None:
    """Take away what only this route wanted, and its record last: as long as that is there, so is
    whoever takes away the rest."""
    _settle([record for record in records.here() if record.name != name], {})
    records.remove(name)


def _recorded(name: str) -> Record:
    record = records.find(name)
    if record and record.netns != netns.own_cookie():
        raise UsageError(f"route {name} is in another network namespace")
    if record is None:
        raise UsageError(
            f"what was asked of route {name} is not known any more",
            hint=f"stop it and start it anew: carom route stop {name} --kill",
        )
    return record


def _link(via: str) -> Link:
    found = tables.links()
    if via not in found:
        shown = ", ".join(sorted(found.keys() - {"lo"})) or "none"
        raise InterfaceError(f"there is no interface {via}", hint=f"there are: {shown}")
    return found[via]


def _check(route: Route, link: Link) -> None:
    """Raises InterfaceError for an interface that nothing could leave by."""
    if not link.up:
        raise InterfaceError(f"{route.via} is down", hint=f"ip link set {route.via} up")
    usable = [one for one in link.addresses if not one.is_link_local]
    if not any(one.version == 4 for one in usable) and route.ipv6 == "refuse":
        raise InterfaceError(f"{route.via} has no IPv4 address, and IPv6 is refused")
    if not usable:
        raise InterfaceError(f"{route.via} has no address", hint="give it one first")
    if route.ipv6 == "lead" and not link.has_global_ipv6:
        raise InterfaceError(
            f"{route.via} has no IPv6 address that reaches anybody",
            hint="give it one, or leave --ipv6 out",
        )


def _check_tables(name: str, route: Route) -> None:
    """Raises UsageError where another interface has the same table, or another route other routers
    in it."""
    if route.table is not None:
        return
    for record in records.here():
        for via, gateway in record.used.items():
            if via != route.via and table_of(via) == table_of(route.via):
                raise UsageError(
                    f"{via} and {route.via} have the same table by their names",
                    hint="name another one: table, in the policy file",
                )
            if via == route.via and gateway != route.gateway and record.name != name:
                raise UsageError(
                    f"route {record.name} uses {via} with another gateway, "
                    f"{', '.join(gateway) or 'none'}",
                    hint="an interface has one table, so its routes have one gateway",
                )


class _Seen(NamedTuple):
    """What is there now: interfaces, rules, and this host's own networks by the route that leaves
    them alone."""

    links: Mapping[str, Link]
    rules: Tables
    lans: Mapping[str, list[Network]]


def _seen(wanted: Iterable[Record]) -> _Seen:
    direct = (record for record in wanted if record.route.lan == "direct")
    lans = {record.name: tables.lans(record.route.via) for record in direct}
    return _Seen(tables.links(), Tables(), lans)


def _settle(
    wanted: Iterable[Record], maps: Mapping[str, Maps], lost: Lost | None = None
) -> Mapping[str, Link]:
    """Bring rules, tables and these maps to what the records say: first what is missing, then the
    switches, then what is too much. Returns the interfaces as they were seen."""
    wanted = list(wanted)
    seen = _seen(wanted)
    rules, filled = _wanted(wanted, seen, lost or Lost())
    marks = [rule for rule in rules if rule.mark and not rule.destination]
    seen.rules.add([rule for rule in rules if rule not in marks], filled)
    for record in wanted:
        if record.name in maps:
            maps[record.name].say_lans(seen.lans.get(record.name, ()))
            maps[record.name].say(_policy(record, seen.links.get(record.route.via, GONE)))
    seen.rules.add(marks, {})
    seen.rules.remove(rules)
    return seen.links


def _wanted(
    wanted: Iterable[Record], seen: _Seen, lost: Lost
) -> tuple[list[Rule], dict[int, Table]]:
    rules: dict[Rule, None] = {}
    filled: dict[int, Table] = {}
    for record in wanted:
        own, lans = record.route.table, seen.lans.get(record.name, ())
        rules |= dict.fromkeys(tables.direct(lans, record.mark, record.mask))
        rules |= dict.fromkeys(
            tables.marked(record.mark, record.mask, own or table_of(record.route.via))
        )
        for via, gateway in record.used.items():
            link = seen.links.get(via, GONE)
            number = own if own and via == record.route.via else table_of(via)
            rules |= dict.fromkeys(tables.sourced(link.addresses, number))
            rules |= dict.fromkeys(lost.kept(_had(via, number, seen), link))
            rules |= dict.fromkeys(tables.endpoints(link.remotes, record.mark, record.mask))
            if number != own:
                filled[number] = Table(link.ifindex, tables.by_family(gateway))
    return list(rules), filled


def _had(via: str, table: int, seen: _Seen) -> list[Rule]:
    """The rules of the addresses that an interface had, which no other one has."""
    links = seen.links.items()
    others = {str(one) for name, link in links if name != via for one in link.addresses}
    return [rule for rule in seen.rules.of_source(table) if rule.source not in others]


def _policy(record: Record, link: Link) -> Policy:
    route = record.route
    no_ipv6 = not leads_ipv6(route, link.has_global_ipv6)
    flags = (
        NO_IPV6 * no_ipv6
        | OTHER_NETNS * (route.other_netns == "allow")
        | LAN * (route.lan == "direct")
    )
    resolvers = tuple(map(ipaddress.ip_address, route.dns))
    index = link.ifindex if link.up else 0
    return Policy(netns.own_cookie(), record.mark, index, flags, resolvers, link.addresses)
