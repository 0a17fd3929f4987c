# SPDX-License-Identifier: Apache-2.0
"""Where the server of a port's requests may be: here, or where they are translated to.

Policy alone: nothing here asks the kernel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from carom.daemon.translated import Translation
from carom.kernel.netlink import Address


class Target(NamedTuple):
    """A port `here`, in carom's own network namespace, or in another.

    `addresses` are those that requests arrive at here; none where nobody knows.
    """

    port: int
    here: bool
    addresses: tuple[Address, ...] = ()


def targets(
    asked: Sequence[tuple[Address, Translation | None]], port: int, *, said: bool = False
) -> list[Target]:
    """Where to look, the likeliest first; `asked` are the addresses that clients send to.

    `port` is the port that clients send to; or the server's own, if `said` by an option. A server
    here that is reached without translation comes first; then other addresses are not answered.
    """
    plain = [address for address, to in asked if to is None]
    candidates = [Target(port, True, tuple(plain))] if said or plain or not asked else []
    known = [(to, address) for address, to in asked if to and (not said or to.port == port)]
    for at, _ in Counter(to.port for to, _ in known).most_common():
        here = tuple(to.address or address for to, address in known if to.local and to.port == at)
        if here:
            candidates.append(Target(at, True, here))
        if any(not to.local and to.port == at for to, _ in known):
            candidates.append(Target(at, False))
    return candidates if known else [*candidates, Target(port, False)]
