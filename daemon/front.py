# SPDX-License-Identifier: Apache-2.0
"""What somebody says of a server that is to be fronted, checked before anything is looked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from carom import protocols
from carom.converted import converted
from carom.daemon.options import Options, options_of, with_units
from carom.errors import UsageError
from carom.protocols import SPECS
from carom.protocols.spec import Filled, Spec

_OF_SERVICES_OF_OURS = {"fast", "work", "userspace_cache", "wait", "cpu", "echoes"} | {
    "filter",
    "filter_at",
}
"""Options that a server of others has no use for."""


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What `front` takes beyond a service's options.

    `writes_elsewhere` says what to do where a server may be written to unseen: refuse it, or accept
    replies as old as the TTL. Where items end by themselves, `exptime` has the server asked when,
    if it is one that can say so (`auto`) or in any case (`ask`), or accepts them up to the TTL.
    `server_port` is the server's own, where requests reach it at another than clients send them to
    (0: what translates them says which, or it is the same).
    """

    writes_elsewhere: Literal["refuse", "ttl"] = "refuse"
    exptime: Literal["auto", "ask", "ttl"] = "auto"
    server_port: int = 0


class Front:
    """A server that is not ours, to put the cache before; `options` as a Service has them."""

    def __init__(self, options: Options, wishes: Wishes | None = None):
        """Raises UsageError for a protocol that cannot be learned, and for a wrong wish."""
        _check_learned(options.protocol)
        if options.fast != "cache" or options.hook == "none":
            raise UsageError("front is a cache in the kernel", hint="--hook xdp | tc")
        spec = protocols.spec(options.protocol)
        if options.cookie_secret_file and not spec.cookies:
            able = protocols.words(one for one in SPECS.values() if one.cookies)
            raise UsageError(
                f"{options.protocol} has no cookies", hint=f"--cookie-secret-file is for {able}"
            )
        if options.ttl != int(options.ttl):
            raise UsageError(
                f"ttl {options.ttl:g} is not whole seconds, as front counts them",
                hint="--ttl 1s, or more",
            )
        wishes = wishes or Wishes()
        if not 0 <= wishes.server_port <= 65_535:
            raise UsageError(f"server-port {wishes.server_port} is out of range", hint="1 to 65535")
        self.options = options
        self.writes_elsewhere = wishes.writes_elsewhere
        self.exptime = wishes.exptime if spec.ending else "ttl"
        self.server_port = wishes.server_port
        self.wants_all_seen = self.writes_elsewhere == "refuse"
        self.written_at_any_door = spec.written_at_any_door


def front_of(values: Mapping[str, object]) -> Front:
    """A front from untyped values, with durations and sizes as text. Raises UsageError."""
    own = {name: values[name] for name in Wishes.__struct_fields__ if name in values}
    rest = {"bind": "::", "amplify": 0, "protocol": protocols.default(Filled.LEARNED).name}
    rest |= {name: value for name, value in values.items() if name not in own}
    useless = sorted(rest.keys() & _OF_SERVICES_OF_OURS)
    if useless:
        raise UsageError(
            f"front has no option {useless[0]!r}",
            hint="it is for services that run in `carom serve`",
        )
    rest["protocol"] = str(rest["protocol"]).lower()
    spec = _check_learned(str(rest["protocol"]))
    if spec.port:
        rest.setdefault("port", spec.port)
    return Front(options_of(with_units(rest)), converted(own, Wishes))


def _check_learned(protocol: str) -> Spec:
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
