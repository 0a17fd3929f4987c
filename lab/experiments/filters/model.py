# SPDX-License-Identifier: Apache-2.0
"""What the filter experiments measure: the record of one measurement."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from carom.errors import ExperimentError

Series = str
"""One of `series.SERIES`."""


class FilterCell(msgspec.Struct, kw_only=True, frozen=True):
    """One point of the grid; `rate` is packets a second, 0 as fast as it goes."""

    series: Series
    percent: float
    packets: int
    rate: float = 0.0
    knee: bool = False
    """Whether it is a step of the search for the highest rate without loss."""


class Filled(msgspec.Struct, kw_only=True, frozen=True):
    """One measurement as the client's host sees it."""

    sent_puts: int
    sent_invalid: int
    sent_others: int
    """GETs, those that were asked again included, and STOPs."""
    replies: int
    value: int
    """What GET replied in the end: the PUTs that were done, each of 1."""
    send_seconds: float
    """From the first packet to the last but the GET."""
    wall_seconds: float
    """From the first packet to the first reply to a GET after it: all is done."""
    server_cpu_seconds: float
    machine_cpu_seconds: float
    """All CPUs' of both hosts, the client's sending and other programs included."""


class FilterRun(Filled, kw_only=True, frozen=True):
    """The same, of one cell, with what became of each packet.

    What was sent is what the client's kernel took.
    """

    MEASURED: ClassVar[str] = "packets"

    cell: FilterCell
    index: int
    rejected_invalid: int
    rejected_valid: int
    accepted_invalid: int
    accepted_valid: int
    lost_before: int
    """Packets that did not come to the filter; without one, to the socket."""
    lost_between: int
    """Packets that the filter accepted and that did not come to the socket."""
    lost_at_socket: int
    """Packets for which the socket's buffer had no room."""
    received: int
    """Packets that the server took from its socket."""

    @property
    def sent(self) -> int:
        """All packets."""
        return self.sent_puts + self.sent_invalid + self.sent_others

    @property
    def lost(self) -> int:
        """PUTs that were sent and not done."""
        return self.sent_puts - self.value

    @property
    def loss(self) -> float:
        """Their share, 0 where no PUT was sent."""
        return self.lost / self.sent_puts if self.sent_puts else 0.0

    @property
    def done_rate(self) -> float:
        """PUTs done a second."""
        return self.value / self.wall_seconds

    def per_packet(self, seconds: float) -> float:
        """Seconds over the grid's packets: valid and invalid ones, whether lost or not."""
        return seconds / self.cell.packets

    def checked(self) -> FilterRun:
        """The same run. Raises ExperimentError where what was counted does not add up."""
        rejected = self.rejected_invalid + self.rejected_valid
        places = (self.lost_before, self.lost_between, self.lost_at_socket)
        whole = self.sent == rejected + sum(places) + self.received
        # The server took PUTs that it did, GETs that it replied to, and what changes nothing.
        rest = self.received - self.value - self.replies
        most = self.sent_others - self.replies
        most += self.sent_invalid if self.cell.series == "userspace" else self.accepted_invalid
        if not whole or min(*places, self.lost) < 0 or not 0 <= rest <= most:
            raise ExperimentError(
                f"{self.cell.series}, {self.cell.percent:g} % of {self.cell.packets}: the packets "
                "that were counted do not add up",
                hint=f"{msgspec.to_builtins(self)}; does anything else send to the server?",
            )
        return self
