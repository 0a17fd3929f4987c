# SPDX-License-Identifier: Apache-2.0
"""What the settings of every experiment have to be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from carom.errors import UsageError


def check(repetitions: int, *seconds: float) -> None:
    """How often, and how long. Raises UsageError that names what is wrong."""
    if repetitions < 1:
        raise UsageError("at least one repetition is needed", hint="--repetitions 3")
    if not all(0 < one < math.inf for one in seconds):
        raise UsageError("seconds must be positive", hint="--seconds 0.5")


def check_once(name: str, values: Sequence[Any]) -> None:
    """A list has nothing twice, for repetitions are to be counted as such. Raises UsageError."""
    if len(set(values)) < len(values):
        raise UsageError(f"{name} has something twice", hint="name each once")
