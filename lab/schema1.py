# SPDX-License-Identifier: Apache-2.0
"""Runs of the first schema, in which the name of the list told what was measured."""

from __future__ import annotations

from typing import Any

import msgspec

from carom.lab import registry
from carom.lab.record import SCHEMA as NOW

SCHEMA = 1

_LISTS = {"repetitions": "round-trips", "measurements": "figures", "runs": "packets"}
"""The name of each kind's list, and the kind's name now."""


def upgraded(old: dict[str, Any]) -> dict[str, Any]:
    """The same run in today's schema. Raises ValidationError if it is not a run.

    Settings that had no meaning for the experiment are dropped: it shared them with others. A
    setting that was not recorded gets today's default.
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
    defaults = {
        name: value for name, value in msgspec.to_builtins(known.full).items() if value is not None
    }
    own = {field.name for field in msgspec.structs.fields(type(known.full))} | {"left_out"}
    return defaults | {name: value for name, value in settings.items() if name in own}
