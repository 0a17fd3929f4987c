# SPDX-License-Identifier: Apache-2.0
"""Runs as they were recorded at first: what was measured was told by the name of its list."""

from __future__ import annotations

from typing import Any

import msgspec

from carom.lab import registry
from carom.lab.record import SCHEMA as NOW

SCHEMA = 1

_LISTS = {"repetitions": "round-trips", "measurements": "figures", "runs": "packets"}
"""The list that each kind of run had, and what it is called now."""


def upgraded(old: dict[str, Any]) -> dict[str, Any]:
    """The same run as it would be recorded today. Raises ValidationError where it is none.

    Of the settings those are left out that the experiment shared with others and that meant nothing
    to it; one that was left open was what stands today.
    """
    for name, measured in _LISTS.items():
        if old.get(name) is not None:
            new = {key: value for key, value in old.items() if key != name}
            return {
                **new,
                "schema": NOW,
                "measured": measured,
                "measurements": old[name],
                "settings": _own(old.get("experiment"), old.get("settings")),
            }
    raise msgspec.ValidationError("it has no measurements")


def _own(experiment: Any, settings: Any) -> Any:
    known = registry.experiments().get(experiment) if isinstance(experiment, str) else None
    if known is None or not isinstance(settings, dict):
        return settings
    standing = {
        name: value for name, value in msgspec.to_builtins(known.full).items() if value is not None
    }
    own = {one.name for one in msgspec.structs.fields(type(known.full))} | {"left_out"}
    return standing | {name: value for name, value in settings.items() if name in own}
