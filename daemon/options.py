# SPDX-License-Identifier: Apache-2.0
"""A service's options: one record, checked once, for the API and the command line alike."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import msgspec

from carom import protocols
from carom.converted import converted
from carom.daemon.fastpath import HookOption
from carom.daemon.store import ENTRY_BYTES, MEMORY_MIN, Admit, Policy
from carom.errors import UsageError
from carom.filters import own
from carom.filters.names import Place
from carom.kernel import capabilities
from carom.kernel.abi import REPLY_MAX, REPLY_SAFE
from carom.protocols import SPECS
from carom.protocols.spec import Filled
from carom.settings import Option, check, seconds, size
from carom.xdp.link import ModeOption

CAPACITY_MAX = 10_000_000
RATE_MAX = 2**40
PREFIX_RATE, TOTAL_RATE = 4 * 2**20, 16 * 2**20
ECHOES = 1000
RESPONSES_MAX = 1_000_000
HITS_MAX = 10_000_000
SHADOW_MAX = 1_000_000_000
TTL_MAX = 10 * 365 * 86_400.0


_WHERE, _CACHE, _BOUNDS, _SERVER, _LAB = (
    "What is answered, and where",
    "The cache",
    "What it answers at most",
    "The server",
    "For experiments",
)
"""The groups of the command line's help."""

_TRUNCATES, _FILTERED, _COOKIES = (
    protocols.words(spec for spec in SPECS.values() if getattr(spec, able))
    for able in ("truncates", "filtered", "cookies")
)
"""The protocols that have these options."""

_PER_NET = "Bytes of replies a second to one /24 (IPv6 /64); 0: any."


def _bindable(bind: str) -> None:
    try:
        address = ipaddress.ip_address(bind)
    except ValueError as error:
        raise UsageError(
            f"bind {bind!r} is not an IP address",
            hint="for example 192.0.2.1 or 2001:db8::1; 0.0.0.0 for all of IPv4, :: for all",
        ) from error
    if address.is_multicast:
        raise UsageError(f"bind {bind} is a multicast address", hint="give a unicast one")


def _prefix(prefix: str) -> None:
    try:
        ipaddress.ip_network(prefix)
    except ValueError as error:
        raise UsageError(
            f"allow {prefix!r} is not a prefix: {error}",
            hint="for example 192.0.2.0/24 or 2001:db8::/32",
        ) from error


def _enough(memory: int) -> None:
    if 0 < memory < MEMORY_MIN:
        raise UsageError(f"a memory of {memory} bytes is too little", hint=f"at least {MEMORY_MIN}")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a service runs; each field's Option says what it is for, and what it takes.

    Times are in seconds, sizes and rates in bytes. The bounds bind the kernel alone: what it does
    not answer goes up to the server.
    """

    port: Annotated[int, Option("UDP port.", 1, 65_535, "53", group=_WHERE, short="-p")]
    bind: Annotated[
        str,
        Option("Address; 0.0.0.0 is all of IPv4, :: all of both.", group=_WHERE, valid=_bindable),
    ] = "0.0.0.0"
    protocol: Annotated[
        str, Option("The language of requests.", group=_WHERE, valid=protocols.spec)
    ] = protocols.default(Filled.DAEMON).name
    hook: Annotated[
        HookOption,
        Option("Where it is answered; TC serves what XDP has no room for.", group=_WHERE),
    ] = "xdp"
    mode: Annotated[ModeOption, Option("XDP's mode.", group=_WHERE)] = "auto"
    fast: Annotated[
        Literal["cache", "bounce", "off"],
        Option(
            "From the cache, or by sending a request back as it came.", group=_WHERE, only="serve"
        ),
    ] = "cache"
    capacity: Annotated[int, Option("Entries, of any length.", 1, CAPACITY_MAX, group=_CACHE)] = (
        10_000
    )
    memory: Annotated[
        int,
        Option(
            "Instead of a capacity, what the cache takes.",
            0,
            CAPACITY_MAX * ENTRY_BYTES,
            "1G",
            read=size,
            metavar="BYTES",
            standing="",
            group=_CACHE,
            valid=_enough,
        ),
    ] = 0
    ttl: Annotated[
        float,
        Option(
            "How long a reply lives.",
            0.001,
            TTL_MAX,
            "10m",
            read=seconds,
            unit=" s",
            metavar="TIME",
            standing="60s",
            group=_CACHE,
        ),
    ] = 60.0
    policy: Annotated[
        Policy,
        Option("What makes room in a full one: the least recently used, or nothing.", group=_CACHE),
    ] = "lru"
    admit: Annotated[
        Literal["auto"] | Admit,
        Option(
            "What a full one takes: every reply, or those to keys that were missed before, as "
            "auto does with lru.",
            group=_CACHE,
        ),
    ] = "auto"
    pin: Annotated[
        bool,
        Option(
            "What is in the kernel outlives carom, and the next one goes on with it.",
            group=_CACHE,
        ),
    ] = False
    keep_replies: Annotated[
        bool,
        Option(
            "With --pin: replies are as good after a restart as before; otherwise the next carom "
            "voids them.",
            group=_CACHE,
            only="serve",
        ),
    ] = False
    shadow: Annotated[
        int,
        Option(
            "Of so many hits one goes to the server, whose reply is compared with the cache's; "
            "0: none.",
            0,
            SHADOW_MAX,
            "1000",
            group=_CACHE,
        ),
    ] = 0
    shadow_policy: Annotated[
        Literal["log", "off"],
        Option(
            "What a reply does that differs: a line in the log, or it switches the cache off too.",
            group=_CACHE,
        ),
    ] = "log"
    allow: Annotated[
        tuple[str, ...],
        Option(
            "Prefix whose requests it answers, all others being the server's; from the MAC that a "
            "reply would be sent to.",
            example="192.0.2.0/24",
            metavar="PREFIX",
            repeats=True,
            group=_BOUNDS,
            valid=_prefix,
        ),
    ] = ()
    amplify: Annotated[
        int,
        Option("Longest reply, in payloads of its request; 0: any.", 0, REPLY_MAX, group=_BOUNDS),
    ] = 16
    max_reply: Annotated[
        int,
        Option(
            f"Longest reply in bytes; over {REPLY_SAFE} only where the route's MTU is known to "
            "take it (an interface that forwards).",
            1,
            REPLY_MAX,
            group=_BOUNDS,
        ),
    ] = REPLY_SAFE
    prefix_rate: Annotated[
        int,
        Option(
            _PER_NET, 0, RATE_MAX, "4M", read=size, metavar="BYTES", standing="4M", group=_BOUNDS
        ),
    ] = PREFIX_RATE
    total_rate: Annotated[
        int,
        Option(
            "The same to all sources; 0: any.",
            0,
            RATE_MAX,
            "16M",
            read=size,
            metavar="BYTES",
            standing="16M",
            group=_BOUNDS,
        ),
    ] = TOTAL_RATE
    max_hits_per_cpu: Annotated[
        int,
        Option(
            "Replies a second of one CPU, of all services together; what is beyond is the "
            "server's. 0: any.",
            0,
            HITS_MAX,
            "100000",
            metavar="RATE",
            group=_BOUNDS,
        ),
    ] = 0
    responses_per_second: Annotated[
        int,
        Option(
            f"{_TRUNCATES}: replies a second to one /24 (IPv6 /56); 0: any.",
            0,
            RESPONSES_MAX,
            group=_BOUNDS,
            only="front",
        ),
    ] = 0
    slip: Annotated[
        int,
        Option(
            f"{_TRUNCATES}: of those beyond, one in so many is truncated, the rest is the "
            "server's; 0: none.",
            0,
            RESPONSES_MAX,
            group=_BOUNDS,
            only="front",
        ),
    ] = 2
    echoes: Annotated[
        int,
        Option(
            "Of so many replies to a client that are requests too, and so may go in a loop, one is "
            "left out; 0: none.",
            0,
            RESPONSES_MAX,
            group=_BOUNDS,
            only="serve",
        ),
    ] = ECHOES
    bypass_firewall: Annotated[
        bool,
        Option(
            "Start also where the firewall drops by default what the cache would answer.",
            group=_BOUNDS,
        ),
    ] = False
    wait: Annotated[
        Literal["block", "spin"],
        Option(
            "How it waits for requests; spin burns a CPU, and answers sooner.",
            group=_SERVER,
            only="serve",
        ),
    ] = "block"
    cpu: Annotated[
        int | None, Option("Run on this CPU only.", 0, example="1", group=_SERVER, only="serve")
    ] = None
    keep_capability: Annotated[
        tuple[str, ...],
        Option(
            "Capability that handlers keep; carom gives up what it does not need itself.",
            example="CAP_DAC_OVERRIDE",
            metavar="CAP_NAME",
            repeats=True,
            valid=capabilities.check,
            group=_SERVER,
            only="serve",
        ),
    ] = ()
    filter: Annotated[
        str | None,
        Option(
            f"{_FILTERED}: a filter before the service; `carom filter ls` says what each accepts. "
            "Or the file of one of your own: ./mine.c, or an object by `carom filter build`.",
            example="robust-valid-command",
            metavar="NAME|FILE",
            group=_SERVER,
            only="serve",
            valid=own.check,
            complete=own.completions,
        ),
    ] = None
    filter_at: Annotated[
        Literal["auto"] | Place,
        Option("Where; auto is before the cache.", group=_SERVER, only="serve"),
    ] = "auto"
    cookie_secret_file: Annotated[
        str,
        Option(
            f"{_COOKIES}: file with the secret of the server's cookies, 32 hexadecimal digits a "
            "line: with it, queries that have a cookie are answered too.",
            metavar="FILE",
            group=_SERVER,
            only="front",
        ),
    ] = ""
    work: Annotated[
        float,
        Option(
            "CPU time that every miss costs.",
            0,
            60,
            "2ms",
            read=seconds,
            unit=" s",
            metavar="TIME",
            standing="",
            group=_LAB,
            only="serve",
        ),
    ] = 0.0
    userspace_cache: Annotated[
        int,
        Option(
            "Entries of a cache inside the server, to compare with; 0: none.",
            0,
            CAPACITY_MAX,
            group=_LAB,
            only="serve",
        ),
    ] = 0

    def checked(self) -> Options:
        """The same options. Raises UsageError that names the first wrong one."""
        check(self)
        for conflict in self.conflicts():
            raise conflict
        return self

    def conflicts(self) -> Iterator[UsageError]:
        """What is wrong with several options together, each of which may be what it is."""
        spec = protocols.spec(self.protocol)
        if self.responses_per_second and not spec.truncates:
            able = protocols.words(protocol for protocol in SPECS.values() if protocol.truncates)
            yield UsageError(
                f"responses-per-second is for protocol {able}, not {self.protocol}",
                hint="--prefix-rate bounds the bytes of any protocol",
                about=("responses_per_second", "protocol"),
            )
        if self.filter and not spec.filtered:
            able = protocols.words(protocol for protocol in SPECS.values() if protocol.filtered)
            yield UsageError(
                f"a filter reads the commands of protocol {able}, not of {self.protocol}",
                hint=f"--app {able} is a server that speaks it",
                about=("filter", "protocol"),
            )
        if (self.policy, self.admit) == ("fcfs", "second"):
            yield UsageError(
                "admit second has no meaning with policy fcfs: a full cache takes nothing anyway",
                hint="--policy lru, or leave --admit out",
                about=("admit", "policy"),
            )
        if self.shadow and (self.fast != "cache" or self.hook == "none"):
            yield UsageError(
                "shadow compares what the kernel's cache gives, and there is none",
                hint="--fast cache, and --hook xdp | tc",
                about=("shadow", "fast", "hook"),
            )
        if self.pin and (self.hook == "none" or self.fast == "off"):
            yield UsageError(
                "pin is for what answers in the kernel, and nothing does",
                hint="--fast cache | bounce, and --hook xdp | tc",
                about=("pin", "fast", "hook"),
            )
        if self.pin and self.filter:
            yield UsageError(
                "a filter ends with its carom, and cannot be pinned",
                hint="leave --pin or --filter out",
                about=("pin", "filter"),
            )
        if self.keep_replies and not self.pin:
            yield UsageError(
                "keep-replies says what is good after a restart, and nothing is kept",
                hint="--pin, too",
                about=("keep_replies", "pin"),
            )

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
        """How many entries there is room for, where all are small."""
        return self.memory // ENTRY_BYTES if self.memory else self.capacity


SHARED = (
    "hook",
    "mode",
    "policy",
    "admit",
    "capacity",
    "memory",
    "pin",
    "wait",
    "cpu",
    "keep_capability",
    "allow",
    "max_hits_per_cpu",
    "shadow",
    "bypass_firewall",
    "filter",
    "filter_at",
)
"""Options that services of one fast path have in common."""


LIVE = (
    "ttl",
    "allow",
    "amplify",
    "max_reply",
    "prefix_rate",
    "total_rate",
    "max_hits_per_cpu",
    "responses_per_second",
    "slip",
    "bypass_firewall",
)
"""Options that can change while carom runs; the others are part of what was loaded and bound."""


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
