# SPDX-License-Identifier: Apache-2.0
"""Mutated frames: what carom answers, the real stack and server answer likewise; the rest passes.

Each frame goes to a host twice: with carom on its interface and a server that stays silent, and
with no carom and the server. The stack may answer more than carom does, but nothing else.
"""

from __future__ import annotations

import contextlib
import ipaddress
import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import pytest

from carom.daemon.cache import Cache
from carom.daemon.fastpath import FastPath
from carom.daemon.places import Place
from carom.kernel import links, netlink
from carom.kernel.abi import Fast, Hook, Verdict
from carom.kernel.resource import Resource
from carom.tc.link import TCLink
from carom.vm.namespace import Namespace
from carom.xdp.link import Link
from netns.facing import (
    CLIENTS,
    CLIENTS6,
    FENCE,
    Batch,
    OwnServer,
    Peer,
    Reply,
    Seen,
    batches,
    facing,
    replies,
)
from netns.process import INTERFACE
from netns.wire import ETH_P_ALL, Frame, Tap, check_sums
from prog.host import Ticks, mac_of
from prog.mutations import SOURCE_PORTS, frames, read_tags
from prog.packets import CLIENT_MAC, HOST_MAC, PORT, Wire

COUNT, LONG = 200, 15_000
"""Frames for each of a hook's eight settings."""

HOOKS = ("native", "generic", "tc")
WIRES = (Wire(4), Wire(6), Wire(4, (7,)), Wire(6, (7, 8)))
REQUESTS = tuple(bytes([96 + n]) * n for n in (1, 24, 32, 33, 35, 100))
PAYLOADS = {
    Fast.BOUNCE: (b"", b"x", b"four", b"y" * 33, b"z" * 700),
    Fast.CACHE: (*REQUESTS, b"not there", b"", b"z" * 257),
}
SIZES = (0, 5, 40, 63, 300, 1400)
"""Of replies: each to one request that is in the cache."""

IP_KINDS = (b"\x08\x00", b"\x86\xdd")
TAGS = (b"\x81\x00", b"\x88\xa8")
MULTICAST = b"\x33\x33"
VERDICTS = {Fast.BOUNCE: Verdict.BOUNCE, Fast.CACHE: Verdict.HIT}


def stored(request: bytes) -> bytes:
    """The server's reply: to any request one of its own, and of various lengths."""
    return random.Random(zlib.crc32(request)).randbytes(SIZES[len(request) % len(SIZES)])


assert {len(stored(request)) for request in REQUESTS} == set(SIZES)


ANSWERS: dict[Fast, Callable[[bytes], bytes]] = {Fast.BOUNCE: bytes, Fast.CACHE: stored}


class Ends(NamedTuple):
    """Both namespaces, and a fast path that answers on the host's interface while attached."""

    client: Namespace
    host: Namespace
    fastpath: FastPath


@pytest.fixture(scope="module")
def ends(load_fastpath: Callable[..., FastPath]) -> Iterator[Ends]:
    """A pair for this module."""
    with facing() as (client, host):
        yield Ends(client, host, load_fastpath(policy="lru", test_clock=True))


@contextlib.contextmanager
def attached(ends: Ends, hook: str, wire: Wire, fast: Fast) -> Iterator[None]:
    """Carom on the host's interface, its cache filled with what the server would answer."""
    fastpath = ends.fastpath

    def attach() -> list[Resource]:
        interface = links.interface(INTERFACE)
        if hook == "tc":
            return [TCLink(fastpath.tc_program, interface)]
        return [
            Link(fastpath.program, interface, hook),
            TCLink(fastpath.handover_program, interface),
        ]

    interface = ends.host.call(lambda: links.interface(INTERFACE))
    outer, inner = (*wire.tags, 0, 0)[:2]
    place = Place(
        ipaddress.ip_address(wire.host),
        PORT,
        interface.ifindex,
        mac_of(HOST_MAC),
        1500,
        outer=outer,
        inner=inner,
        fast=fast,
        skb_mode=hook == "generic",
        hands_over=hook != "tc",
    )
    fastpath.clock[0], fastpath.lease[0] = 1000, 2**63
    fastpath.refuse(ends.host.call(netlink.own_addresses))
    fastpath.allow(())
    fastpath.answer_at([place])
    cache = Cache(fastpath.store, Ticks(fastpath), 100)
    cache.flush()
    for request in REQUESTS:
        cache.fill(request, stored(request), cache.take(request))
    with contextlib.ExitStack() as stack:
        for link in ends.host.call(attach):
            stack.enter_context(link)
        yield


def in_stack(wire: Wire, frame: bytes) -> bytes:
    """The frame as a VLAN interface of these tags would give it to the stack."""
    ids, _, network = read_tags(frame)
    whole = len(frame) > network and tuple(ids) == wire.tags
    return frame[:12] + frame[network - 2 :] if whole else frame


def without_tag(frame: bytes) -> bytes:
    """The frame as the kernel leaves it behind TC where no VLAN interface wants it."""
    if frame[12:14] not in TAGS:
        return frame
    inner = frame[:12] + frame[16:]
    return inner if int.from_bytes(frame[14:16], "big") & 0xFFF else without_tag(inner)


def of_clients(address: bytes) -> bool:
    """Is it one that the client's kernel takes for its own?"""
    ours = ipaddress.ip_network(CLIENTS if len(address) == 4 else CLIENTS6)
    return ipaddress.ip_address(address) in ours


def for_socket(wire: Wire, reply: Reply, frame: Frame) -> bool:
    """Does the client's kernel take this reply for a socket of ours?"""
    address, port = reply.client
    own = of_clients(address) and port in SOURCE_PORTS
    return own and not wire.tags and frame.data[:6] == mac_of(CLIENT_MAC)


def check_reply(wire: Wire, asked: bytes, frame: Frame) -> None:
    """It goes where the frame came from, behind its tags, and its checksums are right."""
    _, _, network = read_tags(asked)
    assert frame.data[:network] == asked[6:12] + asked[:6] + asked[12:network]
    check_sums(frame)


class Behind(Resource):
    """What the stack is given: all frames behind XDP, or behind TC those of IP.

    What is seen between the two would be a copy, and of a copied frame TC does not know that XDP
    left it a hit.
    """

    def __init__(self, host: Namespace, *, tc: bool):
        self._kinds = IP_KINDS if tc else ()
        protocols = [int.from_bytes(kind, "big") for kind in self._kinds] or [ETH_P_ALL]
        with contextlib.ExitStack() as stack:
            self._taps = [
                stack.enter_context(Tap(host, everything=True, protocol=one)) for one in protocols
            ]
            self._stack = stack.pop_all()

    def frames(self) -> Counter[bytes]:
        """Those since the last time."""
        came = [one.data for tap in self._taps for one in tap.frames() if not one.outgoing]
        return Counter(filter(self._is_seen, came))

    def of(self, frames: Iterable[bytes]) -> Counter[bytes]:
        """How some frames are seen here. One that ends within a tag the kernel drops."""
        whole = [one for one in frames if one[12:14] not in TAGS or len(one) >= 20]
        return Counter(filter(self._is_seen, map(without_tag, whole) if self._kinds else whole))

    def _is_seen(self, frame: bytes) -> bool:
        """Not the hosts' own, which are the fence and multicast."""
        kind = not self._kinds or frame[12:14] in self._kinds
        return kind and FENCE not in frame and frame[:2] != MULTICAST

    def close(self) -> None:
        """Stop."""
        self._stack.close()


def check_with_carom(wire: Wire, batch: Batch, seen: Seen, behind: Behind) -> dict[Peer, Reply]:
    """Each reply is to one frame, and right in itself; what has none went on untouched."""
    found = replies(wire, seen)
    for source, [(_, frame), *more] in found.items():
        assert source in batch, f"a reply to nobody: {frame.data.hex()}"
        assert not more, f"replies to one frame: {batch[source].hex()}"
        check_reply(wire, batch[source], frame)
    own = [reply for [(reply, frame)] in found.values() if for_socket(wire, reply, frame)]
    delivered = [one for one in seen.delivered if of_clients(one[0][0])]
    assert sorted((reply.client, reply.payload) for reply in own) == sorted(delivered)
    passed = behind.of(frame for source, frame in batch.items() if source not in found)
    came = behind.frames()
    assert came == passed, f"lost {passed - came}, changed {came - passed}"
    return {source: reply for source, [(reply, _)] in found.items()}


def check_with_stack(
    wire: Wire, batch: Batch, answered: dict[Peer, Reply], arrived: set[Peer], seen: Seen
) -> int:
    """The stack and the server answer as carom did, and what else they answer carom let through."""
    found = replies(wire, seen)
    for source, reply in answered.items():
        by_stack = [one for one, _ in found.get(source, ())]
        assert by_stack == [reply], f"{batch[source].hex()}: {reply}, the stack {by_stack}"
    if not wire.tags:
        assert found.keys() <= answered.keys() | arrived
    return len(found)


def answers(fastpath: FastPath) -> Counter[Verdict]:
    """Counters of both hooks."""
    wanted = (Verdict.BOUNCE, Verdict.HIT, Verdict.FAULT)
    both = [fastpath.verdicts(hook) for hook in Hook]
    return Counter({one: sum(verdicts[one] for verdicts in both) for one in wanted})


@pytest.mark.parametrize("fast", PAYLOADS, ids=lambda fast: fast.name.lower())
@pytest.mark.parametrize("wire", WIRES, ids=str)
@pytest.mark.parametrize("hook", HOOKS)
def test_answers_as_the_stack_does(
    ends: Ends, long_form: bool, hook: str, wire: Wire, fast: Fast
) -> None:
    made = frames(wire, PAYLOADS[fast], LONG if long_form else COUNT)
    by_carom: list[tuple[Batch, dict[Peer, Reply], set[Peer]]] = []
    by_stack = 0
    behind = Behind(ends.host, tc=hook == "tc" or fast is Fast.CACHE)
    with OwnServer(ends.client, ends.host, wire, ANSWERS[fast]) as exchange:
        with attached(ends, hook, wire, fast), behind:
            before = answers(ends.fastpath)
            for batch in batches(wire, made):
                seen = exchange.send(batch.values(), answering=False)
                answered = check_with_carom(wire, batch, seen, behind)
                by_carom.append((batch, answered, {source for source, _ in seen.arrived}))
            counted = answers(ends.fastpath) - before
        for batch, answered, arrived in by_carom:
            inside = [in_stack(wire, frame) for frame in batch.values()]
            seen = exchange.send(inside)
            by_stack += check_with_stack(wire, batch, answered, arrived, seen)
    total = sum(len(answered) for _, answered, _ in by_carom)
    print(f"{len(made):,} frames, answered by carom {total:,}, by the stack {by_stack:,}")
    assert counted == {VERDICTS[fast]: total}
    assert total > len(made) // 20
