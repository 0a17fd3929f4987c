# SPDX-License-Identifier: Apache-2.0
"""The filters by name, each a C file of its own beside this one, and where they run."""

from __future__ import annotations

from typing import Literal, get_args

Name = Literal[
    "simple",
    "reject",
    "valid-command",
    "robust-valid-command",
    "strict-valid-command",
    "parameterized",
    "limited-puts",
    "existing-key",
]

SAYS: dict[Name, str] = {
    "simple": "accepts every request",
    "reject": "accepts none",
    "valid-command": "what begins with a command's word",
    "robust-valid-command": "the word, and the exact length of its command, as published",
    "strict-valid-command": "what the server would understand: `PUTT` is not taken for PUT",
    "parameterized": "everything or nothing, by `accept`",
    "limited-puts": "valid commands, but of PUTs `rate` a second, `client-rate` of one client",
    "existing-key": "valid commands, but GET and DELETE only where their key exists",
}
"""Each filter, and what it accepts."""

NAMES: tuple[Name, ...] = get_args(Name)

Place = Literal["xdp", "tc", "socket"]
PLACES: tuple[Place, ...] = get_args(Place)
