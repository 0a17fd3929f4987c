# SPDX-License-Identifier: Apache-2.0
"""A client and a server with several veths between them, and what both ends are given."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from carom.vm.namespace import Namespace, join
from carom.vm.netns import attach_pass
from netns.process import Carom, until
from netns.wire import Client

SERVER, CLIENT = "198.18.0.2", "198.18.0.1"


class Ends(NamedTuple):
    """Their veths are eth0, eth1, ... at each end."""

    client: Namespace
    server: Namespace

    def both(self, *words: str) -> None:
        """Run a program at both ends."""
        for end in self:
            end.run(*words)

    def link(self, words: str) -> None:
        """`ip link WORDS` at both ends."""
        self.both("ip", "link", *words.split())

    def addresses(self, interface: str, server: str = SERVER, client: str = CLIENT) -> None:
        """Up with an address each."""
        for end, address in ((self.server, server), (self.client, client)):
            end.up(interface)
            end.address(interface, address, 64 if ":" in address else 24)


@contextlib.contextmanager
def joined(count: int) -> Iterator[Ends]:
    """The client's veths carry a program that passes all: native XDP's replies need one."""
    with contextlib.ExitStack() as stack:
        client, server = (stack.enter_context(Namespace(one)) for one in ("client", "server"))
        for number in range(count):
            join(client, f"eth{number}", server, f"eth{number}")
            stack.callback(os.close, attach_pass(client, f"eth{number}"))
        for end in (client, server):
            end.up("lo")
        yield Ends(client, server)


def check_hits(carom: Carom, client: Client, count: int = 3) -> None:
    """The same answer again and again, and from the kernel before long."""
    before = carom.counters()["hit"]
    answer = client.ask(b"the same")

    def hit() -> bool:
        assert client.ask(b"the same") == answer
        return carom.counters()["hit"] >= before + count

    until(hit, "hits")


def check_no_hits(carom: Carom, client: Client) -> None:
    """Answered, and by the server."""
    before = carom.counters()["hit"]
    assert len({client.ask(b"the same") for _ in range(4)}) == 1
    assert carom.counters()["hit"] == before
