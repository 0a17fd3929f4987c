# SPDX-License-Identifier: Apache-2.0
"""What an experiment needs from the two hosts that it runs on, of whatever kind they are."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from carom.errors import ExperimentError

_OFFLOADS = {
    "tx-checksumming": "tx_checksum",
    "generic-receive-offload": "gro",
    "generic-segmentation-offload": "gso",
}


class Host(Protocol):
    """One end of a pair: an interface that faces the other end, and a way to run programs."""

    @property
    def interface(self) -> str:
        """The interface that faces the other host."""

    @property
    def address(self) -> str:
        """Its IPv4 address."""

    @property
    def python(self) -> str:
        """The Python there that has carom."""

    def driver(self) -> str:
        """The network driver of the interface."""

    def offloads(self) -> dict[str, bool]:
        """Offloads of the interface that change what is measured."""

    @property
    def silence(self) -> float:
        """Seconds without input after which a program that `listens` is ended; 0: never."""

    def popen(self, argv: Sequence[str], *, listens: bool = False) -> subprocess.Popen[str]:
        """Start a program there, with pipes on stdin and stdout; it dies with this process.

        A program that `listens` has to get something on stdin all the time, if only empty lines.
        """

    def ended(self, status: int) -> ExperimentError:
        """The error for a program there that ended before it was told to."""


class Pair(Protocol):
    """Client and server; a context manager that removes what was made."""

    @property
    def name(self) -> str:
        """Its name in results: `netns`, `vagrant`, ..."""

    @property
    def one_machine(self) -> bool:
        """Whether the hosts share their CPUs."""

    @property
    def client(self) -> Host:
        """The host that sends requests."""

    @property
    def server(self) -> Host:
        """The host that answers them."""

    def __enter__(self) -> Self:
        """The pair, ready to run programs on."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove what was made."""


class Make(Protocol):
    """Makes a pair."""

    def __call__(self, *, bare: bool = False) -> Pair:
        """A new pair; with `bare` there is no XDP program on the client's end."""


def offloads(features: str) -> dict[str, bool]:
    """The offloads that change what is measured, by name, from the output of `ethtool -k`."""
    states = dict(re.findall(r"^([\w-]+): (on|off)", features, re.MULTILINE))
    return {name: states.get(feature) == "on" for feature, name in _OFFLOADS.items()}
