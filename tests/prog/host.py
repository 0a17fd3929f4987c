# SPDX-License-Identifier: Apache-2.0
"""A host with carom's fast path on a made-up interface, driven frame by frame and tick by tick."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from carom.daemon.cache import Cache
from carom.daemon.fastpath import FastPath
from carom.daemon.places import Place
from carom.kernel import libbpf
from carom.kernel.abi import ENTRY, Fast, Hook, Verdict, whole
from carom.kernel.ways import Way
from prog.packets import CLIENT_MAC, HOST_MAC, PLAIN, PORT, Fields, Wire

IFINDEX = 1
"""Of the interface that frames of PROG_TEST_RUN come in by: the namespace's loopback."""

START = 1_000_000
"""Jiffies when a test begins."""


class Action(Enum):
    """What a program tells the kernel to do, whatever its hook calls that."""

    PASS = "pass"
    ANSWER = "answer"
    DROP = "drop"


_TC_ACT_UNSPEC, _TC_ACT_REDIRECT, _TC_ACT_SHOT = 0xFFFFFFFF, 7, 2  # linux/pkt_cls.h
_ACTIONS = {
    Hook.XDP: {
        libbpf.XDP_PASS: Action.PASS,
        libbpf.XDP_TX: Action.ANSWER,
        libbpf.XDP_ABORTED: Action.DROP,
        libbpf.XDP_DROP: Action.DROP,
    },
    Hook.TC: {
        _TC_ACT_UNSPEC: Action.PASS,
        _TC_ACT_REDIRECT: Action.ANSWER,
        _TC_ACT_SHOT: Action.DROP,
    },
}


class Outcome(NamedTuple):
    """What became of a frame: the one verdict counted, the action, the bytes that came out."""

    verdict: Verdict
    action: Action
    frame: bytes


def passed(verdict: Verdict, frame: bytes) -> Outcome:
    """Handed on, untouched."""
    return Outcome(verdict, Action.PASS, frame)


def sent(verdict: Verdict, frame: bytes) -> Outcome:
    """Answered with this frame."""
    return Outcome(verdict, Action.ANSWER, frame)


class Setting(NamedTuple):
    """A hook, what frames look like there, and whether XDP is generic."""

    hook: Hook = Hook.XDP
    wire: Wire = PLAIN
    generic: bool = False

    def __str__(self) -> str:
        hook = "generic" if self.generic else self.hook.name.lower()
        return f"{hook}-{self.wire}"


XDP_PLAIN = Setting()


class Ticks:
    """The clock that the program reads in a test build: a second is a tick."""

    def __init__(self, fastpath: FastPath):
        self._cell = fastpath.clock

    def now(self) -> int:
        return self._cell[0]

    def ticks(self, seconds: float) -> int:
        return round(seconds)

    def seconds(self, ticks: int) -> float:
        return float(ticks)

    def advance(self, ticks: int) -> None:
        self._cell[0] += ticks


class Host:
    """The fast path with one service at the wire's host and PORT, an empty cache, a lease and a
    clock at START.

    Frames come in by the interface that PROG_TEST_RUN makes up, which is the namespace's first.
    """

    def __init__(
        self,
        fastpath: FastPath,
        setting: Setting = XDP_PLAIN,
        *,
        ttl: int = 100,
    ):
        self.fastpath = fastpath
        hook, wire, generic = setting
        self.hook = hook
        self.wire = wire
        self.program = fastpath.program if hook == Hook.XDP else fastpath.tc_program
        self.clock = Ticks(fastpath)
        self._counts = fastpath.verdicts(hook)
        fastpath.clock[0] = START
        fastpath.lease[0] = 2**63
        address = ipaddress.ip_address(wire.host)
        fastpath.refuse([address])
        fastpath.allow(())
        via = Way(False, (mac_of(CLIENT_MAC),))
        fastpath.reach({(IFINDEX, ipaddress.ip_network(one)): via for one in ("0.0.0.0/0", "::/0")})
        outer, inner = (*wire.tags, 0, 0)[:2]
        mac = mac_of(HOST_MAC)
        self.place = Place(address, PORT, IFINDEX, mac, wire.mtu, outer=outer, inner=inner)
        self.place = self.place._replace(skb_mode=generic)
        self.serve(Fast.CACHE)
        self.cache = Cache(fastpath.store, self.clock, ttl)
        self.cache.flush()

    @property
    def sees_skbs(self) -> bool:
        """Half-made checksums stay half-made here."""
        return self.hook == Hook.TC or self.place.skb_mode

    def describe(self, **facts: object) -> None:
        """Change fields of the service's place."""
        self.place = self.place._replace(**facts)  # type: ignore[arg-type]
        self.fastpath.answer_at([self.place])

    def serve(self, fast: Fast) -> None:
        """Change what requests are answered with."""
        self.fast = fast
        self.describe(fast=fast)

    def fill(self, payload: bytes, reply: bytes, ttl: float | None = None) -> None:
        """Take a token and fill at once."""
        self.cache.fill(payload, reply, self.cache.take(payload), ttl)

    def sweep(self) -> int:
        """Remove what can no longer hit, of what waits too."""
        self.fastpath.store.drain_all()
        return self.fastpath.store.sweep(self.clock.now())

    def run(self, frame: bytes, program: int | None = None) -> Outcome:
        """Give a program, the hook's, one frame: exactly one counter must rise, by one."""
        before = self._counts
        result = libbpf.test_run(self.program if program is None else program, frame)
        self._counts = after = self.fastpath.verdicts(self.hook)
        rose = {
            verdict: n - before[verdict] for verdict, n in after.items() if n != before[verdict]
        }
        assert list(rose.values()) == [1], f"counters rose by {rose} for one frame"
        return Outcome(next(iter(rose)), _ACTIONS[self.hook][result.retval], result.data)

    def asks(self, payload: bytes) -> Outcome:
        """Give it a proper request."""
        return self.run(self.wire.request(payload))

    def missed(self, verdict: Verdict, payload: bytes) -> Outcome:
        """What becomes of a proper request that passes."""
        return passed(verdict, self.wire.request(payload))

    def hit(self, reply: bytes, **fields: Fields) -> Outcome:
        """What becomes of one that the cache has a reply to."""
        return sent(Verdict.HIT, self.wire.cached_reply(reply, **fields))

    def entry(self, payload: bytes, service: int = 0) -> StoredEntry:
        """The entry under a key, as it stands in the arena."""
        entry = self.fastpath.store.find(service, payload)
        memory = self.fastpath.store.memory_at(entry.line) if entry else None
        assert memory
        return StoredEntry(memory)

    def held(self) -> dict[bytes, bytes]:
        """Every entry's reply by its key."""
        return {entry.key: entry.reply for entry in self.cache.entries()}


class StoredEntry:
    """An entry's own memory in the arena, which a test writes as no program would."""

    FIELDS = (
        *("sequence", "hash", "service", "key_length", "next", "token", "expires", "filled"),
        *("slot", "length", "stored", "sum", "loops", "used", "key_sum"),
    )

    def __init__(self, memory: memoryview):
        self._memory = memory

    def __getitem__(self, field: str) -> int:
        return int(dict(zip(self.FIELDS, ENTRY.unpack_from(self._memory), strict=True))[field])

    def __setitem__(self, field: str, value: int) -> None:
        fields = dict(zip(self.FIELDS, ENTRY.unpack_from(self._memory), strict=True))
        assert field in fields
        ENTRY.pack_into(self._memory, 0, *(fields | {field: value}).values())

    @property
    def key(self) -> memoryview:
        """The bytes of its key, with the zeros up to whole words."""
        return self._memory[ENTRY.size :][: whole(self["key_length"])]

    @property
    def reply(self) -> memoryview:
        """The bytes of its reply, in the same form."""
        return self._memory[ENTRY.size + len(self.key) :][: whole(self["stored"])]


def of_one_slot(key: bytes, slot_of: Callable[[bytes], int]) -> bytes:
    """Another key whose version is in the same cell."""
    others = (b"%d" % n for n in itertools.count())
    return next(other for other in others if slot_of(other) == slot_of(key))


def mac_of(text: str) -> bytes:
    """A MAC address from its usual form."""
    return bytes.fromhex(text.replace(":", ""))
