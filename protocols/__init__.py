# SPDX-License-Identifier: Apache-2.0
"""The protocols: what of a request is its cache key, and what a request writes.

Each folder here with a SPEC is a protocol; no file outside of its folder knows it by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from carom.errors import UsageError
from carom.protocols.loaded import bits as bits
from carom.protocols.loaded import loaded
from carom.protocols.spec import Filled, Spec

_HERE = Path(__file__).resolve().parent


def _found() -> dict[str, Spec]:
    """Every folder's SPEC by name, in the order of their numbers."""
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
    """The protocols that `carom serve` or `carom front` takes."""
    return [entry for entry in SPECS.values() if entry.filled is who]


def default(who: Filled) -> Spec:
    """The protocol that `carom serve` or `carom front` takes where the user names none."""
    return next(entry for entry in filled_by(who) if entry.default)


def words(specs: Iterable[Spec]) -> str:
    """The names of protocols to choose from, for a hint or a help text."""
    return " | ".join(entry.name for entry in specs)


def spec(name: str) -> Spec:
    """The protocol of this name. Raises UsageError where there is none."""
    if name not in SPECS:
        raise UsageError(f"protocol {name!r} is unknown", hint=words(SPECS.values()))
    return SPECS[name]


def made_up(spec: Spec, request: bytes) -> Iterable[tuple[bytes, bytes]]:
    """Requests, and replies that a server might have given to them, after which a request of a
    learned protocol would be a hit: its folder's `made_up.py` makes them; none for no read."""
    found: Iterable[tuple[bytes, bytes]] = importlib.import_module(
        f"{__name__}.{spec.name}.made_up"
    ).exchanges(request)
    return found


def headers(specs: Iterable[Spec] = ()) -> dict[str, str]:
    """The generated header, by its name, for programs that know these protocols.

    Protocols whose key is the whole payload need no code of their own and are always included.
    """
    return {"loaded.h": loaded(specs, [entry for entry in SPECS.values() if entry.whole_key])}
