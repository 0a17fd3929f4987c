# SPDX-License-Identifier: Apache-2.0
"""Beside: what an attached carom costs a service and a TCP stream on the same interface."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from carom.lab.experiments.contests import calls
from carom.lab.experiments.contests.contest import Contest, Settings
from carom.lab.experiments.contests.judging import Bar, Subject
from carom.lab.experiments.contests.ways import HITS, SPINNING, WAYS, ask, each_way, serving
from carom.lab.testbed import PORT, Bed, attached, facing
from carom.xdp.link import Mode

BULK = "TCP, Gbit/s"
_BULK_PORT = 51143


@contextlib.contextmanager
def _around(bed: Bed[Any], arguments: tuple[str, ...], bare: Mode | None) -> Iterator[None]:
    """Attach a carom that nobody asks, or a bare program that passes everything, or neither."""
    with contextlib.ExitStack() as stack:
        if bare:
            interface = bed.pair.server.interface
            stack.enter_context(attached(bed.server, interface, "pass", bare))
        elif arguments:
            stack.enter_context(serving(bed, "-p", str(PORT), *arguments))
        stack.enter_context(facing(bed.pair, bed.client, arguments))
        yield


def _beside(bed: Bed[Any], *arguments: str, bare: Mode | None = None) -> dict[str, float]:
    """Measure a plain server and a TCP stream beside what is attached."""
    beside = PORT + 1
    address = bed.pair.server.address
    plain = ("-p", str(beside), "--hook", "none", "--wait", "spin")
    with serving(bed, *plain), _around(bed, arguments, bare):
        trips = ask(bed, HITS, "echo", beside, spin=True)
        figures = {SPINNING: trips.p50 / 1e3}
    with _around(bed, arguments, bare):
        seconds = bed.settings.seconds / 2
        sent: Any = bed.client.call(calls.STREAM, address=address, port=_BULK_PORT, seconds=seconds)
    return {**figures, BULK: sent * 8 / 1e9}


def _beside_bare(bed: Bed[Any], mode: Mode) -> dict[str, float]:
    return _beside(bed, *WAYS[mode], bare=mode)


class Beside(Contest):
    """A plain server and a stream, with carom at each hook, with a bare program, and alone."""

    name = "beside"
    full = Settings()
    short = Settings(repetitions=3, seconds=1.0)
    description = "what an attached carom costs a service and a TCP stream on the same interface"
    subjects = (
        Subject("no carom", _beside),
        Subject("bare native", functools.partial(_beside_bare, mode="native")),
        Subject("bare generic", functools.partial(_beside_bare, mode="generic")),
        *each_way("", _beside),
    )
    bars = (
        *(
            bar
            for name in WAYS
            for bar in (
                Bar(
                    f"{name}: p50 of UDP, with / without",
                    SPINNING,
                    name,
                    ("no carom",),
                    at_most=1.05,
                ),
                Bar(f"{name}: TCP, with / without", BULK, name, ("no carom",)),
            )
        ),
        *(
            bar
            for name in ("native", "generic")
            for bar in (
                Bar(
                    f"{name}: p50 of UDP, with / bare",
                    SPINNING,
                    name,
                    (f"bare {name}",),
                    at_most=1.05,
                ),
                Bar(f"{name}: TCP, with / bare", BULK, name, (f"bare {name}",)),
            )
        ),
    )

    @contextlib.contextmanager
    def prepared(self, bed: Bed[Any]) -> Iterator[None]:
        """The stream's receiver listens."""
        bed.server.call(calls.SINK, address=bed.pair.server.address, port=_BULK_PORT)
        yield


EXPERIMENT = Beside()
