# SPDX-License-Identifier: Apache-2.0
"""The program here that has an object file: hosts of a pair load it (kernel/objects.py)."""

from __future__ import annotations

from pathlib import Path

from carom.kernel.recipe import Recipe


def load() -> Recipe:
    """The load generator."""
    return Recipe(Path(__file__).resolve().parent / "load.c", packaged="load")
