# SPDX-License-Identifier: Apache-2.0
"""VLAN tags as they come over a wire: at TC the kernel has taken the outermost off the frame.

Frames are made up, for not every kernel has VLAN devices; the service is put there by hand.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Callable, Iterator

import pytest

from carom.daemon.cache import Cache
from carom.daemon.fastpath import FastPath
from carom.daemon.places import Place
from carom.kernel import links
from carom.kernel.abi import Hook
from carom.kernel.links import Interface
from carom.kernel.resource import Resource
from carom.tc.link import TCLink
from carom.xdp.link import Link
from netns.line import Line
from netns.process import INTERFACE, until
from netns.wire import Tap
from prog.host import Ticks
from prog.packets import FRAME_MIN, PORT, WIRES, Wire
from prog.test_cache import answer

PAYLOAD = b"asked behind a tag"
LONG = 1400


@pytest.fixture(params=["native", "generic", "tc"])
def attached(
    straight: Line, load_fastpath: Callable[..., FastPath], request: pytest.FixtureRequest
) -> Iterator[tuple[str, FastPath, Interface]]:
    """A fast path on the pair, at XDP with TC behind it, or at TC alone."""
    fastpath = load_fastpath(policy="lru", test_clock=True)

    def attach() -> list[Resource]:
        interface = links.interface(INTERFACE)
        if request.param == "tc":
            return [TCLink(fastpath.tc_program, interface)]
        link = Link(fastpath.program, interface, request.param)
        return [link, TCLink(fastpath.handover_program, interface)]

    with contextlib.ExitStack() as stack:
        for one in straight.server.call(attach):
            stack.enter_context(one)
        yield request.param, fastpath, straight.server.call(lambda: links.interface(INTERFACE))


def asked_and_answered(line: Line, wire: Wire, frame: bytes) -> bytes:
    """Send a frame, and wait for the one that comes back, with its tags."""
    received: list[bytes] = []
    with Tap(line.client) as tap:
        tap.send(frame)

        def there() -> bool:
            received.extend(one.data for one in tap.frames() if not one.outgoing)
            return bool(received)

        until(there, f"a reply to {wire}")
    assert len(received) == 1
    return received[0]


@pytest.mark.parametrize("size", [10, LONG])
@pytest.mark.parametrize("wire", WIRES, ids=str)
def test_answered_behind_its_tags(
    straight: Line, attached: tuple[str, FastPath, Interface], wire: Wire, size: int
) -> None:
    """The reply is the same, byte for byte, wherever it is made; long ones are made at TC."""
    how, fastpath, interface = attached
    outer, inner = (*wire.tags, 0, 0)[:2]
    clock = Ticks(fastpath)
    fastpath.clock[0], fastpath.lease[0] = 1000, 2**63
    fastpath.refuse(())
    fastpath.allow(())
    place = Place(
        ipaddress.ip_address(wire.host),
        PORT,
        interface.ifindex,
        interface.mac,
        wire.mtu,
        outer=outer,
        inner=inner,
        skb_mode=how == "generic",
        hands_over=how != "tc",
    )
    fastpath.answer_at([place])
    cache = Cache(fastpath.store, clock, 100)
    cache.fill(PAYLOAD, answer(size), cache.take(PAYLOAD))
    ours, theirs = straight.server.mac(INTERFACE), straight.client.mac(INTERFACE)
    before = fastpath.verdicts(Hook.TC)
    frame = wire.request(PAYLOAD, eth={"src": theirs, "dst": ours})
    reply = asked_and_answered(straight, wire, frame)
    expected = wire.cached_reply(answer(size), eth={"src": ours, "dst": theirs})
    if how == "tc" and wire.tags:  # filled up where its outermost tag is not part of it
        expected = expected.ljust(FRAME_MIN + 4, b"\0")
    assert reply == expected
    after = fastpath.verdicts(Hook.TC)
    at_tc = sum(after.values()) - sum(before.values())
    assert at_tc == int(how == "tc" or size == LONG)
