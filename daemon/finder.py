# SPDX-License-Identifier: Apache-2.0
"""Finds the server that gets a service's requests, and follows it."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from carom import log
from carom.daemon import firewall, identity, sockets
from carom.daemon.firewall import Way
from carom.daemon.front import Front
from carom.daemon.identity import Server
from carom.daemon.no_server import none_listens, none_receives
from carom.daemon.receiver import reachable, wanted_of
from carom.daemon.sockets import Namespace, Socket
from carom.daemon.targets import targets
from carom.daemon.translated import Translation, Translations, is_keeper, kept_for
from carom.errors import CaromError, ServerError
from carom.kernel import netlink
from carom.kernel.links import At, Interface
from carom.kernel.netlink import Address


class Found(NamedTuple):
    """The server, and the network namespace that it was found in."""

    server: Server
    namespace: Namespace


class Finder:
    """Looks for a fronted server: `found` is what was seen last, `first` the server at the start.

    `own` is carom's network namespace, and `port` the server's own port, which requests may be
    translated to.
    """

    def __init__(
        self,
        front: Front,
        interfaces: Sequence[Interface],
        wanted: Callable[[str, Iterable[Address]], list[Address]],
        translations: Callable[[], Translations],
        handing: Callable[[Iterable[Way]], Sequence[str]],
    ):
        """`wanted` chooses the service's among an interface's addresses, `translations` gives how
        requests are translated now, and `handing` the rules that send some requests on.

        Raises ServerError for no server, for several, and for one that may be written to unseen.
        """
        self._front = front
        self._options = front.options
        self._translations = translations
        self._handing = handing
        self._names = [interface.name for interface in interfaces]
        self._addresses = reachable(interfaces)
        self._reached = [at for interface in interfaces for at in interface.reached]
        self._keepers: dict[Socket, Translation | None] = {}
        self._beside: set[int] = set()
        self._not_learned = ""
        self.why_gone = ""
        self.own = sockets.namespace_of(Path("/proc/self"))
        self.port = front.server_port or self._options.port
        self.found = self._find(interfaces, wanted)
        self.first = self.found.server
        self._there = self._addresses_of(self.found.namespace)
        self._check_unix(self.first)

    @property
    def here(self) -> bool:
        """Whether the server is in carom's own network namespace."""
        return self.found.namespace == self.own

    def follow(self, claim: Callable[[Server], None]) -> Found:
        """Look again: the server may have started again, perhaps elsewhere.

        `claim` takes the server's processes, and raises ServerError for another service's.
        """
        self._claim = claim
        self.found = self._follow()
        self._there = self._addresses_of(self.found.namespace)
        return self.found

    def described(self) -> str:
        """Who the server is, and where it receives."""
        return _described(self.found)

    def gone(self) -> str:
        """Why there is no server."""
        to = ", ".join(sorted(map(str, self._destinations())))
        at = f" at {to}, where requests go on to" if to else ""
        return self.why_gone or f"none holds UDP port {self.port}{at}"

    def receivers(self, interface: str, address: Address) -> list[Socket]:
        """The sockets that may get what is sent to an address by an interface.

        Where nothing is known of translations, a server in another network namespace gets it all.
        """
        server, namespace = self.found
        to, here = self._translation(interface, address), namespace == self.own
        if to and to.port == self.port and to.local == here:
            mine = here or to.address in self._there
            at = to.address or address
            return [socket for socket in server.sockets if socket.receives(at)] if mine else []
        if to or (here and self.port != self._options.port and not self._front.server_port):
            return []
        if here:
            return [socket for socket in server.sockets if socket.receives(address)]
        if self._translations() or any(self._keepers.values()):
            return []  # requests at this address are not translated
        socket = identity.translated(server.sockets, address.version)
        return [socket] if socket else []

    def _find(
        self,
        interfaces: Sequence[Interface],
        wanted: Callable[[str, Iterable[Address]], list[Address]],
    ) -> Found:
        """The one server that requests get to: in carom's network namespace, if one is there."""
        self._keepers = self._look_for_keepers()
        ways = list(firewall.ways(interfaces, wanted))
        asked = [(way.address, self._translation(way.interface, way.address)) for way in ways]
        looked_in: list[Namespace] = []
        for target in targets(asked, self.port, said=bool(self._front.server_port)):
            self.port = target.port
            if target.addresses:
                self._arrive_at(target.addresses, interfaces)
            among = [self.own] if target.here else list(self._others())
            looked_in += among
            servers = [server for namespace in among for server in self._servers_in(namespace)]
            if servers:
                return self._only(servers)
        rules = self._handing(ways)
        at = self._at_bind()
        raise none_listens(self._options, self.port, at, looked_in, self._keepers, rules)

    def _arrive_at(self, addresses: Sequence[Address], interfaces: Sequence[Interface]) -> None:
        """Requests come to these addresses: the interfaces' own, or what they are translated to."""
        reached = [at for interface in interfaces for at in interface.reached]
        known = set(addresses)
        ways = {(at.link, at.vrf) for at in reached}
        self._addresses = list(addresses)
        self._reached = [at for at in reached if at.address in known] or [
            At(address, *way) for address in addresses for way in ways
        ]

    def _others(self) -> Iterator[Namespace]:
        """The other network namespaces that the server may be in."""
        for namespace in sockets.other_namespaces():
            with contextlib.suppress(OSError):  # its process has ended
                if sockets.is_ours(namespace.process) and self._is_reached(namespace):
                    yield namespace

    def _only(self, servers: list[Found]) -> Found:
        if len(servers) > 1:
            raise ServerError(
                f"several servers hold UDP port {self.port}: "
                + "; ".join(_described(server) for server in servers),
                hint="--bind ADDRESS chooses the one that is bound to it; a server in another "
                "network namespace is fronted from there",
                trap="several-servers",
            )
        self._check_held(servers[0])
        self._check_reached(servers[0])
        return servers[0]

    def _look_for_keepers(self) -> dict[Socket, Translation | None]:
        """Sockets that are only held for a container, and where their requests are relayed to."""
        at_port = [
            socket
            for socket in sockets.bound(self.own.process, stream=False)
            if socket.serves and socket.port == self._options.port
        ]
        holders = sockets.holders((socket.inode for socket in at_port), sockets.processes())
        pids_of = {socket: sorted(holders[socket.inode]) for socket in at_port}
        return {
            socket: kept_for(pids[0])
            for socket, pids in pids_of.items()
            if pids and all(map(is_keeper, pids))
        }

    def _translation(self, interface: str, address: Address) -> Translation | None:
        """Where a request to an address, by an interface, is sent on to; None if it is not."""
        to = self._translations().get((interface, address))
        kept = (to for socket, to in self._keepers.items() if socket.receives(address))
        return to or next(kept, None)

    def _is_reached(self, namespace: Namespace) -> bool:
        """Whether requests may be translated to another namespace, as far as is known."""
        to = self._destinations()
        return not to or not to.isdisjoint(self._addresses_of(namespace))

    def _destinations(self) -> set[Address | None]:
        """Addresses in other namespaces that requests to the server's port are translated to."""
        known = (*self._translations().values(), *self._keepers.values())
        return {
            translation.address
            for translation in known
            if translation and not translation.local and translation.port == self.port
        }

    @staticmethod
    def _addresses_of(namespace: Namespace) -> frozenset[Address]:
        try:
            return sockets.inside(namespace.process, netlink.own_addresses)
        except OSError:  # its process has ended
            return frozenset()

    def _at_bind(self) -> str:
        bind = ipaddress.ip_address(self._options.bind)
        return "" if bind.is_unspecified else f" at {bind}"

    def _servers_in(self, namespace: Namespace) -> list[Found]:
        at_port, holders = self._held_at_port(namespace)
        servers = identity.servers(at_port, holders, sockets.parent, sockets.program)
        if servers and namespace == self.own:
            reached = [server for server in servers if server.receives(self._reached)]
            if not reached:
                raise none_receives(self._names, at_port, self._addresses)
            servers = reached
        return [Found(server, namespace) for server in servers]

    def _held_at_port(
        self, namespace: Namespace, uid: int | None = None, known: Collection[Path] = ()
    ) -> tuple[list[Socket], dict[int, set[int]]]:
        """The sockets there (of one user), and who holds each; `known` are looked at first.

        Workers come and go: a socket that nobody holds may have been closed since it was listed,
        so all are listed again.
        """
        lost: set[int] | None = None
        while True:
            at_port = [socket for socket in self._at_port(namespace) if uid in (None, socket.uid)]
            holders = sockets.holders((socket.inode for socket in at_port), known)
            if not all(holders.values()):
                holders = sockets.holders(holders, sockets.processes())
            before, lost = lost, {socket.cookie for socket in at_port if not holders[socket.inode]}
            if not lost or (before is not None and lost <= before):
                return at_port, holders

    def _at_port(self, namespace: Namespace) -> list[Socket]:
        """The sockets that wait for requests there, at the address that was asked for."""
        bind = ipaddress.ip_address(self._options.bind)
        everywhere = bind.is_unspecified or namespace != self.own
        return [
            socket
            for socket in sockets.bound(namespace.process, stream=False)
            if socket.serves
            and socket.port == self.port
            and socket not in self._keepers
            and (everywhere or any(map(socket.receives, self._addresses)))
        ]

    def _check_unix(self, server: Server) -> None:
        """Raises ServerError for one that listens on a Unix socket: writes are unseen."""
        if not (self._front.written_at_any_door and self._front.wants_all_seen):
            return
        for pid in sorted(server.pids):
            path = sockets.unix_listener(pid)
            if path:
                raise ServerError(
                    f"the server on port {self._options.port} ({sockets.name(pid)}) also listens "
                    f"on the Unix socket {path}, where writes cannot be seen",
                    hint="start it without, or accept staleness up to the TTL: "
                    "--writes-elsewhere ttl; if this process only keeps the socket for the "
                    "server, start that first",
                    trap="unix-socket",
                )

    def _check_held(self, found: Found) -> None:
        """Raises ServerError where its processes are unknown, and so its other sockets."""
        server, namespace = found
        reached = {
            socket.inode
            for socket in server.sockets
            if namespace != self.own or any(map(socket.receives_at, self._reached))
        }
        if self._front.wants_all_seen and reached & server.unheld:
            raise ServerError(
                f"no process is seen to hold the socket on UDP port {self.port}: what is "
                "written at the server's other sockets would not be seen either",
                hint="run carom as root (or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH) where the "
                "server's processes are seen (of a container: in the host's PID namespace), or "
                "accept staleness up to the TTL: --writes-elsewhere ttl",
                trap="unseen-processes",
            )

    def _check_reached(self, found: Found) -> None:
        """Raises ServerError where translated requests reach no socket, or nobody knows which."""
        server, namespace = found
        if namespace == self.own:
            return
        if all(socket.address.is_loopback for socket in server.sockets):
            raise ServerError(
                f"the server on UDP port {self.port} is in another network namespace, and "
                f"bound to {', '.join(sorted(map(str, server.sockets)))} there, which nothing from "
                "outside reaches",
                hint="bind it to an address of that namespace, or to all",
                trap="not-received",
            )
        versions = {address.version for address in wanted_of(self._addresses, self._options.bind)}
        if not all(identity.translated(server.sockets, version) for version in versions or {4}):
            raise ServerError(
                f"the server on UDP port {self.port} is in another network namespace, and "
                f"bound to several addresses there: {', '.join(sorted(map(str, server.sockets)))}",
                hint="bind it to one of them or to all, or run carom in its namespace",
                trap="not-received",
            )

    def _follow(self) -> Found:
        """The server as it is now: where it was, or started again in another namespace."""
        before = self.found.namespace
        none = Found(Server((), frozenset()), before)
        if before == self.own:
            return self._follow_in(before) or none
        self._keepers = self._look_for_keepers()
        at_port = [
            namespace
            for namespace in sockets.namespaces_at(self.port)
            if self._is_reached(namespace)
        ]
        for namespace in at_port:
            if namespace.cookie == before.cookie:
                found = self._follow_in(namespace)
                if found:
                    self._beside |= {other.cookie for other in at_port} - {before.cookie}
                    return found
        return self._follow_elsewhere(at_port) or none

    def _follow_elsewhere(self, at_port: list[Namespace]) -> Found | None:
        """The server, started again in another namespace; None where several may be it.

        Where the translation of requests is unknown, a server that ran beside the first one is a
        different one: requests were not translated to it.
        """
        beside = set() if self._destinations() else self._beside
        anew = [namespace for namespace in at_port if namespace.cookie not in beside]
        mine = [
            namespace
            for namespace in anew
            if any(found.uid == self.first.uid for found in self._at_port(namespace))
        ]
        self.why_gone = ""
        if len(mine) == 1:
            return self._follow_in(mine[0])
        port = self.port
        if mine:
            self.why_gone = f"several hold UDP port {port} in other network namespaces"
        elif at_port and not anew:
            self.why_gone = (
                f"those that hold UDP port {port} in other network namespaces were there beside it "
                "(start carom anew for one of them)"
            )
        return None

    def _follow_in(self, namespace: Namespace) -> Found | None:
        """The server's user's sockets there: the user may have started it again; None for none."""
        known = [Path(f"/proc/{pid}") for pid in self.found.server.pids]
        at_port, holders = self._held_at_port(namespace, self.first.uid, known)
        for server in identity.servers(at_port, holders, sockets.parent, sockets.program):
            found = Found(server, namespace)
            self._check_held(found)
            try:
                self._check_unix(server)
                self._claim(server)
            except CaromError as error:
                if str(error) != self._not_learned:  # the same is not said again
                    log.error("nothing of this server's is learned", error=str(error))
                self._not_learned = str(error)
                continue
            self._not_learned = ""
            return found
        return None


def _described(found: Found) -> str:
    server = found.server
    who = ", ".join(sockets.name(pid) for pid in sorted(server.pids)) or "no process"
    where = ", ".join(map(str, server.sockets))
    return f"{who} at {where} (user {server.uid})" if server.sockets else "none"
