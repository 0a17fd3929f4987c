# SPDX-License-Identifier: Apache-2.0
"""Whatever is done to the cache, and in whatever order, the programs answer as a model would.

Two services have the same keys. Replies are made from a state that is written: a write changes it
and, any number of steps later, takes back what was said before. Nothing that a hook answers may be
older than that, and beyond it every verdict is foreseen.
"""

from __future__ import annotations

import functools
import random
from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from carom.daemon.cache import Cache, Token
from carom.kernel.abi import SLOTS, Hook, Verdict
from prog.host import START, Host, Setting, of_one_slot, passed, sent
from prog.packets import PORT, cached_reply, request

SERVICES = (0, 1)
KEYS = (
    b"\0",
    b"a",
    b"a\0",
    b"a key of eighteen.",
    b"k" * 60,
    b"k" * 61,
    b"k" * 256,
)
SIZES = (0, 20, 64, 65, 300, 512, 513, 1472)
"""Bytes of a reply: entries of several sizes."""

FOREVER = 2**63


class Name(NamedTuple):
    """What is asked for."""

    service: int
    key: bytes

    def request(self) -> bytes:
        """The frame that asks."""
        return _request(self.key, PORT + self.service)

    def answer(self, reply: bytes) -> bytes:
        """The frame that answers."""
        return cached_reply(reply, udp={"sport": PORT + self.service})


@functools.cache
def _request(key: bytes, port: int) -> bytes:
    return request(key, udp={"dport": port})


class Value(NamedTuple):
    """What the server says: the n-th that it ever said to this request, of its own length."""

    n: int
    size: int

    def reply(self, name: Name) -> bytes:
        """As bytes: no two alike, but for the empty one."""
        return _reply(name, self)


@functools.cache
def _reply(name: Name, value: Value) -> bytes:
    return random.Random(f"{name} {value.n}").randbytes(value.size)


class Miss(NamedTuple):
    """One on its way: its token in the cache's words, and how many voids there were."""

    name: Name
    token: Token
    voids: int


class Made(NamedTuple):
    """The same, once the handler has looked at its state."""

    miss: Miss
    value: Value


class Stored(NamedTuple):
    """What the model holds."""

    value: Value
    expires: int
    voids: int


class Model(RuleBasedStateMachine):
    """The model beside the cache."""

    host: Host
    keys: tuple[bytes, ...]
    """KEYS, and one that shares another's slot."""

    misses = Bundle("misses")
    made = Bundle("made")
    names = st.builds(
        lambda self, service, key: Name(service, self.keys[key]),
        st.runner(),
        st.sampled_from(SERVICES),
        st.sampled_from(range(len(KEYS) + 1)),
    )
    ttls = st.integers(1, 8)

    def __init__(self) -> None:
        super().__init__()
        fastpath = self.host.fastpath
        self.hosts = {hook: Host(fastpath, Setting(hook)) for hook in Hook}
        host = self.host = self.hosts[Hook.XDP]
        places = [host.place._replace(service=s, port=PORT + s) for s in SERVICES]
        host.fastpath.answer_at(places)
        self.caches = [Cache(host.fastpath.store, host.clock, ttl=100, service=s) for s in SERVICES]
        for cache in self.caches:
            cache.flush()
        slot_of = host.fastpath.store.hashes.slot_of
        self.slot = {key: slot_of(key) for key in self.keys}
        every = [Name(service, key) for service in SERVICES for key in self.slot]
        self.states = dict.fromkeys(every, Value(0, 20))
        self.floors = dict.fromkeys(every, 0)
        self.entries: dict[Name, Stored] = {}
        self.before = host.fastpath.store.voids[0]
        self.voids = 0
        self.versions = dict.fromkeys(self.slot.values(), 0)
        self.generations = dict.fromkeys(SERVICES, 0)
        self.now = START
        self.lease = FOREVER

    def void(self, name: Name) -> bool:
        last = max(self.versions[self.slot[name.key]], self.generations[name.service])
        return self.entries[name].voids < last

    def count_void(self) -> int:
        """The number of the void that is made now."""
        self.voids += 1
        return self.voids

    def dead(self) -> list[Name]:
        return [n for n, e in self.entries.items() if self.void(n) or self.now >= e.expires]

    def expected(self, name: Name) -> Verdict:
        stored = self.entries.get(name)
        if self.now >= self.lease:
            return Verdict.PASS_LEASE
        if not stored:
            return Verdict.MISS
        if self.void(name):
            return Verdict.MISS_VOID
        if self.now >= stored.expires:
            return Verdict.MISS_EXPIRED
        return Verdict.HIT

    # What the server does

    @rule(target=misses, name=names)
    def miss(self, name: Name) -> Miss:
        token = self.caches[name.service].take(name.key)
        assert token == (self.slot[name.key], self.before + self.voids)
        return Miss(name, token, self.voids)

    @rule(target=made, miss=misses)
    def handle(self, miss: Miss) -> Made:
        return Made(miss, self.states[miss.name])

    @rule(made=made, ttl=ttls)
    def fill(self, made: Made, ttl: int) -> None:
        (name, token, voids), value = made
        self.caches[name.service].fill(name.key, value.reply(name), token, ttl)
        self.entries[name] = Stored(value, self.now + ttl, voids)

    @rule(name=names, ttl=ttls)
    def miss_and_fill(self, name: Name, ttl: int) -> None:
        self.fill(self.handle(self.miss(name)), ttl)

    @rule(name=names, size=st.sampled_from(SIZES))
    def change(self, name: Name, size: int) -> None:
        self.states[name] = Value(self.states[name].n + 1, size)

    @rule(name=names)
    def invalidate(self, name: Name) -> None:
        self.caches[name.service].invalidate(name.key)
        self.versions[self.slot[name.key]] = self.count_void()
        self.floors[name] = self.states[name].n

    @rule(name=names, size=st.sampled_from(SIZES))
    def write(self, name: Name, size: int) -> None:
        self.change(name, size)
        self.invalidate(name)

    @rule(name=names)
    def drop(self, name: Name) -> None:
        held = self.entries.pop(name, None) is not None
        assert self.caches[name.service].drop(name.key) == held
        self.versions[self.slot[name.key]] = self.count_void()
        self.floors[name] = self.states[name].n

    @rule(service=st.sampled_from(SERVICES))
    def flush(self, service: int) -> None:
        self.generations[service] = self.count_void()
        dead = self.dead()
        assert self.caches[service].flush() == len(dead)
        for name in dead:
            del self.entries[name]
        for name in self.floors:
            if name.service == service:
                self.floors[name] = self.states[name].n

    @rule()
    def sweep(self) -> None:
        dead = self.dead()
        assert self.host.sweep() == len(dead)
        for name in dead:
            del self.entries[name]

    # What befalls it

    @rule(ticks=st.integers(1, 5))
    def advance(self, ticks: int) -> None:
        self.host.clock.advance(ticks)
        self.now += ticks

    @rule(ticks=st.sampled_from([0, 1, 3, FOREVER - START]))
    def renew(self, ticks: int) -> None:
        """The lease, for a time that may be none."""
        self.lease = self.host.fastpath.lease[0] = self.now + ticks

    @rule(name=names)
    def remove(self, name: Name) -> None:
        """As an eviction does: nothing is void."""
        store = self.host.fastpath.store
        found = store.find(name.service, name.key)
        assert bool(found) == (self.entries.pop(name, None) is not None)
        if found:
            assert store.drop(found.line, found.sequence)

    @rule(name=names, ttl=ttls)
    def let_live(self, name: Name, ttl: int) -> None:
        """As the daemon does once a server has said how long its item lives."""
        stored, until = self.entries.get(name), self.now + ttl
        cache = self.caches[name.service]
        lives = cache.let_live(name.service, name.key, until, lambda: True)
        assert lives == (stored is not None)
        if stored:
            self.entries[name] = stored._replace(expires=until)

    # What is claimed

    @rule(name=names, hook=st.sampled_from(Hook))
    def ask(self, name: Name, hook: Hook) -> None:
        verdict, frame = self.expected(name), name.request()
        outcome = self.hosts[hook].run(frame)
        if verdict != Verdict.HIT:
            assert outcome == passed(verdict, frame)
            return
        value = self.entries[name].value
        assert outcome == sent(verdict, name.answer(value.reply(name)))
        assert self.floors[name] <= value.n <= self.states[name].n, "older than what was taken back"

    @invariant()
    def same_voids(self) -> None:
        fastpath = self.host.fastpath
        assert fastpath.store.voids[0] == self.before + self.voids
        cells = {**self.versions, **{SLOTS + s: n for s, n in self.generations.items()}}
        for cell, number in cells.items():
            assert fastpath.store.versions[cell] == self.before + number or not number

    @invariant()
    def same_entries(self) -> None:
        held = {
            Name(service, entry.key): (entry.reply, entry.expires)
            for service, cache in enumerate(self.caches)
            for entry in cache.entries()
        }
        assert held == {
            name: (entry.value.reply(name), entry.expires) for name, entry in self.entries.items()
        }
        assert len(self.host.fastpath.store) == len(held)

    def teardown(self) -> None:
        """Whatever was done, every key is asked for in the end, with a lease and without."""
        for name in self.states:
            for hook in Hook:
                self.ask(name, hook)
        self.renew(FOREVER - START)
        for name in self.states:
            for hook in Hook:
                self.ask(name, hook)


def test_the_programs_answer_as_the_model(host: Host, long_form: bool) -> None:
    keys = (*KEYS, of_one_slot(b"a", host.fastpath.store.hashes.slot_of))
    machine = type("Machine", (Model,), {"host": host, "keys": keys})
    examples = 1500 if long_form else 100
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples, stateful_step_count=50)
    )
