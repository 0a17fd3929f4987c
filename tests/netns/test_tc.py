# SPDX-License-Identifier: Apache-2.0
"""At TC ingress: attached and gone again, by a link or by clsact, beside whatever else is there."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from carom.daemon.fastpath import FastPath
from carom.daemon.places import Place
from carom.errors import BusyError, ExperimentError
from carom.kernel import libbpf, links
from carom.kernel.abi import HANDED_OVER, Fast, Hook
from carom.kernel.bpf import Module
from carom.kernel.links import Interface
from carom.kernel.recipe import Recipe
from carom.tc.link import TCLink
from carom.vm.namespace import Namespace, join
from carom.xdp.link import Link
from netns.line import Line
from netns.process import DEADLINE, INTERFACE, Carom, at_tc, attached, until
from netns.services import PORT
from netns.wire import Client, Tap, check_sums

_NO_PROCESS = 2**22 + 1  # more than the kernel ever gives
TC = ("--hook", "tc", "--fast", "bounce")


def test_end_by_a_signal(straight: Line) -> None:
    """One link while it runs, none after it."""
    with Carom(straight.server, *TC) as carom:
        assert len(at_tc(straight.server)) == 1
        assert attached(straight.server) is None
        assert carom.ready["interfaces"] == [{"name": INTERFACE, "hook": "tc", "mode": None}]
        carom.stop()
    assert at_tc(straight.server) == []


@pytest.mark.parametrize("hook", ["tc", "xdp"])
def test_kill_9(straight: Line, client: Client, hook: str) -> None:
    """What XDP hands over to goes with its owner as well."""
    killed = Carom(straight.server, "--hook", hook, "--fast", "bounce")
    assert len(at_tc(straight.server)) == 1
    killed.signal(signal.SIGKILL)
    killed.wait()
    until(lambda: at_tc(straight.server) == [], "the link to go")
    with Carom(straight.server, "--hook", hook, "--fast", "bounce") as carom:
        assert client.ask(b"after") == b"after"
        assert carom.counters()["bounce"] == 1


def test_two_caroms(straight: Line, client: Client) -> None:
    """Links stand beside one another: each answers its own port."""
    with (
        Carom(straight.server, *TC, "-p", "51142") as other,
        Carom(straight.server, *TC) as carom,
        Client(straight.client, straight.address, 51142) as second,
    ):
        assert len(at_tc(straight.server)) == 2
        assert client.ask(b"first") == b"first"
        assert second.ask(b"second") == b"second"
        assert (carom.counters()["bounce"], other.counters()["bounce"]) == (1, 1)


def test_super_packet(straight: Line, client: Client) -> None:
    """Many requests in one packet are cut apart by the kernel, and answered by the server."""
    straight.offload(sender=True, replier=True)  # or the sender cuts it apart
    with Carom(straight.server, *TC) as carom:
        before = carom.counters()
        client.send_segments(b"one.two.tri", 4)
        assert [client.receive() for _ in range(3)] == [b"one.", b"two.", b"tri"]
        carom.expect(before, pass_length=1, replies=3, unfit=0)
        assert client.nothing_more()
        before = carom.counters()
        assert client.ask(b"four") == b"four"
        carom.expect(before, bounce=1)


_SOL_PACKET, _PACKET_VNET_HDR = 263, 15  # linux/socket.h, linux/if_packet.h
_IN_PIECES = struct.pack("=BBHHHH", 0, 0, 14, 0, 0, 0)
"""struct virtio_net_hdr, linux/virtio_net.h: 14 bytes lie together, the rest where it likes."""


def test_headers_that_lie_elsewhere() -> None:
    """An skb may keep in pages what the program's pointers do not reach at first."""
    with Namespace("client") as client, Namespace("server") as server:
        join(client, INTERFACE, server, INTERFACE)
        for end, address in ((client, "198.18.0.1"), (server, "198.18.0.2")):
            end.run("ip", "link", "set", INTERFACE, "mtu", "9000")
            end.address(INTERFACE, address, 30)
        frame = Ether(src=client.mac(INTERFACE), dst=server.mac(INTERFACE))
        frame /= IP(src="198.18.0.1", dst="198.18.0.2") / UDP(sport=40_000, dport=PORT) / b"asked"
        padding = bytes(range(256)) * 20  # a page and more, or it all lies together
        with Carom(server, *TC) as carom, Tap(client) as tap:
            sender = client.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
            with sender:
                sender.bind((INTERFACE, 0))
                sender.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
                sender.send(_IN_PIECES + bytes(frame) + padding)
            until(lambda: carom.counters()["bounce"] == 1, "the bounce")
            (reply,) = [one for one in tap.frames() if not one.outgoing and UDP in one.ip()]
            check_sums(reply)
            assert bytes(reply.ip()[UDP].payload) == b"asked"
            assert reply.data.endswith(padding)


_LEAVES_A_WORD = """
#include <uapi/linux/bpf.h>
int leaves_a_word(struct xdp_md *context)
{
	u32 *word;

	if (bpf_xdp_adjust_meta(context, -(int)sizeof(*word)))
		return XDP_ABORTED;
	word = (void *)(long)context->data_meta;
	if ((void *)(word + 1) > (void *)(long)context->data)
		return XDP_ABORTED;
	*word = WORD;
	return XDP_PASS;
}
"""


@pytest.mark.parametrize(("word", "bounces"), [(HANDED_OVER, 1), (HANDED_OVER + 1, 0), (0, 0)])
def test_another_programs_word(
    straight: Line, load_fastpath: Callable[..., FastPath], tmp_path: Path, word: int, bounces: int
) -> None:
    """What its own XDP program hands over is taken, and nothing else."""
    source = tmp_path / "word.c"
    source.write_text(_LEAVES_A_WORD)
    fastpath = load_fastpath(policy="lru", test_clock=True)
    interface = straight.server.call(lambda: links.interface(INTERFACE))
    ours = ipaddress.ip_address(straight.address)
    fastpath.clock[0], fastpath.lease[0] = 1, 2**63
    fastpath.refuse([ours])
    fastpath.answer_at(
        [Place(ours, PORT, interface.ifindex, interface.mac, 1500, fast=Fast.BOUNCE)]
    )

    def listen() -> socket.socket:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind((straight.address, PORT))
        server.settimeout(DEADLINE)
        return server

    with contextlib.ExitStack() as stack:
        module = stack.enter_context(Module(Recipe(source, defines={"WORD": word})))
        program = module.program("leaves_a_word")
        stack.enter_context(straight.server.call(lambda: Link(program, interface, "generic")))
        tier = fastpath.handover_program
        stack.enter_context(straight.server.call(lambda: TCLink(tier, interface)))
        server = stack.enter_context(straight.server.call(listen))
        client = stack.enter_context(Client(straight.client, straight.address))
        before = fastpath.verdicts(Hook.TC)
        client.send(b"asked")
        if bounces:
            assert client.receive() == b"asked"
        else:
            assert server.recv(100) == b"asked"
        after = fastpath.verdicts(Hook.TC)
        assert sum(after.values()) - sum(before.values()) == bounces


@pytest.fixture
def own(own_line: Line, load_fastpath: object) -> Iterator[tuple[Line, FastPath, Interface]]:
    """A pair, a fast path that is not attached, and the server's interface."""
    fastpath = load_fastpath(policy="lru", test_clock=True)  # type: ignore[operator]
    yield own_line, fastpath, own_line.server.call(lambda: links.interface(INTERFACE))


@contextlib.contextmanager
def clsact(line: Line, program: int, interface: Interface) -> Iterator[TCLink]:
    """A program attached as on a kernel without links."""
    link = line.server.call(lambda: TCLink(program, interface, tcx=False))
    try:
        yield link
    finally:
        line.server.call(link.close)


def qdiscs(line: Line) -> str:
    """Those of the interface, as `tc` shows them."""
    return line.server.run("tc", "qdisc", "show", "dev", INTERFACE)


def filters(line: Line, where: str = "ingress") -> list[str]:
    """A line each, without what tc says of chains."""
    shown = line.server.run("tc", "filter", "show", "dev", INTERFACE, where)
    return [one for one in shown.splitlines() if "handle" in one]


class TestClsact:
    """Kernels before 6.6 have no links at TC."""

    def test_nothing_is_left(self, own: tuple[Line, FastPath, Interface]) -> None:
        line, fastpath, interface = own
        before = qdiscs(line)
        with clsact(line, fastpath.tc_program, interface) as link:
            assert link.kind == "clsact"
            (one,) = filters(line)
            assert "carom" in one
            assert "direct-action" in one
            assert at_tc(line.server) == []
        assert qdiscs(line) == before
        assert "clsact" not in before

    @pytest.mark.parametrize("kind", ["clsact", "ingress"])
    def test_a_qdisc_that_was_there_stays(
        self, own: tuple[Line, FastPath, Interface], kind: str
    ) -> None:
        line, fastpath, interface = own
        line.server.run("tc", "qdisc", "add", "dev", INTERFACE, kind)
        before = qdiscs(line)
        with clsact(line, fastpath.tc_program, interface):
            assert len(filters(line)) == 1
        assert qdiscs(line) == before
        assert filters(line) == []

    @pytest.mark.parametrize("where", ["ingress", "egress"])
    @pytest.mark.parametrize("kind", ["bpf", "matchall"])
    def test_a_strangers_filter_keeps_our_qdisc(
        self, own: tuple[Line, FastPath, Interface], where: str, kind: str
    ) -> None:
        """Somebody put one beside ours: it goes on."""
        line, fastpath, interface = own
        with clsact(line, fastpath.tc_program, interface):
            stranger(line, kind, where)
            theirs = [one for one in filters(line, where) if "carom" not in one]
            assert theirs
        assert filters(line, where) == theirs
        assert "clsact" in qdiscs(line)

    def test_a_filter_in_our_place_is_not_replaced(
        self, own: tuple[Line, FastPath, Interface]
    ) -> None:
        line, fastpath, interface = own
        line.server.run("tc", "qdisc", "add", "dev", INTERFACE, "clsact")
        stranger(line, "bpf", "ingress", "51141")
        before = filters(line)
        with pytest.raises(BusyError, match="51141"), clsact(line, fastpath.tc_program, interface):
            pass
        assert filters(line) == before

    def test_a_killed_ones_filter_is_replaced(
        self, own: tuple[Line, FastPath, Interface], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        line, fastpath, interface = own
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: _NO_PROCESS)
            line.server.call(lambda: TCLink(fastpath.handover_program, interface, tcx=False))
        (before,) = filters(line)
        assert str(_NO_PROCESS) in before
        with clsact(line, fastpath.tc_program, interface):
            (now,) = filters(line)
            assert str(os.getpid()) in now
        assert filters(line) == []

    def test_a_living_ones_filter_is_not(self, own: tuple[Line, FastPath, Interface]) -> None:
        line, fastpath, interface = own
        with clsact(line, fastpath.tc_program, interface):
            before = filters(line)
            with pytest.raises(BusyError), clsact(line, fastpath.tc_program, interface):
                pass
            assert filters(line) == before

    def test_a_failed_start_leaves_no_qdisc(self, own: tuple[Line, FastPath, Interface]) -> None:
        line, _, interface = own
        before = qdiscs(line)
        not_tc = libbpf.load_xdp_pass()
        try:
            with pytest.raises(Exception, match="refused TC"), clsact(line, not_tc, interface):
                pass
        finally:
            os.close(not_tc)
        assert qdiscs(line) == before

    def test_the_interface_is_gone(self, own: tuple[Line, FastPath, Interface]) -> None:
        line, fastpath, interface = own
        with clsact(line, fastpath.tc_program, interface):
            line.server.run("ip", "link", "del", INTERFACE)


def stranger(line: Line, kind: str, where: str, priority: str = "7") -> None:
    """Somebody else's filter, which lets everything on."""
    add = ("tc", "filter", "add", "dev", INTERFACE, where, "prio", priority)
    if kind == "matchall":
        try:
            line.server.run(*add, "matchall", "classid", "1:1")
        except ExperimentError as error:
            if "classifier not found" not in str(error):
                raise
            pytest.skip("this kernel has no other classifier than bpf")
        return
    # `tc` loads no bytecode of eBPF without an object file; classic BPF it takes as text.
    line.server.run(*add, "bpf", "bytecode", "1,6 0 0 4294967295", "flowid", "1:1")


@pytest.mark.parametrize("first", [True, False], ids=["before", "behind"])
def test_a_strangers_program_runs_on(own_line: Line, first: bool) -> None:
    """What carom passes reaches the program behind it, and that of a stranger is left alone."""
    program = libbpf.load_constant(libbpf.PROG_TYPE_SCHED_CLS, b"unspec", -1)

    def link() -> int:
        return libbpf.link_tcx_ingress(program, socket.if_nametoindex(INTERFACE))

    with contextlib.ExitStack() as stack:
        stack.callback(os.close, program)
        if first:
            stack.callback(os.close, own_line.server.call(link))
        theirs = at_tc(own_line.server)
        carom = stack.enter_context(Carom(own_line.server, "--hook", "tc"))
        if not first:
            stack.callback(os.close, own_line.server.call(link))
            theirs = at_tc(own_line.server)[1:]
        client = stack.enter_context(Client(own_line.client, own_line.address))
        before = carom.counters()
        for _ in range(3):
            assert client.ask(b"asked") == b"asked"
        carom.expect(before, miss=1, hit=2, fills=1, replies=1)
        assert len(at_tc(own_line.server)) == 2
        carom.signal(signal.SIGTERM)
        assert carom.wait().code == 0
        assert at_tc(own_line.server) == theirs
