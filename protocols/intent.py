# SPDX-License-Identifier: Apache-2.0
"""protocol.h in Python: what a request wants."""

from __future__ import annotations

from enum import IntEnum


class Intent(IntEnum):
    """What a request wants. `protocol.h` says what each means."""

    OTHER = 0
    READ = 1
    WRITE = 2
    WRITE_ALL = 3
