# SPDX-License-Identifier: Apache-2.0
"""protocol.h in Python: what a request wants, and how much of it a hook looks at."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

TEXT_ROOM = 512
"""Bytes of a request that a protocol is shown; a hook that watches writes may take 2048."""

QUIET = 4
"""The bit beside WRITE and WRITE_ALL: no acknowledgement need follow."""


class Intent(IntEnum):
    """What a request wants. `protocol.h` says what each means."""

    OTHER = 0
    READ = 1
    WRITE = 2
    WRITE_ALL = 3


class Request(NamedTuple):
    """What a protocol makes of a request: READ and WRITE have a key, and writes may be quiet."""

    intent: Intent
    key: bytes = b""
    quiet: bool = False
