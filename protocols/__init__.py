# SPDX-License-Identifier: Apache-2.0
"""A folder a protocol: what of a request is its cache key, and what a request writes."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

from carom.kernel.abi import Protocol

_HERE = Path(__file__).resolve().parent

INCLUDE = (_HERE, *sorted({path.parent for path in _HERE.glob("*/*.h")}))
"""Folders of the protocols' C headers."""


class Language(Interface):
    """What the daemon asks of a protocol's module."""

    def key_of(self, request: bytes) -> bytes | None:
        """The cache key of a request; None for one that the cache does not answer."""

    def slot_key_of(self, key: bytes) -> bytes:
        """The bytes of a cache key that its slot is computed from."""

    def keys_named(self, name: bytes) -> tuple[bytes, ...]:
        """The cache keys of what a user calls by this name: for `carom cache get` and `drop`."""


def language(protocol: Protocol) -> Language:
    """A protocol's module, imported when it is needed: some bring a large library along."""
    module: Any = importlib.import_module(f"carom.protocols.{protocol.name.lower()}")
    found: Language = module
    return found
