# SPDX-License-Identifier: Apache-2.0
"""carom answers UDP requests inside the kernel, from a cache that fronts a userspace server."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from carom.daemon.service import Reply, Service, run

__all__ = ["Reply", "Service", "run"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """What a service is made of is imported when it is asked for: most commands need none of it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from carom.daemon import service

    return getattr(service, name)
