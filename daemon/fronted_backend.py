# SPDX-License-Identifier: Apache-2.0
"""Somebody else's server behind the fast path: watched, learned of, and asked."""

from __future__ import annotations

import contextlib
import ipaddress
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from carom import log
from carom.daemon import sockets
from carom.daemon.backend import Backend
from carom.daemon.backoff import Backoff
from carom.daemon.cache import Cache
from carom.daemon.edge import Edge, Watch
from carom.daemon.fastpath import FastPath
from carom.daemon.front import Front
from carom.daemon.fronted_server import FrontedServer
from carom.daemon.identity import Server
from carom.daemon.lifetimes import Lifetimes, ask_at
from carom.daemon.marks import ANYWHERE, CONNECTION, OPEN, UNVOIDED, Door, Kind, Marks
from carom.daemon.options import Options
from carom.daemon.reply_times import told
from carom.daemon.sockets import Namespace, Socket
from carom.daemon.thread import Thread
from carom.errors import CaromError, ServerError
from carom.kernel import libbpf, netns
from carom.kernel.abi import HOLD_MS, SLOTS, UNREAD_SECONDS, Ends, MarkKind
from carom.kernel.netlink import Address
from carom.protocols.spec import Around, Clock, Informed, Unclear

LOOK = 0.05
"""Seconds between two looks at whether the server's sockets have changed."""

LOOK_REST = 4
"""The pause after a look, as a multiple of the look's CPU time: anybody may cause looks by binding
ports."""

LOOK_FAILED = 0.5
"""Seconds between two looks where the last one failed."""

LOOK_ANYWAY = 1.0, 16.0
"""Seconds until they are looked at without an event: after a change, and while there is no server;
then twice as many each time, and the most. A process that is given its sockets by another one
causes no event: it binds none, and leaves none when it ends."""

LOOK_SHARE = 20
"""The least such pause, as a multiple of the look's CPU time."""

ASK_AGAIN = 1.0, 60.0
"""Seconds until a server is asked again when items end, twice as many each time; the most."""

DOORS_STAY = 60.0
"""Seconds for which a socket of the server's that is gone is expected again, while others stay."""

_ANY = ipaddress.ip_address("0.0.0.0")

_Place = tuple[Address, int, bool]
"""Address, port, and whether it is TCP's."""


def _place(socket: Socket) -> _Place:
    return socket.address, socket.port, socket.stream


class FrontedBackend(Backend):
    """Somebody else's server: its sockets are watched, its replies learned, its writes heeded."""

    cache: Cache

    def __init__(
        self,
        receiver: FrontedServer,
        front: Front,
        fastpath: FastPath,
        edge: Edge,
        clock: Clock,
        cache: Cache,
        changed: Callable[[], None],
    ):
        """Watch the server's sockets by an attached `edge`, before anything is answered.

        `changed` is called when its sockets have changed. Raises ServerError for a server that
        does not say when its items end, but has to, and for one that is another service's.
        """
        super().__init__(receiver, cache)
        self._server = receiver
        self._store, self._edge, self._clock = fastpath.store, edge, clock
        self._changed = changed
        self._any_door = front.written_at_any_door
        self._exptime, self._wishes = front.exptime, front.wishes
        self._marks = Marks(edge, self.id)
        self._away = self._losses = self._changed_marks = 0
        self._guessed = False
        self._last_doors: dict[_Place, float] = {}
        """When each was found missing: never, for those of the last look."""
        self._marked: dict[int, Kind] = {}
        self._looking = threading.Lock()
        self._ends = Ends.IGNORED
        self._why_unasked = ""
        self._ask_again = Backoff(*ASK_AGAIN)
        self._look_anyway = Backoff(*LOOK_ANYWAY)
        self._rest_until = 0.0
        self._cookies: Informed | None = None
        self.lifetimes: Lifetimes | None = None
        """Finds out how long replies hold, where the server's items end by themselves."""
        if fastpath.taken_over:
            self._take_over()
        with contextlib.ExitStack() as stack:
            ending = self.protocol.ending
            if self._exptime != "ttl" and ending:
                self.lifetimes = Lifetimes(self._store, edge, clock, cache, ending)
                stack.callback(self.lifetimes.close)
                self._ask_server(at_first=True)
            self._claim(self._server.found.server)
            self._watch()
            self._seen, losses = edge.changes[self.id], edge.losses(self.id)
            self._server.follow(self._claim)  # it may have started again during compiling
            self._mark(losses)
            if self.lifetimes:
                self.lifetimes.look_for_flush()
            thread = Thread(f"sockets of port {self.options.port}", self._step)
            stack.callback(thread.close)
            if self.protocol.cookies:
                port = self._server.server_port
                around = Around(fastpath.map, clock, self.id, port, self._neighbours, Thread)
                self._cookies = self.protocol.cookies.keep(around, front.secret_file)
                stack.callback(self._cookies.close)
            self._stack = stack.pop_all()

    def _take_over(self) -> None:
        """Go on where the daemon before ended: as if this one had not looked for so long.

        Sockets that were bound or released meanwhile are told from those that it knew.
        """
        self._marked = self._marks.take_over()
        watch = self._edge.watched(self.id)
        self._away, self._losses = watch.away, watch.losses
        self._changed_marks = watch.changed
        if self._clock.now() < self._edge.unreads[2 * self.id]:
            self._store.bump(SLOTS + self.id)  # the one before may have ended just before it did

    def notes(self) -> Iterator[str]:
        """Notes for whoever fronts this server."""
        advice = self._cookies.advice() if self._cookies else ""
        if advice:
            yield advice
        if self._ends == Ends.UNASKED:
            yield (
                f"the server on port {self.options.port} does not say when its items end "
                f"({self._why_unasked}): keys that a write may have given an end are not kept; "
                "items from before carom, and of writes that cannot be read, may be given after "
                "their end, up to the TTL"
            )
        if self._any_door:
            yield from self._note_on_sockmaps()

    def _note_on_sockmaps(self) -> Iterator[str]:
        try:
            redirecting = libbpf.programs_of(libbpf.PROG_TYPE_SK_SKB, libbpf.PROG_TYPE_SK_MSG)
        except PermissionError:
            yield (
                "it is not known whether sockmap programs (sk_skb, sk_msg) are loaded on this "
                "host, which takes CAP_SYS_ADMIN: what they would deliver to the server on port "
                f"{self.options.port} is not seen"
            )
            return
        if redirecting:
            yield (
                f"{redirecting} sockmap programs (sk_skb, sk_msg) are loaded on this host: what "
                f"they deliver to the server on port {self.options.port} is not seen, and of "
                "writes that come so only the acknowledgement voids"
            )

    def heed(self, options: Options) -> None:
        """As in Backend; what is learned from now on lives by it."""
        with self._looking:
            super().heed(options)
            self._watch()

    def _watch(self) -> None:
        ttl, alone = int(self.options.ttl), len(self._server.found.server.pids) == 1
        number, uid = self._server.protocol.number, self._server.first.uid
        now = self._away, self._losses, self._changed_marks
        self._edge.watch(self.id, Watch(number, ttl, uid, self._ends, alone, *now))

    def _ask_server(self, *, at_first: bool = False) -> None:
        """Ask the server when its items end. Raises ServerError if it does not say, but has to."""
        ending = self.protocol.ending
        assert self.lifetimes and ending
        before, self._ends, why = self._ends, Ends.ASKED, ""
        server = self._server.found.server
        self.lifetimes.ask_through(())
        if self._exptime == "auto" and not (
            server.pids and all(sockets.runs(pid, ending.program) for pid in server.pids)
        ):
            why = f"only a {ending.program} is asked, unless --exptime ask says otherwise"
        else:
            try:
                namespace = self._server.found.namespace
                self.lifetimes.ask_through(ask_at(namespace, server, ending.by))
                if before != Ends.ASKED:
                    self.lifetimes.check()
            except (OSError, Unclear) as error:
                why = str(error)
        if why and self._exptime == "ask" and at_first:
            raise ServerError(
                f"the server on port {self.options.port} does not say when its items end: {why}",
                hint=f"{ending.hint}; or accept that replies outlive their items up to the TTL: "
                "--exptime ttl",
            )
        if why and self._exptime == "auto":
            self._ends = Ends.UNASKED
            self.lifetimes.ask_through(())
        if why and not at_first and server.sockets:
            port = self.options.port
            if why != self._why_unasked:
                log.warning("the server does not say when its items end", port=port, why=why)
        elif self._why_unasked and not why:
            log.info("the server says when its items end", port=self.options.port)
        self._why_unasked = why

    def _ask_server_again(self) -> None:
        """Ask again: a server that has just started may not be ready to say when its items end."""
        if not self._why_unasked:
            self._ask_again.reset()
        elif self._ask_again.due():
            self._ask_again.later()
            with self._looking:
                self._ask_server()
                self._watch()

    def _neighbours(self) -> list[Path]:
        """A process in the network namespace that the server has its sockets in."""
        return [self._server.found.namespace.process]

    def _step(self) -> float:
        self._void_unread()
        self._ask_server_again()
        told = self._edge.changes[self.id] != self._seen
        if time.monotonic() >= self._rest_until and (told or self._look_anyway.due()):
            start = time.process_time()  # of CPU, as waiting for the server is no work
            rest = LOOK if self._looked(told=told) else LOOK_FAILED
            took = time.process_time() - start
            self._look_anyway.later(LOOK_SHARE * took)
            self._rest_until = time.monotonic() + max(rest, LOOK_REST * took)
        return LOOK

    def _looked(self, *, told: bool) -> bool:
        """Look again. Returns False where that fails."""
        before = self._server.found
        try:
            self.look_again()
        except (CaromError, OSError):  # the follower reports it, and tries again too
            self._changed()
            return False
        changed = told or self._server.found != before
        if changed:
            self._changed()
        if changed or not self._server.found.server.sockets:
            self._look_anyway.reset()
        return True

    def _void_unread(self) -> None:
        """Void the service for unreadable requests that came too soon after such a void."""
        unreads, holds, generation = self._edge.unreads, self._store.holds, SLOTS + self.id
        now = self._clock.now()
        if not unreads[2 * self.id + 1] or now < unreads[2 * self.id]:
            return
        unreads[2 * self.id + 1] = 0
        unreads[2 * self.id] = now + self._clock.ticks(UNREAD_SECONDS)
        hold = now + self._clock.ticks(HOLD_MS / 1000) + 1
        holds[generation] = max(holds[generation], hold)
        self._store.bump(generation)

    def look_again(self) -> None:
        """Look at the server's sockets again: it may have started again, perhaps elsewhere."""
        with self._looking:
            seen, losses = self._edge.changes[self.id], self._edge.losses(self.id)
            before = self._server.found
            self._server.follow(self._claim)
            self._mark(losses)
            self._seen = seen
            if not self._server.found.server.sockets and before.server.sockets:
                log.warning("the server is gone: nothing is answered", port=self.options.port)
            elif set(self._server.found.server.sockets) != set(before.server.sockets):
                log.info(
                    "the server's sockets have changed",
                    port=self.options.port,
                    server=self._server.server_name(),
                )

    def _kind(self, socket: Socket) -> Kind:
        """The kind of one of the server's own sockets."""
        view = self._server.view_of(socket)
        return OPEN if view is None else Kind(MarkKind.SERVER, view)

    def _mark(self, losses: int) -> None:
        """Tell the kernel the server's sockets; void what was cached before it knew them.

        `losses` were counted before it was looked for.
        """
        server, namespace = self._server.found
        self._server.number_again(server)
        self.cache.views = self._server.views
        doors = self._doors(server, namespace)
        if server.sockets:
            self._remember(doors)
        self._marks.doors(self._known(doors))
        self._claim(server)
        kinds = {door.cookie: OPEN for door in doors}
        kinds |= {socket.cookie: self._kind(socket) for socket in server.sockets}
        new = {cookie for cookie, kind in kinds.items() if self._marked.get(cookie) != kind}
        known = self._marked or self._why_unasked  # or else it has just been asked, at the start
        if self.lifetimes and known and kinds.keys() != self._marked.keys():
            if self._ends == Ends.ASKED:
                self.lifetimes.forget()
            self._ask_server()
            self._watch()
        if new:
            self._marks.sockets({door.cookie: UNVOIDED for door in doors})
            # From now on connections have their listener's mark; those from before are listed.
            connections = self._connections(doors, server, namespace)
            self._marks.sockets({connection.cookie: CONNECTION for connection in connections})
            self._store.bump(SLOTS + self.id)  # nothing stays from before writes were seen
            self._marks.sockets(kinds)
        self._marks.forget(self._marked.keys() - kinds.keys())
        if any(kinds.get(cookie) != kind for cookie, kind in self._marked.items()):
            self._changed_marks += 1
            self._watch()
        self._marked = kinds
        self._say_away(losses)

    def _say_away(self, losses: int) -> None:
        """Tell the kernel whether it is away, and may come back in any namespace (marks.h).

        What is bound then, or before a look after the server lost a socket, is taken for its by a
        guess. The look that finds it may miss what is bound meanwhile; the next look does not.
        """
        if self._server.here:
            return
        before, away = self._away, not self._server.found.server.sockets
        turned, lost = away != before % 2, losses != self._losses
        if turned:
            self._away += 1
        elif not away and (self._guessed or lost):
            self._away += 2
        self._guessed = not away and (turned or lost)
        self._losses = losses
        if self._away != before or lost:
            self._watch()

    def _remember(self, doors: Iterable[Socket]) -> None:
        """Remember where it may be bound again, if it is found to be gone.

        A server that ends loses its sockets one by one, and a look may fall in between.
        """
        now = time.monotonic()
        self._last_doors = {
            place: min(now, missing)
            for place, missing in self._last_doors.items()
            if now - missing < DOORS_STAY
        } | dict.fromkeys(map(_place, doors), math.inf)

    def _known(self, doors: list[Socket]) -> Iterator[Door]:
        """Where it is bound, and where it will be if it starts again: here, or in any namespace."""
        server, namespace = self._server.found
        own = (*self._server.first.sockets, *server.sockets, *doors)
        for address, port, stream in {*map(_place, own), *self._last_doors}:
            yield Door(namespace.cookie, address, port, stream)
            if not self._server.here and (stream or not server.sockets):
                yield Door(ANYWHERE, _ANY, port, stream)
        if not self._server.here:
            yield Door(ANYWHERE, _ANY, self._server.server_port, stream=False)

    def _claim(self, server: Server) -> None:
        """Take its processes as this service's: what they bind is watched for writes.

        Raises ServerError for a process of another service's: its writes would have to void both
        services' entries, and a socket belongs to one service only.
        """
        taken = self._marks.pids(server.pids if self._any_door else ())
        if taken is not None:
            raise ServerError(
                f"the server on port {self.options.port} ({sockets.name(taken)}) has a port that "
                "carom fronts already",
                hint="front one port of it: what is written at the others is seen there, too",
            )

    @staticmethod
    def _inodes(server: Server) -> set[int]:
        """The sockets that the server's processes hold now."""
        mine = set[int]()
        for pid in server.pids:
            with contextlib.suppress(OSError):  # it has ended
                mine |= netns.inodes(Path(f"/proc/{pid}"))
        return mine

    def _doors(self, server: Server, namespace: Namespace) -> list[Socket]:
        """The server's other sockets that may be written to, without connections.

        Where the protocol is not spoken at other ports, those at the service's own over TCP.
        """
        mine = self._inodes(server)
        streams = sockets.bound(namespace.process, stream=True)
        datagrams = sockets.bound(namespace.process, stream=False)
        known = {socket.cookie for socket in server.sockets}
        return [
            socket
            for socket in (*streams, *datagrams)
            if socket.serves
            and socket.inode in mine
            and socket.cookie not in known
            and (self._any_door or (socket.stream and socket.port == self._server.server_port))
        ]

    def _connections(
        self, doors: Iterable[Socket], server: Server, namespace: Namespace
    ) -> list[Socket]:
        """The server's connections by its doors, accepted or not."""
        ports = {door.port for door in doors if door.stream}
        streams = sockets.bound(namespace.process, stream=True)
        mine = self._inodes(server)  # second: what is accepted meanwhile has no inode above
        return [
            connection
            for connection in streams
            if not connection.serves
            and connection.port in ports
            and (not connection.inode or connection.inode in mine)
        ]

    def tallies(self) -> dict[str, int]:
        """As in Backend, with questions when its items end that were in vain."""
        return super().tallies() | (self.lifetimes.status() if self.lifetimes else {})

    def status(self) -> dict[str, Any]:
        """Its counters, and who the server is."""
        status = super().status()
        if status["cache"] and self.lifetimes:
            status["cache"] |= self.lifetimes.status()
        status["reply_times"] = told(self._edge.reply_times(self.id))
        server = self._server.found.server
        status["behind"] = {
            "pids": sorted(server.pids),
            "sockets": [str(socket) for socket in server.sockets],
            "own_namespace": self._server.here,
        }
        status["wishes"] = self._wishes
        status["voiders"] = self._edge.voiders(self.id)
        status["cookies"] = self._cookies.status() if self._cookies else None
        return status

    @property
    def not_given(self) -> int:
        """Replies that are stored and not given yet: it is not known when their items end."""
        return self.lifetimes.waited - self.lifetimes.kept if self.lifetimes else 0

    def close(self) -> None:
        """Stop following the server."""
        self._stack.close()
