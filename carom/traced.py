# SPDX-License-Identifier: Apache-2.0
"""Samples of packets that `carom trace` gets: what each says, in words and as JSON."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from carom.daemon.key_text import key_text
from carom.daemon.remedies import REMEDIES, Remedy
from carom.frames import datagram, summary
from carom.kernel.abi import SAMPLE, Hook, Verdict
from carom.protocols import SPECS


class Service(NamedTuple):
    """The service that a packet is for."""

    port: int
    protocol: str


class Traced(NamedTuple):
    """A packet, and what became of it.

    `nanoseconds` are since 1970. `frame` is what is kept of the packet as it came, `reply` of the
    frame that was sent; `length` and `reply_length` are how many bytes they had. `key` is empty
    where none was read.
    """

    nanoseconds: int
    interface: str
    hook: Hook
    verdict: Verdict
    service: Service | None
    key: bytes
    frame: bytes
    length: int
    reply: bytes
    reply_length: int

    @property
    def remedy(self) -> Remedy:
        """What the verdict says, and what would change it."""
        return REMEDIES[self.verdict]

    @property
    def name(self) -> str:
        """The verdict in words."""
        return self.verdict.name.lower().replace("_", " ")

    def line(self) -> str:
        """All of it in a line, with the time of day here."""
        seconds, rest = divmod(self.nanoseconds, 10**9)
        clock = f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{rest // 1000:06}"
        return f"{clock} {self.interface} {self.hook.name.lower()} {self.about()}"

    def about(self) -> str:
        """Who asks whom for what, and what became of that."""
        asked = f", {self.service.protocol}" if self.service else ""
        key = f" {key_text(self.key)}" if self.key else ""
        reply = f", {self.reply_length} bytes" if self.reply_length else ""
        return f"{summary(self.frame)}{asked}{key}: {self.name}: {self.remedy.what}{reply}"

    def shown(self) -> dict[str, Any]:
        """The same as a line of JSON has it."""
        return {
            "time_seconds": self.nanoseconds / 1e9,
            "interface": self.interface,
            "hook": self.hook.name.lower(),
            "verdict": self.verdict.name.lower(),
            "what": self.remedy.what,
            "change": self.remedy.change,
            "port": self.service.port if self.service else None,
            "protocol": self.service.protocol if self.service else None,
            "key": self.key.hex(),
            "frame": self.frame.hex(),
            "frame_bytes": self.length,
            "reply": self.reply.hex(),
            "reply_bytes": self.reply_length,
        }


class Reader:
    """Reads samples, as the programs make them (include/abi.h, struct sample)."""

    def __init__(self, interfaces: Mapping[int, str], services: Sequence[Service]):
        """`interfaces` are names by number; `services` stand in the order of their ids."""
        self._interfaces, self._services = interfaces, services

    def read(self, sample: bytes) -> Traced:
        """What a sample says. Its time is of this host's CLOCK_MONOTONIC."""
        at, ifindex, tag, length, sent_length, came, sent, hook, number, place, *of_key = (
            SAMPLE.unpack_from(sample)
        )
        _, key_length, key = of_key
        service = self._services[place - 1] if place else None
        data = sample[SAMPLE.size :]
        frame, reply = data[:came], data[came : came + sent]
        key = key[:key_length]
        if service and not key and SPECS[service.protocol].whole_key:
            key = _payload(frame)
        since_1970 = time.time_ns() - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        return Traced(
            nanoseconds=at + since_1970,
            interface=self._interfaces.get(ifindex, f"interface {ifindex}"),
            hook=Hook(hook),
            verdict=Verdict(number),
            service=service,
            key=key,
            frame=_tagged(frame, tag),
            length=length + (4 if tag else 0),
            reply=_tagged(reply, tag),
            reply_length=sent_length + (4 if tag and sent_length else 0),
        )


def _payload(frame: bytes) -> bytes:
    """A request's payload, where it is the key."""
    found = datagram(frame)
    return found.payload if found else b""


def _tagged(frame: bytes, tag: int) -> bytes:
    """A frame with the VLAN tag in it that the kernel keeps beside it at TC."""
    return frame[:12] + tag.to_bytes(4) + frame[12:] if tag and frame else frame
