# SPDX-License-Identifier: Apache-2.0
"""The record of one measurement of the filter experiments."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from carom.errors import ExperimentError

Series = str
"""One of `series.SERIES`."""


class FilterCell(msgspec.Struct, kw_only=True, frozen=True):
    """One point of the grid; `rate` is packets a second, 0 for as fast as possible."""

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
    """GETs, including repeated ones, and STOPs."""
    replies: int
    value: int
    """The last GET's reply: the number of PUTs that were done, each of 1."""
    send_seconds: float
    """From the first packet to the last before the GET."""
    wall_seconds: float
    """From the first packet to the first reply to a GET: then everything is done."""
    server_cpu_seconds: float
    machine_cpu_seconds: float
    """Of all CPUs of both hosts, including the client's sending and other programs."""


class FilterRun(Filled, kw_only=True, frozen=True):
    """One measurement of a cell, with every packet accounted for.

    A packet counts as sent when the client's kernel took it.
    """

    MEASURED: ClassVar[str] = "packets"

    cell: FilterCell
    index: int
    rejected_invalid: int
    rejected_valid: int
    accepted_invalid: int
    accepted_valid: int
    lost_before: int
    """Packets that did not reach the filter; without a filter, the socket."""
    lost_between: int
    """Packets that the filter accepted and that did not reach the socket."""
    lost_at_socket: int
    """Packets for which the socket's buffer had no room."""
    received: int
    """Packets that the server took from its socket."""

    @property
    def sent(self) -> int:
        """All packets that were sent."""
        return self.sent_puts + self.sent_invalid + self.sent_others

    @property
    def lost(self) -> int:
        """PUTs that were sent but not done."""
        return self.sent_puts - self.value

    @property
    def loss(self) -> float:
        """The share of PUTs that were lost, 0 to 1; 0 where no PUT was sent."""
        return self.lost / self.sent_puts if self.sent_puts else 0.0

    @property
    def done_rate(self) -> float:
        """PUTs done a second."""
        return self.value / self.wall_seconds

    def per_packet(self, seconds: float) -> float:
        """Seconds divided by the cell's packets: valid and invalid, lost or not."""
        return seconds / self.cell.packets

    def checked(self) -> FilterRun:
        """The same measurement. Raises ExperimentError if its counts do not add up."""
        rejected = self.rejected_invalid + self.rejected_valid
        places = (self.lost_before, self.lost_between, self.lost_at_socket)
        whole = self.sent == rejected + sum(places) + self.received
        # The server took PUTs that it did, GETs that it replied to, and packets without effect.
        rest = self.received - self.value - self.replies
        most = self.sent_others - self.replies
        most += self.sent_invalid if self.cell.series == "userspace" else self.accepted_invalid
        if not whole or min(*places, self.lost) < 0 or not 0 <= rest <= most:
            raise ExperimentError(
                f"{self.cell.series}, {self.cell.percent:g} % of {self.cell.packets}: the counts "
                "of packets do not add up",
                hint=f"{msgspec.to_builtins(self)}; does anything else send to the server?",
            )
        return self
