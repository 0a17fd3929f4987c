# SPDX-License-Identifier: Apache-2.0
"""What a host does for the experiments with four ports."""

from __future__ import annotations

from typing import Any

import msgspec

from carom.kernel.resource import Resource
from carom.lab.clients.ping import Ping
from carom.lab.experiments.ports import client
from carom.lab.experiments.ports.ports import Name, Work
from carom.lab.experiments.ports.server import Serving

ASK, SERVE, COUNTS, LEAVE = (f"ports:{name}" for name in ("ask", "serve", "counts", "leave"))


class Calls(Resource):
    """Its public methods are the calls `ports:NAME`."""

    def __init__(self, host: object):
        self._serving: Serving | None = None

    def ask(self, experiment: Name, address: str, which: int, port: int, **how: Any) -> Ping:
        """Ask at one of the four ports, and check every reply."""
        return client.ask(experiment, address, which, port, **how)

    def serve(
        self, series: str, interface: str, address: str, cpu: int, work: dict[str, Any]
    ) -> dict[str, Any]:
        """Answer at the four ports as a series does, until `leave`."""
        self._serving = Serving(series, interface, address, cpu, msgspec.convert(work, Work))
        return {"pids": self._serving.pids, "mode": self._serving.mode}

    def counts(self) -> dict[str, list[int]]:
        """The requests that the series has counted so far, by port."""
        assert self._serving
        return self._serving.counts()

    def leave(self) -> None:
        """Stop answering."""
        if self._serving:
            self._serving.close()
            self._serving = None

    def close(self) -> None:
        """Stop answering, if it still does."""
        self.leave()
