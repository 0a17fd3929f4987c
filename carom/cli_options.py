# SPDX-License-Identifier: Apache-2.0
"""What several commands take."""

from __future__ import annotations

import math
from typing import Annotated, NoReturn

import typer

from carom.errors import CaromError, UsageError

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def missing(error: ImportError) -> NoReturn:
    """Say which package the lab wants."""
    raise CaromError(
        f"the lab needs the Python package {error.name}",
        hint="install carom with its lab: pip install 'carom[lab]'",
    ) from error


def sizes(text: str) -> tuple[int, int]:
    """The shortest and the longest of `32` or `4-256`. Raises UsageError."""
    low, _, high = text.partition("-")
    try:
        return int(low), int(high or low)
    except ValueError as error:
        raise UsageError(f"{text!r} is not a size", hint="for example 32, or 1-256") from error


def numbers(text: str, name: str) -> tuple[float, ...]:
    """The numbers of `0,0.5,1`. Raises UsageError."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = (math.nan,)
    if not all(math.isfinite(one) for one in found):
        raise UsageError(f"{name} {text!r} are not numbers", hint="for example 0,0.5,1")
    return found
