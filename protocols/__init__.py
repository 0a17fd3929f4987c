# SPDX-License-Identifier: Apache-2.0
"""A folder a protocol: what of a request is its cache key, and what a request writes.

Each folder here that has a SPEC is a protocol, and no other file knows them by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from carom.errors import UsageError
from carom.protocols.loaded import loaded
from carom.protocols.spec import Filled, Spec

_HERE = Path(__file__).resolve().parent


def _found() -> dict[str, Spec]:
    """Every folder's SPEC, in the order of their numbers."""
    names = sorted(path.parent.name for path in _HERE.glob("*/__init__.py"))
    specs: list[Spec] = [importlib.import_module(f"{__name__}.{name}").SPEC for name in names]
    assert [entry.name for entry in specs] == names, "a SPEC is named as its folder is"
    assert len({entry.number for entry in specs}) == len(specs), "each has a number of its own"
    return {entry.name: entry for entry in sorted(specs, key=lambda entry: entry.number)}


SPECS: Mapping[str, Spec] = _found()
"""The protocols, by name."""

INCLUDE = (_HERE, *sorted({path.parent for path in _HERE.glob("*/*.h")}))
"""Folders of the protocols' C headers."""


def filled_by(who: Filled) -> list[Spec]:
    """The protocols that are served, or fronted."""
    return [entry for entry in SPECS.values() if entry.filled is who]


def default(who: Filled) -> Spec:
    """The one that is served, or fronted, where none is said."""
    return next(entry for entry in filled_by(who) if entry.default)


def words(specs: Iterable[Spec]) -> str:
    """Protocols to choose from, for a hint or a help text."""
    return " | ".join(entry.name for entry in specs)


def spec(name: str) -> Spec:
    """The protocol of this name. Raises UsageError."""
    if name not in SPECS:
        raise UsageError(f"protocol {name!r} is unknown", hint=words(SPECS.values()))
    return SPECS[name]


def headers(specs: Iterable[Spec] = ()) -> dict[str, str]:
    """The header that is written for programs that know these protocols.

    Those whose key is the whole payload need no code of their own, and are always there.
    """
    return {"loaded.h": loaded(specs, [entry for entry in SPECS.values() if entry.whole_key])}
