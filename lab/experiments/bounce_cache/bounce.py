# SPDX-License-Identifier: Apache-2.0
"""Bounce: a request is sent back as it came, by a server in userspace and by XDP."""

from __future__ import annotations

from typing import Annotated

from carom.lab.cells import WAITS
from carom.lab.clients.requests import Plan
from carom.lab.experiment import Mode, Waits
from carom.lab.experiment import Settings as Common
from carom.lab.experiments.bounce_cache.shown import BounceCache
from carom.lab.record import Cell
from carom.lab.trial import Counter, Trial
from carom.settings import Option


class Settings(Common, frozen=True, kw_only=True):
    """The settings of bounce; the defaults are the published ones."""

    waits: Waits = WAITS
    seconds: Annotated[
        tuple[float, ...],
        Option("How long repetitions measure.", low=1e-3, high=86_400, order="once"),
    ] = (15.0, 30.0, 45.0, 60.0)
    size: Annotated[int, Option("Bytes of a request.", low=1, high=256)] = 7
    mode: Mode = "auto"


class Bounce(BounceCache[Settings]):
    """An echo in userspace against a bounce by XDP."""

    name = "bounce"
    description = "RTT of a userspace echo against XDP bounce (Sickler 2022)"

    full = Settings()
    short = Settings(repetitions=5, seconds=(0.5,))

    def trials(self, settings: Settings) -> list[Trial]:
        """A trial for each duration, wait and series."""
        plan = Plan(size=(settings.size, settings.size), keys=1, seed=settings.seed)
        servers: dict[str, tuple[list[str], Counter]] = {
            "userspace": (["--hook", "none"], "none"),
            "xdp": (["--fast", "bounce", "--mode", settings.mode], "bounce"),
        }
        return [
            Trial(
                cell=Cell(series=series, wait=wait, size=settings.size, seconds=seconds),
                server=server,
                plan=plan,
                seconds=seconds,
                counter=counter,
                all_hit=True,
            )
            for seconds in settings.seconds
            for wait in settings.waits
            for series, (server, counter) in servers.items()
        ]


EXPERIMENT = Bounce()
