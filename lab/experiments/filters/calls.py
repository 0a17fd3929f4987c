# SPDX-License-Identifier: Apache-2.0
"""What a host does for the filter experiments: send packets, and count those that arrive."""

from __future__ import annotations

from typing import Any

import msgspec

from carom.daemon import control
from carom.kernel.resource import Resource
from carom.lab.clients.behaviours import Choice as Behaviour
from carom.lab.experiments.filters import client as filter_client
from carom.lab.experiments.filters.model import Filled
from carom.lab.hosts import udp_counts

RESET, FILL, ARRIVALS = (f"filters:{name}" for name in ("reset", "fill", "arrivals"))


class Calls(Resource):
    """Its public methods are the calls `filters:NAME`."""

    def __init__(self, host: object):
        pass

    def reset(self, address: str, port: int) -> None:
        """Set the key in which `fill` counts to 0; the key-value server is idle afterwards."""
        filter_client.reset(address, port)

    def fill(
        self,
        address: str,
        port: int,
        behaviour: dict[str, Any],
        rate: float,
        pid: int | None,
        cpu: int,
    ) -> Filled:
        """Send a behaviour's packets to a key-value server, and wait until it has done them.

        `pid` is the server's if it runs on this machine, else None.
        """
        choice = msgspec.convert(behaviour, Behaviour)
        return filter_client.fill(address, port, choice, rate, pid, cpu)

    def arrivals(self, pid: int, port: int) -> dict[str, int]:
        """The counts of a server's filter, if it has one, and of this host's UDP sockets."""
        shown = control.call("status", pid)["filter"]
        tallies = shown["tallies"] if shown else {}
        return {**{name: sum(cpus) for name, cpus in tallies.items()}, **udp_counts.read(port)}

    def close(self) -> None:
        """Nothing to close."""
