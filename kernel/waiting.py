# SPDX-License-Identifier: Apache-2.0
"""Wait for sockets and pipes, whatever their descriptors' numbers: select(2) ends at 1023."""

from __future__ import annotations

import math
import select
from collections.abc import Sequence
from typing import Protocol, TypeVar


class _File(Protocol):
    def fileno(self) -> int: ...


_AnyFile = TypeVar("_AnyFile", bound=_File | int)


def readable(files: Sequence[_AnyFile], seconds: float | None) -> list[_AnyFile]:
    """Those that can be read, or are closed at their other end, within `seconds` (None: no limit).

    A file is what has a `fileno()`, or a descriptor.
    """
    numbers = {file if isinstance(file, int) else file.fileno(): file for file in files}
    poll = select.poll()
    for number in numbers:
        poll.register(number, select.POLLIN)
    ready = poll.poll(None if seconds is None else math.ceil(1000 * max(0.0, seconds)))
    return [numbers[number] for number, _ in ready]
