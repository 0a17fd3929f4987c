# SPDX-License-Identifier: Apache-2.0
"""What experiments need of a pair, looked for before the first of them measures anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from carom.errors import ExperimentError
from carom.lab.course import CPUs
from carom.lab.hosts.agent import Agent
from carom.vm.pair import Make

_PACKAGES = {"cc": "gcc libc6-dev"}
"""Debian's packages that are not named as the program is which experiments need."""


class Needs(NamedTuple):
    """Programs on the server's host, and whether each host needs a CPU of its own (`apart`)."""

    programs: tuple[str, ...] = ()
    apart: bool = False


def check(needs: Mapping[str, Needs], make_pair: Make) -> None:
    """Look at a pair for what experiments, by name, need. Raises ExperimentError for what lacks."""
    if not any(one.programs or one.apart for one in needs.values()):
        return
    programs = sorted({program for one in needs.values() for program in one.programs})
    with make_pair() as pair, Agent(pair.client) as client, Agent(pair.server) as server:
        for program in server.call("lacking", programs=programs):
            names = [name for name, one in needs.items() if program in one.programs]
            raise ExperimentError(
                f"{program} is not installed on the server's host, and {' and '.join(names)} "
                f"{'needs' if len(names) == 1 else 'need'} it",
                hint=f"apt install {_PACKAGES.get(program, program)}",
            )
        if any(one.apart for one in needs.values()):
            CPUs.of(pair, client, server).apart()
