# SPDX-License-Identifier: Apache-2.0
"""protocol.h in Python: what a request wants, and how much of it a hook looks at."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

TEXT_ROOM = 512
"""Bytes of a request that a protocol is shown; a hook that watches writes may take 2048."""

QUIET = 4
"""The bit beside WRITE and WRITE_ALL: no acknowledgement need follow."""

LASTING = 32
"""The bit beside a write: it gives no end to what had none."""

ENDLESS = 64
"""The bit beside WRITE: once it is done, the item does not end by itself."""

UNSURE = 8
"""The bit beside WRITE and WRITE_ALL: what the server refuses has written nothing."""

ANSWERS = 16
"""The bit beside a write: its acknowledgement may look like a read's reply."""

EITHER = 128
"""The bit beside any: its reply may look like an acknowledgement, and no write waits for it."""

BITS = QUIET | UNSURE | ANSWERS | LASTING | ENDLESS | EITHER


class Intent(IntEnum):
    """What a request wants. `protocol.h` says what each means."""

    OTHER = 0
    READ = 1
    WRITE = 2
    WRITE_ALL = 3


class Request(NamedTuple):
    """What a protocol makes of a request: READ and WRITE have a key; bits beside."""

    intent: Intent
    key: bytes = b""
    quiet: bool = False
    unsure: bool = False
    answers: bool = False
    either: bool = False

    @classmethod
    def of(cls, bits: int, key: bytes = b"") -> Request:
        """A request as the C tells it: an intent with the bits beside it."""
        intent = Intent(bits & ~BITS)
        keyed = intent in (Intent.READ, Intent.WRITE)
        told = (bool(bits & bit) for bit in (QUIET, UNSURE, ANSWERS, EITHER))
        return cls(intent, key if keyed else b"", *told)
