# SPDX-License-Identifier: Apache-2.0
"""What a service can be told: one record, checked once, for the API and the command line alike."""

from __future__ import annotations

import ipaddress
import re
from typing import Literal

import msgspec

from carom.errors import UsageError
from carom.xdp.fastpath import Policy
from carom.xdp.link import ModeOption

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
CAPACITY_MAX = 10_000_000
TTL_MAX = 10 * 365 * 86_400.0


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a service runs.

    `ttl` and `work` are in seconds. `work` is CPU time that every miss costs, for experiments;
    `userspace_cache` the entries of a cache inside the server, the baseline that experiments
    compare with (0: none). `cpu` pins the server.
    """

    port: int
    bind: str = "0.0.0.0"
    protocol: Literal["raw"] = "raw"
    hook: Literal["xdp", "none"] = "xdp"
    mode: ModeOption = "auto"
    fast: Literal["cache", "bounce", "off"] = "cache"
    policy: Policy = "lru"
    capacity: int = 10_000
    ttl: float = 60.0
    work: float = 0.0
    userspace_cache: int = 0
    wait: Literal["block", "spin"] = "block"
    cpu: int | None = None

    def checked(self) -> Options:
        """The same options. Raises UsageError that names the first wrong one."""
        for name, low, high in (
            ("port", 1, 65_535),
            ("capacity", 1, CAPACITY_MAX),
            ("userspace_cache", 0, CAPACITY_MAX),
            ("ttl", 0.001, TTL_MAX),
            ("work", 0, 60),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise UsageError(
                    f"{name.replace('_', '-')} {value} is out of range", hint=f"{low} to {high}"
                )
        try:
            address = ipaddress.IPv4Address(self.bind)
        except ValueError as error:
            raise UsageError(
                f"bind {self.bind!r} is not an IPv4 address", hint="for example 192.0.2.1"
            ) from error
        if address.is_multicast:
            raise UsageError(f"bind {self.bind} is a multicast address", hint="give a unicast one")
        return self


def options_of(values: dict[str, object]) -> Options:
    """Options from untyped values. Raises UsageError for a wrong name, type or value."""
    unknown = values.keys() - set(Options.__struct_fields__)
    if unknown:
        raise UsageError(
            f"unknown option {sorted(unknown)[0]!r}",
            hint="there are " + ", ".join(Options.__struct_fields__),
        )
    try:
        return msgspec.convert(values, Options).checked()
    except msgspec.ValidationError as error:
        raise UsageError(f"wrong option: {error}") from error


def seconds(text: str) -> float:
    """A duration such as `2ms`, `500us`, `1.5s`, `10m`, or plain seconds. Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|)", text.strip())
    if not match:
        raise UsageError(f"{text!r} is not a duration", hint="for example 2ms, 500us, 1.5s or 10m")
    return float(match[1]) * _UNITS[match[2]]
