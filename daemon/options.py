# SPDX-License-Identifier: Apache-2.0
"""What a service can be told: one record, checked once, for the API and the command line alike."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from carom import protocols
from carom.converted import converted
from carom.daemon.fastpath import ENTRY_BYTES, Admit, HookOption, Policy
from carom.errors import UsageError
from carom.filters.filter import Place
from carom.filters.names import Name
from carom.kernel.abi import REPLY_MAX, REPLY_SAFE
from carom.protocols import SPECS
from carom.protocols.spec import Filled
from carom.xdp.link import ModeOption

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
CAPACITY_MAX = 10_000_000
RATE_MAX = 2**40
PREFIX_RATE, TOTAL_RATE = 4 * 2**20, 16 * 2**20
ECHOES = 1000
RESPONSES_MAX = 1_000_000
TTL_MAX = 10 * 365 * 86_400.0


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a service runs.

    `admit` says what a full cache takes: every reply, or those to keys that were missed before
    (`auto`: the latter with LRU). `capacity` counts the entries of each length class; `memory`, in
    bytes, stands in its place. `ttl` and `work` are in seconds. `work` is CPU time that every miss
    costs, for experiments; `userspace_cache` the entries of a cache inside the server, the baseline
    that experiments compare with (0: none). `cpu` pins the server. `amplify` bounds a reply of the
    cache, in payloads of its request (0: no bound); `allow` names the prefixes whose requests it
    answers (none: all), from the MAC that a reply would be sent to; `prefix_rate` and `total_rate`
    are bytes of its replies a second, to one /24 (IPv6 /64) and to all (0: no bound). `max_reply`
    bounds its replies in bytes; longer ones than 1,232 it gives only where the route's MTU is known
    to take them, which takes an interface that forwards. Where a reply can say "ask over TCP",
    `responses_per_second` are those to one /24 (IPv6 /56; 0: any), and every `slip`th beyond is
    truncated (0: none). These bind the kernel alone: what it does not answer goes up to the
    server. With `bypass_firewall` it starts also where the host's firewall drops by default
    what the cache would answer. `cookie_secret_file` has the secrets of a server's cookies. Of
    `echoes` replies to a client that are themselves requests known here, so that an echo of
    them would go in a loop, the kernel and a server of ours leave one out (0: none). `filter`
    stands before a key-value service: `filter_at` its socket, or TC or XDP before them; `auto`
    is before the cache.
    """

    port: int
    bind: str = "0.0.0.0"
    protocol: str = protocols.default(Filled.DAEMON).name
    hook: HookOption = "xdp"
    mode: ModeOption = "auto"
    fast: Literal["cache", "bounce", "off"] = "cache"
    policy: Policy = "lru"
    admit: Literal["auto"] | Admit = "auto"
    capacity: int = 10_000
    memory: int = 0
    ttl: float = 60.0
    work: float = 0.0
    userspace_cache: int = 0
    wait: Literal["block", "spin"] = "block"
    cpu: int | None = None
    amplify: int = 16
    allow: tuple[str, ...] = ()
    prefix_rate: int = PREFIX_RATE
    total_rate: int = TOTAL_RATE
    max_reply: int = REPLY_SAFE
    responses_per_second: int = 0
    slip: int = 2
    echoes: int = ECHOES
    bypass_firewall: bool = False
    cookie_secret_file: str = ""
    filter: Name | None = None
    filter_at: Literal["auto"] | Place = "auto"

    def checked(self) -> Options:
        """The same options. Raises UsageError that names the first wrong one."""
        for name, low, high in (
            ("port", 1, 65_535),
            ("capacity", 1, CAPACITY_MAX),
            ("memory", 0, CAPACITY_MAX * ENTRY_BYTES),
            ("userspace_cache", 0, CAPACITY_MAX),
            ("ttl", 0.001, TTL_MAX),
            ("work", 0, 60),
            ("amplify", 0, REPLY_MAX),
            ("prefix_rate", 0, RATE_MAX),
            ("total_rate", 0, RATE_MAX),
            ("max_reply", 1, REPLY_MAX),
            ("responses_per_second", 0, RESPONSES_MAX),
            ("slip", 0, RESPONSES_MAX),
            ("echoes", 0, RESPONSES_MAX),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise UsageError(
                    f"{name.replace('_', '-')} {value} is out of range", hint=f"{low} to {high}"
                )
        try:
            address = ipaddress.ip_address(self.bind)
        except ValueError as error:
            raise UsageError(
                f"bind {self.bind!r} is not an IP address",
                hint="for example 192.0.2.1 or 2001:db8::1; 0.0.0.0 for all of IPv4, :: for all",
            ) from error
        if address.is_multicast:
            raise UsageError(f"bind {self.bind} is a multicast address", hint="give a unicast one")
        for prefix in self.allow:
            try:
                ipaddress.ip_network(prefix)
            except ValueError as error:
                raise UsageError(
                    f"allow {prefix!r} is not a prefix: {error}",
                    hint="for example 192.0.2.0/24 or 2001:db8::/32",
                ) from error
        spec = protocols.spec(self.protocol)
        if self.responses_per_second and not spec.truncates:
            able = protocols.words(one for one in SPECS.values() if one.truncates)
            raise UsageError(
                f"responses-per-second is for protocol {able}, not {self.protocol}",
                hint="--prefix-rate bounds the bytes of any protocol",
            )
        if self.filter and not spec.filtered:
            able = protocols.words(one for one in SPECS.values() if one.filtered)
            raise UsageError(
                f"a filter reads the commands of protocol {able}, not of {self.protocol}",
                hint=f"--app {able} is a server that speaks it",
            )
        if (self.policy, self.admit) == ("fcfs", "second"):
            raise UsageError(
                "admit second has no meaning with policy fcfs: a full cache takes nothing anyway",
                hint="--policy lru, or leave --admit out",
            )
        if 0 < self.memory < ENTRY_BYTES:
            raise UsageError(
                f"memory {self.memory} holds no entry", hint=f"one takes {ENTRY_BYTES} bytes"
            )
        return self

    def filter_place(self) -> Place | None:
        """Where its filter is: by default where the fast path is, else at its socket."""
        if self.filter is None:
            return None
        if self.filter_at != "auto":
            return self.filter_at
        return "socket" if self.hook == "none" or self.fast == "off" else self.hook

    def admission(self) -> Admit:
        """How the cache admits."""
        if self.admit == "auto":
            return "second" if self.policy == "lru" else "always"
        return self.admit

    def entries(self) -> int:
        """How many entries each length class has room for."""
        return self.memory // ENTRY_BYTES if self.memory else self.capacity


SHARED = (
    "hook",
    "mode",
    "policy",
    "admit",
    "capacity",
    "memory",
    "wait",
    "cpu",
    "allow",
    "bypass_firewall",
    "filter",
    "filter_at",
)
"""Options that services of one fast path have in common."""


def with_options(options: Options, changes: Mapping[str, object]) -> Options:
    """The options with some of them changed. Raises UsageError."""
    return options_of({**msgspec.structs.asdict(options), **changes})


def options_of(values: dict[str, object]) -> Options:
    """Options from untyped values. Raises UsageError for a wrong name, type or value."""
    unknown = values.keys() - set(Options.__struct_fields__)
    if unknown:
        raise UsageError(
            f"unknown option {sorted(unknown)[0]!r}",
            hint="there are " + ", ".join(Options.__struct_fields__),
        )
    if isinstance(values.get("protocol"), str):
        values = {**values, "protocol": str(values["protocol"]).lower()}
    return converted(values, Options).checked()


def seconds(text: str) -> float:
    """A duration such as `2ms`, `500us`, `1.5s`, `10m`, or plain seconds. Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|)", text.strip())
    if not match:
        raise UsageError(f"{text!r} is not a duration", hint="for example 2ms, 500us, 1.5s or 10m")
    return float(match[1]) * _UNITS[match[2]]


def size(text: str) -> int:
    """Bytes, from `64M`, `1.5G`, `512K` or plain bytes; units are powers of 1024. UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)i?B?", text.strip(), re.IGNORECASE)
    if not match:
        raise UsageError(f"{text!r} is not a size", hint="for example 64M or 1.5G")
    return int(float(match[1]) * 1024 ** " KMG".index(match[2].upper() or " "))


def with_units(values: Mapping[str, object]) -> dict[str, object]:
    """The same options with durations and sizes, where they are text, as numbers. UsageError."""
    readers = {
        "ttl": seconds,
        "work": seconds,
        "memory": size,
        "prefix_rate": size,
        "total_rate": size,
    }
    return {
        name: readers[name](value) if name in readers and isinstance(value, str) else value
        for name, value in values.items()
    }
