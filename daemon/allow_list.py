# SPDX-License-Identifier: Apache-2.0
"""Whose requests are answered, where a list says so, and by which neighbours they may come."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from carom.daemon.fastpath import FastPath
from carom.daemon.neighbours import Neighbours
from carom.kernel.resource import Resource


class AllowList(Resource):
    """The prefixes that are in the kernel; without any, nothing is known of neighbours.

    Places say whether they heed it. `links` gives the interfaces that have addresses to answer at.
    """

    def __init__(
        self, fastpath: FastPath | None, links: Callable[[], set[int]], changed: Callable[[], None]
    ):
        """`changed` is called when the set of unknown sources has changed."""
        self._fastpath = fastpath
        self._links = links
        self._changed = changed
        self._prefixes: tuple[str, ...] = ()
        self._neighbours: Neighbours | None = None

    def hold(self, prefixes: Sequence[str]) -> None:
        """Have these prefixes in the kernel, before places heed them. Raises BPFError, OSError."""
        if not self._fastpath or tuple(prefixes) == self._prefixes:
            return
        self.close()
        self._fastpath.allow(prefixes)
        self._prefixes = tuple(prefixes)
        if prefixes:
            self._neighbours = Neighbours(self._fastpath, prefixes, self._links(), self._changed)

    def unknown(self) -> tuple[frozenset[int], str]:
        """The IP versions of which no source is answered now, and why."""
        return self._neighbours.unknown() if self._neighbours else (frozenset(), "")

    def look_again(self) -> None:
        """The interfaces may have changed."""
        if self._neighbours:
            self._neighbours.look_again(self._links())

    def close(self) -> None:
        """Stop following neighbours."""
        closing, self._neighbours, self._prefixes = self._neighbours, None, ()
        if closing:
            closing.close()
