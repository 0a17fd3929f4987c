# SPDX-License-Identifier: Apache-2.0
"""When memcached's items end: what its answers mean, and what is made of them."""

from __future__ import annotations

import random
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from carom.daemon.lifetimes import Lifetimes, Waiting
from carom.kernel.abi import SLOTS
from carom.protocols.memcached import SPEC
from carom.protocols.memcached.life import (
    NEVER,
    SETTINGS,
    SLACK,
    STATS,
    Lives,
    second_left,
    second_question,
)
from carom.protocols.protocol import Intent
from carom.protocols.spec import Unclear
from prog.memcached_commands import KEYS, SEED, commands
from reference import memcached
from unit.test_memcached_server import Server

ENDING = SPEC.ending
assert ENDING
OLD, NEW = Lives(100, NEVER, False), Lives(100, NEVER, True)


def stats(version: bytes = b"1.6.18", uptime: int = 40) -> bytes:
    return b"STAT pid 1\r\nSTAT uptime %d\r\nSTAT version %b\r\nEND\r\n" % (uptime, version)


def settings(oldest: int = 0) -> bytes:
    return b"STAT maxbytes 67108864\r\nSTAT oldest %d\r\nEND\r\n" % oldest


@pytest.mark.parametrize(
    ("oldest", "left"), [(0, NEVER), (99, NEVER), (100, NEVER), (101, 1), (105, 5)]
)
def test_a_flush_to_come(oldest: int, left: float) -> None:
    assert Lives.read(stats(), settings(oldest)) == Lives(100, left, False)


@pytest.mark.parametrize(
    ("version", "right"),
    [
        (b"1.6.18", False),
        (b"1.6.23", False),
        (b"1.6.24", True),
        (b"1.6.38_2", True),
        (b"2.0.0", True),
    ],
)
def test_the_sign_is_the_versions(version: bytes, right: bool) -> None:
    assert Lives.read(stats(version), settings()).right_sign is right


@pytest.mark.parametrize(
    ("told", "set_to"),
    [
        (b"ERROR\r\n", settings()),
        (stats(), b"ERROR\r\n"),
        (stats(b"unknown"), settings()),
        (stats().replace(b"40", b"x"), settings()),
        (b"", b""),
    ],
)
def test_a_server_that_does_not_say(told: bytes, set_to: bytes) -> None:
    with pytest.raises(Unclear):
        Lives.read(told, set_to)


@pytest.mark.parametrize(
    ("lives", "answer", "left"),
    [
        (OLD, b"EN\r\n", 0),
        (OLD, b"ME k exp=-1 la=0 cas=1 fetch=no cls=1 size=65\r\n", None),
        (OLD, b"ME k exp=-2 la=0 cas=1 fetch=no cls=1 size=65\r\n", 2),
        (OLD, b"ME k exp=-2592000 la=0\r\n", 2_592_000),
        (OLD, b"ME k exp=0 la=0\r\n", 0),
        (NEW, b"EN\r\n", 0),
        (NEW, b"ME k exp=-1 la=0 cas=1\r\n", NEVER),
        (NEW, b"ME k exp=1 la=0 cas=1\r\n", 1),
        (NEW, b"ME k exp=0 la=0 cas=1\r\n", 0),
    ],
)
def test_what_is_left(lives: Lives, answer: bytes, left: float | None) -> None:
    assert lives.left(answer, b"k") == left


@pytest.mark.parametrize(
    ("lives", "answer"),
    [
        (OLD, b"ME k exp=7 la=0\r\n"),
        (NEW, b"ME k exp=-7 la=0\r\n"),
        (OLD, b"ME l exp=-7 la=0\r\n"),
        (OLD, b"ERROR\r\n"),
        (OLD, b"CLIENT_ERROR bad\r\n"),
        (OLD, b""),
    ],
)
def test_answers_that_say_nothing(lives: Lives, answer: bytes) -> None:
    with pytest.raises(Unclear):
        lives.left(answer, b"k")


def test_the_second_question() -> None:
    assert second_left(b"EN\r\n") == (0, False)
    assert second_left(b"VA 1 t-1\r\n5\r\n") == (NEVER, False)
    assert second_left(b"VA 1 t1\r\n5\r\n") == (1, False)
    assert second_left(b"VA 1 t-1 X W\r\n5\r\n") == (NEVER, True)
    assert second_left(b"VA 3 t30 Z X\r\nab\r\r\n") == (30, True)
    for wrong in (b"HD t1\r\n", b"VA 1\r\n5\r\n", b"ERROR\r\n", b"VA 1 t\r\n5\r\n"):
        with pytest.raises(Unclear):
            second_left(wrong)


class World:
    """A fast path, a clock of one tick a second, a cache and a server, all of them told."""

    def __init__(self) -> None:
        self.versions = [0] * (SLOTS + 1)
        self.ended = [0] * (SLOTS + 1)
        self.settled = [0]
        self.time = 1000
        self.lives: dict[bytes, int] = {}
        self.lasting: dict[int, int] = {}
        self.left: dict[bytes, bytes] = {}
        self.second = 100
        self.oldest = 0
        self.questions: list[bytes] = []
        self.while_asked: Any = lambda: None
        self.while_looked_up: Any = lambda: None
        clock = SimpleNamespace(now=lambda: self.time, ticks=lambda seconds: max(1, int(seconds)))
        cache = SimpleNamespace(service=0, let_live=self._let_live)
        store = SimpleNamespace(versions=self.versions)
        edge = SimpleNamespace(
            ended=self.ended,
            settled=self.settled,
            say_lasting=lambda item, at: self.lasting.update({item: at}),
        )
        asking = SimpleNamespace(ask=self._ask, close=lambda: None)
        self.lifetimes = Lifetimes(store, edge, clock, cache, ENDING)  # type: ignore[arg-type]
        self.lifetimes.ask_through([asking])  # type: ignore[list-item]

    def _let_live(
        self, _service: int, key: bytes, until: int, unchanged: Callable[[], bool]
    ) -> bool:
        self.while_looked_up()
        if until <= self.time or not unchanged():
            return False
        self.lives[key] = until
        return True

    def _ask(self, texts: Sequence[bytes]) -> list[bytes | None]:
        self.questions += texts
        answers: list[bytes | None] = []
        for text in texts:
            if text == STATS:
                answers.append(stats(uptime=self.second - 60))
            elif text == SETTINGS:
                answers.append(settings(self.oldest))
            else:
                answers.append(self.left.get(text))
        self.while_asked()
        return answers

    def settle(self, *keys: bytes) -> None:
        self.lifetimes.settle([Waiting(0, b"g" + key, 7, hash(key)) for key in keys])


def me(exp: int) -> bytes:
    return b"ME k exp=%d la=0 cas=1\r\n" % exp


@pytest.fixture
def world() -> World:
    return World()


ME, MG = b"me k\r\n", second_question(b"k")


def test_an_item_that_ends(world: World) -> None:
    world.left[ME] = me(-30)
    world.settle(b"k")
    assert world.lives == {b"gk": 1000 + 30 - SLACK - 1}
    assert world.lasting == {}


@pytest.mark.parametrize("left", [-2, -3])
def test_an_item_that_ends_too_soon(world: World, left: int) -> None:
    world.left[ME] = me(left)
    world.settle(b"k")
    assert world.lives == {}
    assert world.lifetimes.ended == 1


def test_an_item_that_never_ends(world: World) -> None:
    world.left |= {ME: me(-1), MG: b"VA 1 t-1\r\n5\r\n"}
    world.settle(b"k")
    assert world.lives[b"gk"] > 2**60
    assert world.lasting == {hash(b"k"): 999}


def test_an_item_in_its_last_second(world: World) -> None:
    world.left |= {ME: me(-1), MG: b"VA 1 t1\r\n5\r\n"}
    world.settle(b"k")
    assert (world.lives, world.lasting) == ({}, {})


@pytest.mark.parametrize("cell", [7, SLOTS])
def test_what_is_learned_anew_before_it_is_looked_up(world: World, cell: int) -> None:
    """It is another item's, which was not asked about."""
    world.left[ME] = me(-30)
    world.while_looked_up = lambda: world.versions.__setitem__(cell, 1)
    world.settle(b"k")
    assert world.lives == {}


@pytest.mark.parametrize("cell", [7, SLOTS])
def test_a_write_while_it_was_asked(world: World, cell: int) -> None:
    world.left |= {ME: me(-30)}

    def write() -> None:
        world.versions[cell] += 1

    world.while_asked = write
    world.settle(b"k")
    assert world.lives == {}


def test_a_flush_bounds_what_never_ends(world: World) -> None:
    world.left |= {ME: me(-1), MG: b"VA 1 t-1\r\n5\r\n"}
    world.oldest = world.second + 20
    world.settle(b"k")
    assert world.lives == {b"gk": 1000 + 20 - SLACK - 1}
    assert world.lasting == {}, "it does end"


def test_a_flush_is_asked_for_again_when_the_generation_changed(world: World) -> None:
    world.left |= {ME: me(-1), MG: b"VA 1 t-1\r\n5\r\n"}
    world.settle(b"k")
    asked = world.questions.count(SETTINGS)
    world.settle(b"k")
    assert world.questions.count(SETTINGS) == asked
    world.versions[SLOTS] += 1
    world.oldest = world.second + 20
    world.settle(b"k")
    assert world.lives == {b"gk": 1000 + 20 - SLACK - 1}


def test_a_flush_that_may_have_come_is_asked_for_again(world: World) -> None:
    world.left |= {ME: me(-1), MG: b"VA 1 t-1\r\n5\r\n"}
    world.oldest = world.second + 20
    world.settle(b"k")
    world.lives.clear()
    world.time, world.second = 1018, 118
    world.settle(b"k")
    assert world.lives == {}, "it may be due at any moment"
    world.time, world.second = 1021, 121
    world.settle(b"k")
    assert world.lives[b"gk"] > 2**60


def test_that_no_flush_is_due_is_told(world: World) -> None:
    world.lifetimes.look_for_flush()
    assert world.settled == [999]
    world.questions.clear()
    world.time += 100
    world.lifetimes.look_for_flush()
    assert (world.settled, world.questions) == ([999], []), "nothing has come that may flush"


def test_a_flush_that_is_due_later_is_not_told(world: World) -> None:
    world.ended[SLOTS], world.oldest = 900, world.second + 20
    world.lifetimes.look_for_flush()
    assert world.settled == [0]
    world.time, world.second = 1021, 121
    world.lifetimes.look_for_flush()
    assert world.settled == [1020]


def test_what_may_be_a_flush_is_waited_for(world: World) -> None:
    """It may still be on its way to be done."""
    world.lifetimes.look_for_flush()
    world.ended[SLOTS] = 1000
    for world.time in (1001, 1031):
        world.lifetimes.look_for_flush()
        assert world.settled == [999]
    world.time = 1032
    world.lifetimes.look_for_flush()
    assert world.settled == [1031]


def test_nobody_to_ask(world: World) -> None:
    world.lifetimes.ask_through([])
    world.settle(b"k")
    world.lifetimes.look_for_flush()
    assert (world.lives, world.lasting, world.settled) == ({}, {}, [0])
    assert world.lifetimes.unanswered == 1


def test_no_answer(world: World) -> None:
    world.settle(b"k")
    assert world.lives == {}
    assert world.lifetimes.unanswered == 1


def test_where_items_are_marked_the_next_second_tells(world: World) -> None:
    """The second question takes a token: it is asked no more once such an item was seen."""
    world.left |= {ME: me(-1), MG: b"VA 1 t-1 X W\r\n5\r\n"}
    world.settle(b"k")
    world.lives.clear()
    world.lasting.clear()
    world.questions.clear()
    world.time += 1
    world.settle(b"k")
    world.lifetimes.settle_later()
    assert (world.lives, world.lasting) == ({}, {}), "the second has not passed"
    world.time, world.second = world.time + 1, world.second + 1
    world.lifetimes.settle_later()
    assert world.lives[b"gk"] > 2**60
    assert world.lasting == {hash(b"k"): 1000}
    assert MG not in world.questions


@pytest.mark.parametrize("answer", [b"EN\r\n", me(-9)])
def test_marked_and_gone_in_the_next_second(world: World, answer: bytes) -> None:
    world.left |= {ME: me(-1), MG: b"VA 1 t-1 X W\r\n5\r\n"}
    world.settle(b"k")
    world.lives.clear()
    world.settle(b"k")
    world.left[ME] = answer
    world.time, world.second = world.time + 1, world.second + 1
    if answer != b"EN\r\n":
        world.versions[7] += 1
    world.lifetimes.settle_later()
    assert world.lives == {}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if not shutil.which("memcached"):
        pytest.skip("memcached is not installed")
    with ExitStack() as stack:
        yield Server(stack)


def left_of(server: Server, key: bytes) -> float | None:
    told = Lives.read(server.ask(STATS), server.ask(SETTINGS))
    return told.left(server.ask(told.question(key)).removesuffix(b"MN\r\n"), key)


@pytest.mark.parametrize(
    ("exptime", "low", "high"),
    [
        (0, None, None),
        (30, 28, 30),
        (2_592_000, 2_591_998, 2_592_000),
        (2_592_001, 0, 0),
        (-1, 0, 0),
        (-100, 0, 0),
    ],
)
def test_what_memcached_says(
    server: Server, exptime: int, low: float | None, high: float | None
) -> None:
    server.ask(b"set k 0 %d 1\r\n5\r\n" % exptime)
    left = left_of(server, b"k")
    if low is None or high is None:
        assert left in (None, NEVER)
        assert second_left(server.ask(second_question(b"k")).removesuffix(b"MN\r\n"))[0] == NEVER
    else:
        assert left is not None
        assert low <= left <= high


def test_a_date(server: Server) -> None:
    server.ask(b"set k 0 %d 1\r\n5\r\n" % (time.time() + 500))
    left = left_of(server, b"k")
    assert left is not None
    assert 400 < left <= 501


def test_what_memcached_says_of_a_flush(server: Server) -> None:
    """The second overrides the first; 0, none and a negative one are now."""
    for text, low, high in (
        (b"flush_all 100\r\n", 90, 100),
        (b"flush_all 20\r\n", 10, 20),
        (b"flush_all %d\r\n" % (time.time() + 500), 400, 501),
        (b"flush_all 100 noreply\r\n", 90, 100),
    ):
        server.ask(text)
        assert low < Lives.read(server.ask(STATS), server.ask(SETTINGS)).flush_in <= high
    for text in (b"flush_all 0\r\n", b"flush_all -1\r\n", b"flush_all\r\n"):
        server.ask(b"flush_all 100\r\n" + text)
        assert Lives.read(server.ask(STATS), server.ask(SETTINGS)).flush_in == NEVER


def test_what_lasts_gives_no_end(server: Server) -> None:
    """Every command that is known for that, and what reads, to items that never end."""
    chance, tried = random.Random(SEED), 0
    server.reset()
    for request in commands(chance, 4_000):
        found = memcached.understand(request)
        if found.intent is not Intent.READ and not memcached.lasts(request):
            continue
        tried += found.intent is Intent.WRITE
        server.send(request)
        answers = server.ask(b"".join(b"mg %b t\r\n" % key for key in KEYS))
        assert not re.search(rb" t\d", answers), request
    assert tried > 300
