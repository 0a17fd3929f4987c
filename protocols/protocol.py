# SPDX-License-Identifier: Apache-2.0
"""protocol.h in Python: what a request wants, and how much of it a hook looks at."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

TEXT_ROOM = 512
"""Bytes of a request that a protocol sees; a hook that watches writes may take 2048."""

QUIET = 4
"""A bit beside WRITE and WRITE_ALL: there need be no acknowledgement."""

LASTING = 32
"""A bit beside a write: it gives no end to an item that had none."""

ENDLESS = 64
"""A bit beside WRITE: once it is done, the item does not end by itself."""

UNSURE = 8
"""A bit beside WRITE and WRITE_ALL: if the server refuses it, it has written nothing."""

ANSWERS = 16
"""A bit beside a write: its acknowledgement may look like the reply to a read."""

EITHER = 128
"""A bit beside any intent: its reply may look like an acknowledgement; no write waits for it."""

SEVERAL = 256
"""A bit beside OTHER: it reads several keys."""

BITS = QUIET | UNSURE | ANSWERS | LASTING | ENDLESS | EITHER | SEVERAL


class Intent(IntEnum):
    """What a request wants. `protocol.h` says what each means."""

    OTHER = 0
    READ = 1
    WRITE = 2
    WRITE_ALL = 3


class Request(NamedTuple):
    """How a protocol understands a request; only READ and WRITE have a key."""

    intent: Intent
    key: bytes = b""
    quiet: bool = False
    unsure: bool = False
    answers: bool = False
    either: bool = False
    several: bool = False

    @classmethod
    def of(cls, bits: int, key: bytes = b"") -> Request:
        """A request from what the C code returns: an intent with the bits beside it."""
        intent = Intent(bits & ~BITS)
        keyed = intent in (Intent.READ, Intent.WRITE)
        told = (bool(bits & bit) for bit in (QUIET, UNSURE, ANSWERS, EITHER, SEVERAL))
        return cls(intent, key if keyed else b"", *told)
