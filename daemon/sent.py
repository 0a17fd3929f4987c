# SPDX-License-Identifier: Apache-2.0
"""Replies that the driver dropped after the verdict, as far as drivers tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from carom.daemon.fastpath import Attachment
from carom.kernel import ethtool
from carom.kernel.links import Interface


class Counts(NamedTuple):
    """Packets that native XDP was given, replies that it sent, and those that were lost then."""

    received: int = 0
    sent: int = 0
    lost: int = 0


class _Names(NamedTuple):
    """Patterns of a driver's counters: packets, replies, and those among these that were lost."""

    received: str
    replies: str
    lost: str


_DRIVERS = {
    "veth": _Names(
        r"rx_queue_\d+_xdp_packets", r"rx_queue_\d+_xdp_tx(_errors)?", r"rx_queue_\d+_xdp_tx_errors"
    ),
    # "_queue_" is in its names before Linux 6.10. What is redirected to it is counted as lost too.
    "virtio_net": _Names(
        r"rx(_queue_)?\d+_xdp_packets", r"rx(_queue_)?\d+_xdp_tx", r"tx(_queue_)?\d+_xdp_tx_drops"
    ),
}
"""Drivers whose counters tell what became of XDP_TX: their get_ethtool_stats in the kernel."""


def counts(driver: str, counters: Mapping[str, int]) -> Counts | None:
    """What a driver's counters tell; None if its are not known here."""
    names = _DRIVERS.get(driver)
    if not names:
        return None

    def total(pattern: str) -> int:
        return sum(value for name, value in counters.items() if re.fullmatch(pattern, name))

    lost = total(names.lost)
    return Counts(total(names.received), total(names.replies) - lost, lost)


class Sent:
    """The same of each interface, since it was attached to."""

    def __init__(self) -> None:
        self._before: dict[int, Counts] = {}

    def begin(self, interface: Interface) -> None:
        """It is attached to next."""
        self._before[interface.ifindex] = self._now(interface) or Counts()

    @staticmethod
    def _now(interface: Interface) -> Counts | None:
        try:
            return counts(interface.driver, ethtool.counters(interface.name))
        except OSError:  # it is gone
            return None

    def status(self, attachment: Attachment) -> dict[str, Any]:
        """An interface in `carom status`; what is not known is None, and `unknown` says why."""
        interface = attachment.interface
        why = _unknown(attachment)
        now = None if why else self._now(interface)
        before = self._before.get(interface.ifindex, Counts())
        told = Counts(*(new - old for new, old in zip(now, before, strict=True))) if now else None
        return {
            "name": interface.name,
            "driver": interface.driver,
            "hook": attachment.hook,
            "mode": attachment.mode,
            **(told or Counts(*(None,) * 3))._asdict(),  # type: ignore[arg-type]
            "unknown": "" if told else why or "its counters cannot be read",
        }


def _unknown(attachment: Attachment) -> str:
    """Why nothing is known of an interface's replies; empty if something is."""
    interface = attachment.interface
    if not interface.there:
        return "it is gone"
    if attachment.mode != "native":
        at = "generic XDP" if attachment.mode else "TC"
        return f"{at}: replies are counted with all that it sends"
    if interface.driver not in _DRIVERS:
        return f"driver {interface.driver}: what its counters say of replies is not known"
    return ""
