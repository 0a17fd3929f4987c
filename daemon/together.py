# SPDX-License-Identifier: Apache-2.0
"""What is wrong with services that are to run together, though each may run by itself."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from carom import protocols
from carom.daemon.options import SHARED, Options
from carom.errors import UsageError
from carom.kernel.abi import SERVICES_MAX
from carom.protocols.spec import Filled
from carom.settings import fields

Conflict = tuple[int | None, UsageError]
"""The number of the service that it is about, if it is about one, and what is wrong."""


class Member(NamedTuple):
    """One of the services: its options, and whether it is somebody else's server."""

    options: Options
    fronted: bool


def conflicts(members: Sequence[Member], interfaces: Sequence[str]) -> Iterator[Conflict]:
    """All that is wrong with these services on these interfaces."""
    if len(members) > SERVICES_MAX:
        yield (
            None,
            UsageError(f"{len(members)} services are too many", hint=f"up to {SERVICES_MAX}"),
        )
    for number, (options, fronted) in enumerate(members):
        if not fronted and protocols.spec(options.protocol).learned:
            ours = " or ".join(protocol.name for protocol in protocols.filled_by(Filled.DAEMON))
            yield (
                number,
                UsageError(
                    f"a Python service does not speak {options.protocol}",
                    hint=f"it speaks {ours}; `carom front` goes before a server that does",
                    about=("protocol",),
                ),
            )
        yield from _not_shared(number, members)
    yield from _at_one_address([member.options for member in members])
    yield from _on_no_interface(members, interfaces)


def _not_shared(number: int, members: Sequence[Member]) -> Iterator[Conflict]:
    """The options that this service should have in common with the first one of its kind."""
    options, fronted = members[number]
    for name in SHARED:
        ours = fields(Options)[name].option.only == "serve"
        first = next(one for one in members if not (ours and one.fronted and not fronted))
        mine, theirs = getattr(first.options, name), getattr(options, name)
        if mine != theirs and not (ours and fronted):
            yield (
                number,
                UsageError(
                    f"services that run together share {name}: {mine!r} is not {theirs!r}",
                    hint="give it to all of them, or run them apart",
                    about=(name,),
                ),
            )


def _at_one_address(all: Sequence[Options]) -> Iterator[Conflict]:
    for number, options in enumerate(all):
        for other in all[:number]:
            if options.port == other.port and _meet(options.bind, other.bind):
                yield (
                    number,
                    UsageError(
                        f"two services are to answer on port {options.port} at one address",
                        hint="give each an address of its own to bind, or leave one out",
                        about=("port",),
                    ),
                )
                break


def _meet(bind: str, other: str) -> bool:
    """Whether sockets that are bound so have an address in common; `::` is IPv4's too."""
    one, two = ipaddress.ip_address(bind), ipaddress.ip_address(other)
    if one.is_unspecified or two.is_unspecified:
        both = {address.version for address in (one, two) if not address.is_unspecified}
        everywhere = {address.version for address in (one, two) if address.is_unspecified}
        return 6 in everywhere or both <= everywhere
    return one == two


def _on_no_interface(members: Sequence[Member], interfaces: Sequence[str]) -> Iterator[Conflict]:
    first = next((one for one in members if not one.fronted), members[0]).options
    fast = first.hook != "none" and any(member.options.fast != "off" for member in members)
    if fast and not interfaces:
        ours = not any(member.fronted for member in members)
        yield (
            None,
            UsageError(
                "no interface to answer on",
                hint="name one with -i" + (", or say --hook none" if ours else ""),
                about=("interfaces",),
            ),
        )
    if first.filter_place() in ("xdp", "tc") and not interfaces:
        yield (
            None,
            UsageError(
                "no interface to filter on",
                hint="name one with -i, or say --filter-at socket",
                about=("interfaces",),
            ),
        )
