# SPDX-License-Identifier: Apache-2.0
"""One service's part of the store, which the daemon fills, reads, drops from and flushes."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator

from carom.daemon.store import Store
from carom.kernel.abi import (
    DRAFT,
    KEY_MAX,
    REPLY_MAX,
    RING,
    SERVICES_MAX,
    SLOTS,
    WHOLE_MAX,
    Entry,
    Stored,
)
from carom.kernel.machine import IN_ORDER
from carom.protocols import default
from carom.protocols.spec import Clock, Filled, Spec

_LOOK_EVERY = 8
"""Fills from one look at the pages that are left to the next."""

Token = tuple[int, int]
"""What a miss takes before its reply is made: its key's slot, and how many voids there were."""


class Restored(enum.Enum):
    """What became of a reply that was stored before."""

    STORED = "stored"
    EXPIRED = "expired"
    WRITTEN = "written"
    NO_ROOM = "no_room"


class Cache:
    """The kernel's cache of one service.

    `take` and `fill` are for the serving thread alone; any thread may call the rest. A fill decides
    nothing: the entry carries its token, which the fast path compares at every hit.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        ttl: float,
        service: int = 0,
        protocol: Spec | None = None,
    ):
        self._store = store
        self._language = protocol or default(Filled.DAEMON)
        self._key_of = self._language.key_of
        self._clock = clock
        self._ttl = clock.ticks(ttl)
        self._service = self.service = service
        self._generation_cell = SLOTS + service
        self._versions = store.versions
        self._voids = store.voids
        self._ready = store.drafts(service)
        self._drafts = self._ready.cast("B")
        self._outcomes = store.outcomes(service)
        self._before = list(self._outcomes)
        self._number = store.drafted(service)
        self._hashed_slot_of = store.hashes.slot_of
        self.views = 1
        """How many addresses of its server answer for themselves."""
        self.take = self._take_whole() if self._language.whole_key else self._take
        self._lost = 0
        self.held = 0
        """Replies not kept, as a write that nobody acknowledges was on its way."""
        self.unfit = 0
        """Replies that cannot be cached: too long, or to a request that cannot be a key."""

    def live_for(self, ttl: float) -> None:
        """Have replies that are stored from now on live for so many seconds, by default."""
        self._ttl = self._clock.ticks(ttl)

    def _take(self, request: bytes) -> Token | None:
        """The token of a miss: take it before the reply is made.

        None for a request that is no read, and while a write that nobody acknowledges is on its
        way.
        """
        key = self._key_of(request)
        if key is None:
            return None
        slot = self._slot_of(key)
        token = slot, self._voids[0]
        # The count is read first: a void that it counts has set its hold before.
        now, holds = self._clock.now(), self._store.holds
        return None if now < holds[slot] or now < holds[self._generation_cell] else token

    def _slot_of(self, key: bytes) -> int:
        """The slot of a key: its cell of `versions`, the same as in the kernel."""
        return self._hashed_slot_of(self._language.slot_key_of(key))

    def _take_whole(self) -> Callable[[bytes], Token]:
        """`take` where requests are keys and nothing writes: a closure, as misses pay for it."""
        voids, slot_of = self._voids, self._hashed_slot_of

        def take(request: bytes) -> Token:
            return slot_of(request), voids[0]

        return take

    def fill(
        self,
        request: bytes,
        reply: bytes,
        token: Token | None,
        ttl: float | None = None,
        *,
        loops: bool = False,
    ) -> None:
        """Store a reply for whoever asks from now on.

        It is left in memory, for the next program that needs it (include/waiting_drafts.h). Who
        asks while another CPU stores it is not answered by it.

        `ttl` is in seconds. `loops` says that the reply is itself a request with a known reply.
        """
        key, length = self._key_of(request), len(reply)
        if key is None or length > REPLY_MAX:
            self.unfit += 1
            return
        if token is None:
            self.held += 1
            return
        slot, voids = token
        now = self._clock.now()
        expires = now + (self._ttl if ttl is None else self._clock.ticks(ttl))
        number = self._number
        at = number % RING * DRAFT.size
        if self._ready[at >> 3] or not number % _LOOK_EVERY:
            self._make_way(at)
            if self._ready[at >> 3]:
                self._lost += 1
                return
        what = voids, expires, now, slot, length, length, 0, loops, 0, 0
        DRAFT.pack_into(self._drafts, at, 0, *what, self._service, len(key), key, reply)
        self._number = number + 1
        if IN_ORDER:  # else a program says that the draft is ready
            self._ready[at >> 3] = number + 1
        else:
            self._store.drain(self._service, number)

    def _make_way(self, at: int) -> None:
        """Store what waits where the next draft comes, and have pages for the next ones."""
        if self._ready[at >> 3]:
            self._store.drain(self._service)
        self._store.grow_ahead()

    def _count(self, outcome: Stored) -> int:
        """How many replies became that."""
        self._store.drain(self._service)
        return self._outcomes[outcome] - self._before[outcome]

    @property
    def fills(self) -> int:
        """Replies that were stored."""
        return self._count(Stored.STORED)

    @property
    def not_admitted(self) -> int:
        """Replies to keys that were not missed before, while the cache was full."""
        return self._count(Stored.NOT_ADMITTED)

    @property
    def refused(self) -> int:
        """Replies that the kernel had no room for: the cache is full."""
        return self._lost + self._count(Stored.FULL) + self._count(Stored.NO_PAGE)

    def find(self, name: bytes) -> Entry | None:
        """The entry that a user knows by this name, dead or alive; or None."""
        return next(filter(None, map(self.get, self._language.keys_named(name))), None)

    def get(self, key: bytes) -> Entry | None:
        """The entry under a key, of the first view that has one, dead or alive; or None."""
        return next(
            filter(None, (self._store.find(service, key) for service in self._services())), None
        )

    def _services(self) -> list[int]:
        """The service numbers in the keys of its views."""
        return [view * SERVICES_MAX + self._service for view in range(self.views)]

    def let_live(self, service: int, key: bytes, until: int, unchanged: Callable[[], bool]) -> bool:
        """Let the reply under a key live to `until`, in jiffies, and no longer than the TTL.

        False where that is over, or the reply is not there. `service` is the number in the key.

        A reply of a server whose items end by themselves is stored as expired. The caller has
        asked the server since; `unchanged()` tells whether the versions are what they were before
        the question. It is called after the reply is looked up, and a reply that comes in between
        is let be: so it is not a later item's.
        """
        entry = self._store.find(service, key)
        if not entry:
            return False
        expires = min(until, entry.filled + self._ttl)
        if expires <= self._clock.now() or not unchanged():
            return False
        return self._store.prolong(entry, expires)

    def state(self, entry: Entry) -> str:
        """`live`, `void` (written or flushed since) or `expired`."""
        versions = self._versions
        if entry.token < max(versions[entry.slot], versions[self._generation_cell]):
            return "void"
        return "live" if self._clock.now() < entry.expires else "expired"

    def seconds_left(self, entry: Entry) -> float:
        """Seconds until an entry expires; negative when it has."""
        return self._clock.seconds(entry.expires - self._clock.now())

    def entries(self) -> Iterator[Entry]:
        """All entries, dead or alive, in no order."""
        return (entry for entry in self._store.entries() if entry.service == self._service)

    def page(self, page: int) -> tuple[list[Entry], int | None]:
        """The entries that are answered now, of some pages of the arena; and the page behind them.

        None for that at the end. Entries that are stored meanwhile may be left out.
        """
        entries, behind = self._store.entries_from(page)
        ours = (entry for entry in entries if entry.service == self._service)
        return [entry for entry in ours if self.state(entry) == "live"], behind

    def restore(self, key: bytes, reply: bytes, seconds: float, *, loops: bool) -> Restored:
        """Store a reply that this service gave at another time, for so many seconds at most.

        Nothing is stored under a key that was voided since carom's start, or whose slot was: it may
        be older. `loops` is as for `fill`. Any thread may call it. Raises ValueError for what no
        cache can hold.
        """
        most = WHOLE_MAX if self._language.whole_key else KEY_MAX
        if not 1 <= len(key) <= most or len(reply) > REPLY_MAX:
            raise ValueError(f"a key of {len(key)} bytes, and a reply of {len(reply)}")
        if seconds <= 0:
            return Restored.EXPIRED
        slot, token = self._slot_of(key), self._voids[0]
        if self._versions[slot]:
            return Restored.WRITTEN
        now, length = self._clock.now(), len(reply)
        what = token, now + self._clock.ticks(seconds), now, slot, length, length, 0, loops, 0, 0
        stored = self._store.restore(self._service, key, reply, what)
        return Restored.STORED if stored else Restored.NO_ROOM

    def invalidate(self, request: bytes) -> None:
        """Void what was stored for a request, and any fill whose token was taken before."""
        key = self._key_of(request)
        if key is not None:
            self.void(key)

    def void(self, key: bytes) -> None:
        """Void what is stored under a key, and any fill whose token was taken before."""
        self._store.bump(self._slot_of(key))

    def drop(self, name: bytes) -> bool:
        """Invalidate and remove what a user knows by this name; False when it was not there."""
        dropped = False
        for key in self._language.keys_named(name):
            self.void(key)
            while entry := self.get(key):
                dropped |= self._store.drop(entry.line, entry.sequence)
        return dropped

    def flush(self) -> int:
        """Void everything at once; then remove it. Returns how many entries were removed.

        Entries that a sweep under way removes are among them.
        """
        before = self._store.removed
        self._store.bump(self._generation_cell)
        self._store.drain(self._service)
        self._store.sweep(self._clock.now())
        return self._store.removed - before

    def count(self) -> int:
        """How many entries there are, dead or alive."""
        return self._store.count(self._service)
