# SPDX-License-Identifier: Apache-2.0
"""What an experiment needs of the two hosts that it runs on, whatever they are."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self


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


class Pair(Protocol):
    """Client and server; a context manager that takes away what was made."""

    @property
    def name(self) -> str:
        """As it is called in results: `netns`, `vagrant`, ..."""

    @property
    def client(self) -> Host:
        """The host that asks."""

    @property
    def server(self) -> Host:
        """The host that answers."""

    def offloads(self) -> dict[str, bool]:
        """Offloads of the server's interface that change what is measured."""

    def driver(self) -> str:
        """The network driver of the server's interface."""

    def __enter__(self) -> Self:
        """Ready to run programs on."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Gone."""
