# SPDX-License-Identifier: Apache-2.0
"""The one line on stdout once packets are answered."""

from __future__ import annotations

import msgspec

from carom.xdp.link import Mode


class ReadyInterface(msgspec.Struct, kw_only=True):
    """An interface that the fast path is on; `mode` is XDP's."""

    name: str
    hook: str
    mode: Mode | None

    def __str__(self) -> str:
        return f"{self.hook}{'/' + self.mode if self.mode else ''} on {self.name}"


class ReadyService(msgspec.Struct, kw_only=True):
    """A service that is answered."""

    address: str
    port: int
    protocol: str
    fast: str

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.port} {self.protocol} {self.fast}"


class ReadyFilter(msgspec.Struct, kw_only=True):
    """A filter before the services, and where it is."""

    name: str
    place: str

    def __str__(self) -> str:
        return f"filter {self.name} at {self.place} "


class Ready(msgspec.Struct, kw_only=True):
    """The one line on stdout once packets are answered."""

    services: list[ReadyService]
    interfaces: list[ReadyInterface]
    filter: ReadyFilter | None = None
    notes: list[str]
    pid: int

    def __str__(self) -> str:
        where = ", ".join(map(str, self.interfaces)) or "userspace only"
        return (
            f"ready {', '.join(map(str, self.services))} {self.filter or ''}{where} pid {self.pid}"
        )
