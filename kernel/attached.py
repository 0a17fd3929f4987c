# SPDX-License-Identifier: Apache-2.0
"""The programs attached to each interface. All of one interface are detached together."""

from __future__ import annotations

import contextlib
from typing import Protocol, TypeVar

from carom.kernel.resource import Resource


class Link(Protocol):
    """A program on an interface, as xdp/link.py and tc/link.py attach it."""

    def attached(self) -> bool:
        """Whether it is still attached."""

    def close(self) -> None:
        """Detach."""


L = TypeVar("L", bound=Link)


class Attached(Resource):
    """Links, by the number of their interface. For one thread at a time."""

    def __init__(self) -> None:
        self._links: dict[int, list[Link]] = {}

    def add(self, ifindex: int, link: L) -> L:
        """Keep one more link of an interface; returns it."""
        self._links.setdefault(ifindex, []).append(link)
        return link

    def on(self, ifindex: int) -> bool:
        """Whether anything was attached to an interface, and all of it still is."""
        links = self._links.get(ifindex, [])
        return bool(links) and all(link.attached() for link in links)

    @property
    def empty(self) -> bool:
        """Whether nothing is attached to any interface."""
        return not self._links

    def detach(self, ifindex: int) -> None:
        """Detach what is on an interface, last first; without any link it does nothing."""
        with contextlib.ExitStack() as stack:
            for link in self._links.pop(ifindex, []):
                stack.callback(link.close)

    def close(self) -> None:
        """Detach everything."""
        with contextlib.ExitStack() as stack:
            for ifindex in self._links:
                stack.callback(self.detach, ifindex)
