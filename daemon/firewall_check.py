# SPDX-License-Identifier: Apache-2.0
"""The rules that what is answered in the kernel bypasses: found, reported, and heeded."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

from carom import log
from carom.daemon import firewall
from carom.daemon.bypassed_programs import cgroup_programs, tc_programs
from carom.daemon.fastpath import Attachment
from carom.daemon.firewall import Findings, Ruleset, Way
from carom.daemon.receiver import Receiver, some
from carom.errors import FirewallError
from carom.kernel.links import Interface

_TRIED = 8  # addresses that are looked at one by one


class FirewallCheck:
    """Knows what the firewall, and others, would do to what services answer on interfaces."""

    def __init__(
        self,
        services: Iterable[Receiver],
        interfaces: Sequence[Interface],
        rules: Ruleset,
        changed: Callable[[], None],
    ):
        """Look, and raise FirewallError where the firewall drops by default what is answered.

        `rules` have just been read. `changed` is called when the translation of requests changes.
        """
        self._services = [service for service in services if service.options.fast != "off"]
        self.interfaces = interfaces
        self._changed = changed
        self._attachments: Sequence[Attachment] = ()
        self._programs: Callable[[], Sequence[int]] = tuple
        self._warned: set[str] = set()
        self._findings: dict[int, tuple[Findings, Findings]] = {}
        self._others: list[str] = []
        self._elsewhere: list[str] = []
        self._looking = threading.Lock()
        self._look(rules)
        self._refuse(rules)
        self._warned |= set(self._elsewhere)

    def check_again(self) -> None:
        """Look again as at the start: the options have changed. Raises FirewallError."""
        with self._looking:
            rules = Ruleset()
            self._look(rules)
            self._refuse(rules)

    def _refuse(self, rules: Ruleset) -> None:
        for port, (_, allowed) in self._findings.items():
            if allowed.certain and not self._bypass:
                raise FirewallError(
                    f"the firewall drops by default what would be answered on port {port} before "
                    f"it: {some(allowed.certain)}",
                    hint=f"{self._accepted(rules, port)}--allow PREFIX for those whom it accepts "
                    "and no others, a rule that accepts the port for all, or --bypass-firewall",
                    trap="firewall",
                )
            self._warned |= set(allowed.certain)

    @property
    def _bypass(self) -> bool:
        return any(service.options.bypass_firewall for service in self._services)

    def attached(
        self, attachments: Sequence[Attachment], programs: Callable[[], Sequence[int]]
    ) -> None:
        """Look behind the fast path too: where it is now, and what tells its programs' ids."""
        self._attachments, self._programs = attachments, programs
        self._others = list(self._look_beside())

    def moved(self, attachments: Sequence[Attachment]) -> None:
        """The interfaces have changed: the next look is at these."""
        self._attachments = attachments
        self.interfaces = [attachment.interface for attachment in attachments]

    def look_again(self) -> None:
        """Look again; warn once of each rule that now drops by default what is answered."""
        with self._looking:
            self._look_again()

    def _look_again(self) -> None:
        self._look()
        self._others = list(self._look_beside())
        for port, (_, allowed) in self._findings.items():
            new = [rule for rule in allowed.certain if rule not in self._warned]
            if new:
                log.warning(
                    "the firewall drops by default now what is answered before it",
                    port=port,
                    rules=some(new),
                    do="stop carom, or start it with --allow or --bypass-firewall",
                )
            self._warned |= set(new)
        for words in self._elsewhere:
            if words not in self._warned:
                log.warning(words)
        self._warned |= set(self._elsewhere)

    def _look(self, rules: Ruleset | None = None) -> None:
        rules = rules or Ruleset()
        self._heed_translations(rules)
        findings: dict[int, tuple[Findings, Findings]] = {}
        for service in self._services:
            port = service.options.port
            ways = list(firewall.ways(self.interfaces, service.answered_at))
            anybody, allowed = _looked(service, rules, ways)
            if port in findings:  # at another address
                anybody, allowed = (
                    _both(findings[port][0], anybody),
                    _both(findings[port][1], allowed),
                )
            findings[port] = anybody, allowed
        self._findings = findings

    def _accepted(self, rules: Ruleset, port: int) -> str:
        """A hint at options for the part that the firewall accepts; "" where there is none."""
        for service in self._services:
            bind = ipaddress.ip_address(service.options.bind)
            if service.options.port != port or not bind.is_unspecified:
                continue
            ways = list(firewall.ways(self.interfaces, service.answered_at))
            ipv4 = [way for way in ways if way.address.version == 4]
            if ipv4 and len(ipv4) < len(ways) and not _looked(service, rules, ipv4)[1].certain:
                return "--bind 0.0.0.0 for IPv4 alone, which it accepts; "
            addresses = dict.fromkeys(way.address for way in ways if not way.address.is_link_local)
            for address in list(addresses)[:_TRIED]:
                mine = [way for way in ways if way.address == address]
                if len(mine) < len(ways) and not _looked(service, rules, mine)[1].certain:
                    return f"--bind {address} for that alone, which it accepts; "
        return ""

    def _heed_translations(self, rules: Ruleset) -> None:
        """Find out which requests are sent on to others: these are not answered."""
        for service in self._services:
            if service.heed(rules, self.interfaces):
                self._changed()
        self._elsewhere = [
            f"requests {words}: nothing is answered there"
            for service in self._services
            for interface in self.interfaces
            for words in service.goes_elsewhere(interface)
        ]

    def notes(self) -> Iterator[str]:
        """Notes for whoever runs carom."""
        yield from self.rules()
        yield from self.unread()
        yield from self.elsewhere()
        yield from self._others

    def rules(self) -> Iterator[str]:
        """Rules that hits bypass: what drops by default, and what is about the port."""
        for port, (anybody, allowed) in self._findings.items():
            if allowed.certain:
                yield (
                    f"the firewall drops by default what hits on port {port} pass"
                    f"{' (--bypass-firewall)' if self._bypass else ''}: {some(allowed.certain)}"
                )
            elif anybody.certain:
                yield (
                    f"the firewall drops by default, which hits on port {port} pass: --allow alone "
                    f"says who is answered: {some(anybody.certain)}"
                )
            if anybody.rules:
                yield (
                    f"the firewall does not see what is answered on port {port}, and has rules on "
                    f"it: {some(anybody.rules)}"
                )

    def unread(self) -> Iterator[str]:
        """What could not be read."""
        for unread in dict.fromkeys(
            text for findings, _ in self._findings.values() for text in findings.unread
        ):
            yield f"the firewall could not be looked at wholly: {unread}"

    def elsewhere(self) -> Iterator[str]:
        """Requests that rules send on to others."""
        return iter(self._elsewhere)

    def _look_beside(self) -> Iterator[str]:
        for service in self._services:
            port = service.options.port
            programs = list(cgroup_programs(service.processes(), self._programs()))
            if programs:
                yield cgroup_words(port, programs)
            yield from service.protocol.access_lists(service.processes())
        for attachment in self._attachments:
            programs = list(tc_programs(attachment, self._programs()))
            if programs:
                yield tc_words(attachment.interface.name, programs)


def cgroup_words(port: int, programs: Sequence[str]) -> str:
    """What control groups' programs do not see."""
    return (
        "programs of control groups (systemd's IPAddressDeny= is one) do not see what "
        f"is answered on port {port}; repeat what they say with --allow PREFIX: {some(programs)}"
    )


def tc_words(interface: str, programs: Sequence[str]) -> str:
    """What programs at TC do not see."""
    return f"what is attached to {interface} does not see what is answered: {some(programs)}"


def _looked(service: Receiver, rules: Ruleset, ways: list[Way]) -> tuple[Findings, Findings]:
    """The findings on a service, by these ways: for all sources, and for those that it allows."""
    port, allow = service.options.port, service.options.allow
    anybody = firewall.look(rules, port, ways)
    allowed = firewall.look(rules, port, ways, allow) if allow else anybody
    for pid in firewall.elsewhere(service.processes()):
        theirs = firewall.inside(pid, Ruleset)
        if theirs is None:
            unread = f"the network namespace of pid {pid} could not be entered"
            anybody = anybody._replace(unread=(*anybody.unread, unread))
            continue
        at = service.server_port
        anybody = _both(anybody, firewall.look(theirs, at, ways, exact=False))
        allowed = _both(allowed, firewall.look(theirs, at, ways, allow, exact=False))
    return anybody, allowed


def _both(findings: Findings, other: Findings) -> Findings:
    return Findings(*(tuple(dict.fromkeys(a + b)) for a, b in zip(findings, other, strict=True)))
