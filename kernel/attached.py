# SPDX-License-Identifier: Apache-2.0
"""The programs attached to each interface. All of one interface are detached together."""

from __future__ import annotations

import contextlib
from typing import Protocol, TypeVar

from carom.kernel.resource import Resource


class Swappable(Protocol):
    """An attached program that another can replace between two packets."""

    def attached(self) -> bool:
        """Whether it is still attached."""

    def replace(self, program_fd: int) -> None:
        """Put another program there."""


class Link(Swappable, Protocol):
    """A program on an interface, as xdp/link.py and tc/link.py attach it."""

    def close(self) -> None:
        """Detach."""


def replaced(link: Swappable, program_fd: int) -> bool:
    """Replace a link's program; False if the link is gone with its interface.

    That may happen at any moment, also between the check and the swap. Raises OSError.
    """
    try:
        if link.attached():
            link.replace(program_fd)
            return True
    except OSError:
        if link.attached():
            raise
    return False


L = TypeVar("L", bound=Link)


class Attached(Resource):
    """Links, by the number of their interface. For one thread at a time."""

    def __init__(self) -> None:
        self._links: dict[int, list[Link]] = {}

    def add(self, ifindex: int, link: L) -> L:
        """Keep one more link of an interface; returns it."""
        self._links.setdefault(ifindex, []).append(link)
        return link

    def links(self) -> list[list[Link]]:
        """The links of each interface, in order; another thread may detach some meanwhile."""
        return [list(links) for links in list(self._links.values())]

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
