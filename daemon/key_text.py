# SPDX-License-Identifier: Apache-2.0
"""Keys in words."""

from __future__ import annotations


def key_text(key: bytes) -> str:
    """A key as `carom cache` takes it: its text where it is plain, else hexadecimal after 0x.

    Whoever asks chooses its bytes: none of them commands a terminal, or ends a line.
    """
    text = key.decode("latin-1")
    plain = key.isascii() and text.isprintable() and not text.startswith("0x")
    return text if plain else f"0x{key.hex()}"
