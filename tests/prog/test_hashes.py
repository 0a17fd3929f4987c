# SPDX-License-Identifier: Apache-2.0
"""The hashes in C: SipHash, the same as Python's, and with collisions for nobody."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterator

import pytest

from carom.daemon.cache import Cache
from carom.daemon.fastpath import FastPath
from carom.errors import BPFError
from carom.kernel.abi import KEY, KEY_MAX, WEIGHTS
from carom.kernel.hashes import Hashes, hash_of
from carom.kernel.siphash import siphash
from prog.hashes import DATA_ROOM, ProgramHashes
from prog.host import Host

SECRET = bytes(range(16))
LENGTHS = range(1, KEY_MAX + 1)
KEY_FRONT = 8  # bytes of a key's struct before its own


@pytest.fixture(scope="module", params=[True, False], ids=["native", "numbers"])
def hashes(request: pytest.FixtureRequest) -> Hashes:
    return Hashes(native=request.param)


@pytest.fixture(scope="module")
def programs(hashes: Hashes) -> Iterator[ProgramHashes]:
    with ProgramHashes(hashes) as loaded:
        yield loaded


@pytest.mark.parametrize("rounds", [(1, 3), (2, 4)], ids=["1-3", "2-4"])
def test_siphash(programs: ProgramHashes, rounds: tuple[int, int]) -> None:
    """As in Python, which tests/unit/test_siphash.py holds against the published vectors."""
    for length in range(64):
        data = bytes(range(length))
        assert programs.siphash(SECRET, data, *rounds) == siphash(SECRET, data, *rounds)
    rng = random.Random(1)
    for length in range(DATA_ROOM + 1):
        secret, data = rng.randbytes(16), rng.randbytes(length)
        assert programs.siphash(secret, data, *rounds) == siphash(secret, data, *rounds)


@pytest.mark.parametrize("first", [0, 1])
def test_slots_are_pythons(programs: ProgramHashes, hashes: Hashes, first: int) -> None:
    rng = random.Random(2)
    for length in LENGTHS:
        for key in (rng.randbytes(length), bytes(length), b"\xff" * length):
            assert programs.slot(key, first) == hashes.slot_of(key[first:])


def test_names_are_siphash(programs: ProgramHashes, hashes: Hashes) -> None:
    secret = b"".join(hashes.parameters[f"hash_secret{n}"].to_bytes(8, "little") for n in range(2))
    rng = random.Random(3)
    for length in LENGTHS:
        service, key = rng.randrange(256), rng.randbytes(length)
        named = KEY.pack(service, length, key)[: KEY_FRONT + length]
        assert programs.name(service, key) == siphash(secret, named)


def flipped(key: bytes, *at: int) -> bytes:
    """The key with the upper bits of these bytes inverted."""
    return bytes(byte ^ 0x80 * (n in at) for n, byte in enumerate(key))


STATIC = b"\x10static-content-1\x07example\x03org\0\0\1\5"
PAIRS = {
    **{
        f"sums of words, {at}": (STATIC, flipped(STATIC, at + 3, at + 7, at + 11))
        for at in (0, 8, 16)
    },
    "zeros behind": (b"key", b"key\0"),
    **{
        f"a multiple of {prime}, {times}": (
            STATIC,
            (int.from_bytes(STATIC, "little") + times * prime).to_bytes(len(STATIC), "little"),
        )
        for prime in (65519, 65521, 65536, 2**31 - 1, 2**32, 2**61 - 1)
        for times in (1, 2**40)
    },
    "words swapped": (STATIC, STATIC[8:16] + STATIC[:8] + STATIC[16:]),
}
"""Keys that once shared a name or a slot whatever the secret was, and more of their kind."""


def test_no_pair_collides_for_many_secrets(programs: ProgramHashes, hashes: Hashes) -> None:
    """A slot has 65,536 values: one secret in so many makes any two keys share one.

    Of 8,000, five or more do so for a pair in 2 runs of 10 million.
    """
    drawn = [Hashes() for _ in range(8000)]
    for one, other in PAIRS.values():
        assert one != other
        assert sum(each.slot_of(one) == each.slot_of(other) for each in drawn) < 5
        assert programs.name(0, one) != programs.name(0, other)
        for _ in range(100):
            weights = [secrets.randbits(64) for _ in range(WEIGHTS)]
            assert hash_of(weights, 0, one) != hash_of(weights, 0, other)
    for secret in (secrets.token_bytes(16) for _ in range(200)):
        for pair in PAIRS.values():
            named = (KEY.pack(0, len(key), key)[: KEY_FRONT + len(key)] for key in pair)
            assert len({programs.siphash(secret, one) for one in named}) == 2


def test_services_have_names_of_their_own(programs: ProgramHashes) -> None:
    assert len({programs.name(service, b"key") for service in range(256)}) == 256


def test_every_start_draws_secrets() -> None:
    keys = [b"%d" % n for n in range(16)]
    slots, parameters = [], []
    for _ in range(2):
        with FastPath() as fastpath:
            slots.append([fastpath.store.hashes.slot_of(key) for key in keys])
            parameters.append(fastpath.store.hashes.parameters)
    assert slots[0] != slots[1]
    assert not set(parameters[0].values()) & set(parameters[1].values())


@pytest.mark.parametrize("missing", ["hash_secret0", "slot_v0"])
def test_nothing_is_loaded_without_secrets(missing: str) -> None:
    hashes = Hashes()
    del hashes.parameters[missing]
    with pytest.raises(BPFError, match=f"without {missing}"):
        ProgramHashes(hashes)


def test_the_daemon_uses_them(load_fastpath: Callable[..., FastPath]) -> None:
    """For slots, whichever service asks."""
    host = Host(load_fastpath(policy="lru", test_clock=True))
    for service in (0, 3):
        cache = Cache(host.fastpath.store, host.clock, 100, service)
        token = cache.take(b"key")
        assert token and token[0] == host.fastpath.store.hashes.slot_of(b"key")
