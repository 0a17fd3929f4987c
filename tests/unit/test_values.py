# SPDX-License-Identifier: Apache-2.0
"""Text of maps: whatever its bytes are, it is one printable line, and no other text looks so."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from carom.kernel.values import bounded, text

WITHOUT_NUL = st.binary(max_size=256).map(lambda data: data.replace(b"\0", b"x"))


@given(WITHOUT_NUL, WITHOUT_NUL)
@example(b"\x85", "\u0085".encode())
@example(b"\\x85", b"\x85")
@example(b"\xff", "\xff".encode())
@example("\u202e".encode(), b"\\u202e")
@example("\U000e0001".encode(), "\ue0001".encode())
def test_text(one: bytes, other: bytes) -> None:
    assert text(one).isprintable()
    assert (text(one) == text(other)) == (one == other)


@given(st.text(st.characters(whitelist_categories=("L", "N")), max_size=60))
def test_what_is_printable_stays(letters: str) -> None:
    assert text(letters.encode() + b"\0rest") == letters


def test_sums_fit_64_bits() -> None:
    assert bounded(2**64 + 5) == 2**64 - 1
    assert bounded(-(2**63) - 1) == -(2**63)
    assert bounded(7) == 7
