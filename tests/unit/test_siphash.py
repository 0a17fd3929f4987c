# SPDX-License-Identifier: Apache-2.0
"""SipHash in Python says what its authors published, and what CPython's own says."""

from __future__ import annotations

import os
import secrets
import struct
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carom.kernel import hashes as module
from carom.kernel.abi import KEY_MAX, SLOTS, WEIGHTS
from carom.kernel.hashes import Hashes, hash_of, python_secret
from carom.kernel.siphash import absorb, begin, end, siphash

SECRET = bytes(range(16))
PUBLISHED = bytes.fromhex("""
310e0edd47db6f72 fd67dc93c539f874 5a4fa9d909806c0d 2d7efbd796666785
b7877127e09427cf 8da699cd64557618 cee3fe586e46c9cb 37d1018bf50002ab
6224939a79f5f593 b0e4a90bdf82009e f3b9dd94c5bb5d7a a7ad6b22462fb3f4
fbe50e86bc8f1e75 903d84c02756ea14 eef27a8e90ca23f7 e545be4961ca29a1
""")
"""SipHash-2-4 by SECRET of no byte, of byte 0, of bytes 0 and 1, ...: `vectors_sip64` of the
authors' implementation. The last is the one that the paper works through."""


def pythons_words(code: str, **environment: str) -> list[int]:
    """What another Python prints, numbers."""
    said = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    return [int(word) for word in said.stdout.split()]


@pytest.mark.parametrize("length", range(len(PUBLISHED) // 8))
def test_published(length: int) -> None:
    found = siphash(SECRET, bytes(range(length)), 2, 4)
    assert found.to_bytes(8, "little") == PUBLISHED[8 * length :][:8]


def test_1_3_is_cpythons() -> None:
    """With PYTHONHASHSEED=0 its secret is zero."""
    if sys.hash_info.algorithm != "siphash13":
        pytest.skip(f"this Python hashes by {sys.hash_info.algorithm}")
    lengths = range(1, 300)
    code = f"for n in {lengths}: print(hash((bytes(range(256)) * 2)[:n]) % 2**64)"
    ours = [siphash(bytes(16), (bytes(range(256)) * 2)[:n]) for n in lengths]
    assert pythons_words(code, PYTHONHASHSEED="0") == ours


@given(st.binary(min_size=16, max_size=16), st.binary(max_size=600), st.integers(0, 75))
def test_in_two_parts(secret: bytes, data: bytes, words: int) -> None:
    front, rest = data[: 8 * words], data[8 * words :]
    if len(front) == 8 * words:
        state = absorb(begin(secret), front)
        assert end(state, rest, len(front)) == siphash(secret, data)


@pytest.fixture(scope="module", params=[True, False], ids=["native", "numbers"])
def hashes(request: pytest.FixtureRequest) -> Hashes:
    if request.param and not python_secret():
        pytest.skip(f"this Python hashes by {sys.hash_info.algorithm}")
    return Hashes(native=request.param)


@given(st.binary(max_size=KEY_MAX))
def test_bounds(hashes: Hashes, key: bytes) -> None:
    assert 0 <= hashes.slot_of(key) < SLOTS


FORMS: dict[str, Callable[[int], bytes]] = {
    "decimal": lambda n: b"%d" % n,
    "key": lambda n: b"key %d" % n,
    "user": lambda n: b"user:%08d:name" % n,
    "padded": lambda n: (b"%d" % n).ljust(32, b"."),
    "le32": lambda n: struct.pack("<I", n),
    "le32-high": lambda n: struct.pack("<I", n << 16),
    "be32": lambda n: struct.pack(">I", n),
    "be64": lambda n: struct.pack(">Q", n),
    "be64-high": lambda n: struct.pack(">Q", n << 16),
    "at-the-end": lambda n: struct.pack(">Q", n).rjust(32, b"\1"),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_numbered_keys_spread_over_the_slots(hashes: Hashes, form: Callable[[int], bytes]) -> None:
    """As random ones would: 10,000 of them share 65,536 slots so that about 9,270 are taken."""
    assert len({hashes.slot_of(form(n)) for n in range(10_000)}) > 9_000


def test_services_and_lengths_have_hashes_of_their_own() -> None:
    """Services do not share them, and zeros behind a key make another."""
    weights = [secrets.randbits(64) for _ in range(WEIGHTS)]
    keys = {b"k" * n + bytes(zeros) for n in range(20) for zeros in range(20)}
    found = {hash_of(weights, service, key) for service in range(5) for key in keys}
    assert len(found) == 5 * len(keys)
    assert all(0 <= one < 2**64 for one in found)


@pytest.mark.parametrize("native", [True, False])
def test_no_environment_takes_the_secret_away(native: bool) -> None:
    """Where hash() says the same at every start, slots do not."""
    code = f"""
from carom.kernel.hashes import Hashes
print(hash(b"key"))
for hashes in (Hashes(native={native}), Hashes(native={native})):
    print(*(hashes.slot_of(b"%d" % n) for n in range(10)))
"""
    first, second = (pythons_words(code, PYTHONHASHSEED="0") for _ in range(2))
    assert first[0] == second[0], "the test shows nothing"
    starts = {tuple(one[at : at + 10]) for one in (first, second) for at in (1, 11)}
    assert len(starts) == 4


@pytest.mark.parametrize("seed", ["0", "1", "random"])
def test_pythons_secret_is_found(seed: str) -> None:
    if sys.hash_info.algorithm != "siphash13":
        pytest.skip(f"this Python hashes by {sys.hash_info.algorithm}")
    code = "from carom.kernel.hashes import python_secret; print(int(any(python_secret())))"
    (found,) = pythons_words(code, PYTHONHASHSEED=seed)
    assert found == (seed != "0")


def test_another_hash_of_pythons_is_not_taken_for_siphash(monkeypatch: pytest.MonkeyPatch) -> None:
    python_secret.cache_clear()
    monkeypatch.setattr(module, "hash", lambda data: sum(data), raising=False)
    try:
        assert python_secret() is None
        monkeypatch.undo()
        assert Hashes().slot_of(b"k") >= 0
    finally:
        python_secret.cache_clear()
