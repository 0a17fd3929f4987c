# SPDX-License-Identifier: Apache-2.0
"""The options for a server that is to be fronted, checked before anything is looked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from carom import protocols
from carom.daemon.options import Options
from carom.errors import UsageError
from carom.protocols import SPECS
from carom.protocols.spec import Filled, Spec
from carom.settings import Option, check

STANDING = {"bind": "::", "amplify": 0, "protocol": protocols.default(Filled.LEARNED).name}
"""Defaults of a front that differ from a service's."""

_GROUP = "The server"
_WITH_ENDS = protocols.words(protocol for protocol in SPECS.values() if protocol.ending)


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `front` beyond those of a service."""

    server_port: Annotated[
        int,
        Option(
            "The server's own port, where the host translates requests to another, and what "
            "translates them does not say which; 0: that, or the same.",
            0,
            65_535,
            "11212",
            group=_GROUP,
        ),
    ] = 0
    writes_elsewhere: Annotated[
        Literal["refuse", "ttl"],
        Option(
            "A server that can be written to unseen is refused, or its cache may be stale up to "
            "the TTL.",
            group=_GROUP,
        ),
    ] = "refuse"
    exptime: Annotated[
        Literal["auto", "ask", "ttl"],
        Option(
            f"{_WITH_ENDS}: a server known to tell is asked how long replies hold (ask: any "
            "server, or it is refused), or a reply may outlive its item up to the TTL.",
            group=_GROUP,
        ),
    ] = "auto"


class Front:
    """Somebody else's server, to put the cache in front of; `options` as in Service."""

    def __init__(self, options: Options, wishes: Wishes | None = None):
        """Raises UsageError for a protocol that cannot be learned, and for a wrong wish."""
        check_learned(options.protocol)
        for conflict in conflicts(options):
            raise conflict
        wishes = wishes or Wishes()
        check(wishes)
        spec = protocols.spec(options.protocol)
        self.options, self.wishes = options, wishes
        self.writes_elsewhere = wishes.writes_elsewhere
        self.exptime = wishes.exptime if spec.ending else "ttl"
        self.server_port = wishes.server_port
        secrets = options.cookie_secret_file
        self.secret_file = Path(secrets).absolute() if secrets else None
        self.wants_all_seen = self.writes_elsewhere == "refuse"
        self.written_at_any_door = spec.written_at_any_door


def conflicts(options: Options) -> Iterator[UsageError]:
    """What is wrong with options for a server that is fronted, though each may be what it is."""
    if options.fast != "cache" or options.hook == "none":
        yield UsageError(
            "front is a cache in the kernel", hint="--hook xdp | tc", about=("hook", "fast")
        )
    if options.cookie_secret_file and not protocols.spec(options.protocol).cookies:
        able = protocols.words(protocol for protocol in SPECS.values() if protocol.cookies)
        yield UsageError(
            f"{options.protocol} has no cookies",
            hint=f"--cookie-secret-file is for {able}",
            about=("cookie_secret_file", "protocol"),
        )
    if options.ttl != int(options.ttl):
        yield UsageError(
            f"ttl {options.ttl:g} is not whole seconds, as front counts them",
            hint="--ttl 1s, or more",
            about=("ttl",),
        )


def check_learned(protocol: str) -> Spec:
    """The protocol of this name. Raises UsageError for one whose replies cannot be learned."""
    able = protocols.words(protocols.filled_by(Filled.LEARNED))
    if protocol not in SPECS:
        raise UsageError(f"protocol {protocol!r} is unknown", hint=able)
    spec = SPECS[protocol]
    if not spec.learned:
        raise UsageError(
            f"front cannot learn {protocol}: {spec.why_not_learned}",
            hint=f"--protocol {able}; a Python service of yours runs by `carom serve`",
        )
    return spec
