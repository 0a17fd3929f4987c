# SPDX-License-Identifier: Apache-2.0
"""The programs attached to each interface. All of one interface are detached together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Protocol, TypeVar

from carom.kernel import forked, libbpf
from carom.kernel.resource import Resource


class Links:
    """How descriptors of links come and go: here each link ends with its owner.

    A link has a name of one word that tells it from its owner's others.
    """

    def there(self, name: str) -> bool:
        """Whether there is one of that name, of an owner that has ended."""
        return False

    def end(self, name: str) -> None:
        """Detach one that is `there`."""

    def made(self, name: str, program: int, make: Callable[[], int]) -> int:
        """A link of a program, by `make`. Raises OSError, BPFError."""
        return forked.made(make)

    def detach(self, name: str, descriptor: int) -> None:
        """Detach the program, and close the descriptor."""
        libbpf.close_link(descriptor)

    def close(self, name: str, descriptor: int) -> None:
        """Close the descriptor at its owner's end."""
        libbpf.close_link(descriptor)


ENDING = Links()
"""Links that end with their owner."""


class Swappable(Protocol):
    """An attached program that another can replace between two packets."""

    def attached(self) -> bool:
        """Whether it is still attached."""

    def replace(self, program_fd: int) -> None:
        """Put another program there."""


class Link(Swappable, Protocol):
    """A program on an interface, as xdp/link.py and tc/link.py attach it."""

    def detach(self) -> None:
        """Detach."""

    def close(self) -> None:
        """Detach, unless it is to outlive its owner."""


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
                stack.callback(link.detach)

    def close(self) -> None:
        """Detach everything that is not to outlive its owner."""
        with contextlib.ExitStack() as stack:
            for links in self._links.values():
                for link in links:
                    stack.callback(link.close)
            self._links.clear()
