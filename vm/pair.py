# SPDX-License-Identifier: Apache-2.0
"""What an experiment needs of the two hosts that it runs on, whatever they are."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol


class Host(Protocol):
    """One end of a pair: an interface towards the other end, and a way to run programs."""

    @property
    def interface(self) -> str:
        """The interface that faces the other host."""

    @property
    def address(self) -> str:
        """Its IPv4 address."""

    def popen(self, argv: Sequence[str]) -> subprocess.Popen[str]:
        """Start a program there, with pipes on stdin and stdout; it dies with this process."""


class Pair(AbstractContextManager["Pair"], Protocol):
    """Client and server; entering makes them, leaving takes away what was made."""

    client: Host
    server: Host
    name: str
    """As it is called in results: `netns`, `vagrant`, ..."""

    def offloads(self) -> dict[str, bool]:
        """Offloads of the pair's interfaces that change what is measured."""

    def driver(self) -> str:
        """The network driver of the server's interface."""
