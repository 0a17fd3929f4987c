# SPDX-License-Identifier: Apache-2.0
"""Whatever is done to the cache, the program answers as a dict with a clock would."""

from __future__ import annotations

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

from carom.include.abi import Verdict
from prog.host import START, Host, Outcome, passed, sent
from prog.packets import cached_reply, request

# The second and the third differ in trailing zeros only, and share a slot for it.
KEYS = (b"\0", b"a", b"a\0", b"b", b"a key of eighteen.", b"k" * 256)
SLOT = {key: key.rstrip(b"\0") for key in KEYS}
REPLIES = (b"", b"yes", b"no, but eighteen..", b"a longer reply " * 90)


class Token(NamedTuple):
    """A key's token, in the cache's words and in the model's."""

    key: bytes
    real: tuple[int, int, int]
    version: int
    generation: int


class Stored(NamedTuple):
    """What the model holds."""

    reply: bytes
    expires: int
    version: int
    generation: int


class Model(RuleBasedStateMachine):
    """The model beside the cache."""

    host: Host
    tokens = Bundle("tokens")
    keys = st.sampled_from(KEYS)

    def __init__(self) -> None:
        super().__init__()
        self.host = Host(self.host.fastpath)
        self.entries: dict[bytes, Stored] = {}
        self.versions = dict.fromkeys(SLOT.values(), 0)
        self.generation = 0
        self.now = START

    def void(self, key: bytes) -> bool:
        stored = self.entries[key]
        return (stored.version, stored.generation) != (self.versions[SLOT[key]], self.generation)

    def expected(self, key: bytes) -> Outcome:
        frame = request(key)
        if key not in self.entries:
            return passed(Verdict.MISS, frame)
        if self.void(key):
            return passed(Verdict.MISS_VOID, frame)
        if self.now >= self.entries[key].expires:
            return passed(Verdict.MISS_EXPIRED, frame)
        return sent(Verdict.HIT, cached_reply(self.entries[key].reply))

    @rule(target=tokens, key=keys)
    def take(self, key: bytes) -> Token:
        real = self.host.cache.take(key)
        return Token(key, real, self.versions[SLOT[key]], self.generation)

    @rule(token=tokens, reply=st.sampled_from(REPLIES), ttl=st.integers(1, 8))
    def fill(self, token: Token, reply: bytes, ttl: int) -> None:
        self.host.cache.fill(token.key, reply, token.real, ttl)
        self.entries[token.key] = Stored(reply, self.now + ttl, token.version, token.generation)

    @rule(key=keys, reply=st.sampled_from(REPLIES), ttl=st.integers(1, 8))
    def take_and_fill(self, key: bytes, reply: bytes, ttl: int) -> None:
        self.fill(self.take(key), reply, ttl)

    @rule(key=keys)
    def invalidate(self, key: bytes) -> None:
        self.host.cache.invalidate(key)
        self.versions[SLOT[key]] += 1

    @rule(key=keys)
    def drop(self, key: bytes) -> None:
        assert self.host.cache.drop(key) == (self.entries.pop(key, None) is not None)
        self.versions[SLOT[key]] += 1

    @rule()
    def flush(self) -> None:
        assert self.host.cache.flush() == len(self.entries)
        self.entries.clear()
        self.generation += 1

    @rule()
    def sweep(self) -> None:
        dead = [k for k, e in self.entries.items() if self.void(k) or self.now >= e.expires]
        assert self.host.cache.sweep() == len(dead)
        for key in dead:
            del self.entries[key]

    @rule(ticks=st.integers(1, 5))
    def advance(self, ticks: int) -> None:
        self.host.clock.advance(ticks)
        self.now += ticks

    @rule(key=keys)
    def ask(self, key: bytes) -> None:
        assert self.host.run(request(key)) == self.expected(key)

    @invariant()
    def same_entries(self) -> None:
        cache = self.host.cache
        held = {entry.key: (cache.reply(entry), entry.expires) for entry in cache.entries()}
        assert held == {key: (e.reply, e.expires) for key, e in self.entries.items()}

    def teardown(self) -> None:
        """Whatever was done, every key is asked for in the end."""
        for key in KEYS:
            self.ask(key)


def test_the_program_answers_as_the_model(host: Host) -> None:
    machine = type("Machine", (Model,), {"host": host})
    run_state_machine_as_test(machine, settings=settings(max_examples=150, stateful_step_count=40))
