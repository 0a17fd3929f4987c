# SPDX-License-Identifier: Apache-2.0
"""What is said beside `ready`: whom native XDP slows, and which firewall rules no longer hold."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from carom.kernel.waiting import readable
from netns.line import Line
from netns.process import INTERFACE, Carom
from netns.services import PORT
from netns.wire import Client

NFT = "nft add table inet carom\nnft add chain inet carom input"
SETS = (
    "nft add set inet carom ports '{ type inet_service; flags interval; elements = { %s }; }'\n"
    "nft add rule inet carom input udp dport @ports drop"
)
MAP = (
    "nft add map inet carom fates '{ type inet_service : verdict; elements = { %s : drop }; }'\n"
    "nft add rule inet carom input udp dport vmap @fates"
)


def needs(tool: str) -> None:
    """Skip where this host lacks a tool."""
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not installed")


def notes_of(line: Line, rules: str, *arguments: str, hook: str = "tc") -> tuple[list[str], str]:
    """What a carom notes once these rules, a shell's commands, are there; and its log."""
    line.server.run("sh", "-ec", rules)
    with Carom(line.server, "--hook", hook, *arguments) as carom:
        return carom.ready["notes"], carom.stderr()


@pytest.mark.parametrize(
    "rule",
    [
        f"nft add rule inet carom input udp dport {PORT} drop",
        f"nft add rule inet carom input udp dport != {PORT} drop",
        f"nft add rule inet carom input udp dport 50000-{PORT + 1} counter accept",
        f"nft add rule inet carom input meta l4proto udp th dport '{{ 53, {PORT} }}' drop",
        f"nft add rule inet carom input ip saddr . udp dport '{{ 198.18.0.1 . {PORT} }}' drop",
        f"nft add rule inet carom input udp dport vmap '{{ {PORT} : drop, 53 : accept }}'",
        SETS % f"53, {PORT - 1}-{PORT}",
        MAP % PORT,
    ],
)
def test_a_rule_of_nftables(own_line: Line, rule: str) -> None:
    needs("nft")
    notes, log = notes_of(own_line, f"{NFT}\n{rule}")
    (note,) = notes
    assert f"port {PORT}" in note
    assert "nft inet carom input handle " in note
    assert note in log


@pytest.mark.parametrize(
    "rule",
    [
        "nft add rule inet carom input udp dport 53 limit rate 5/second drop",
        f"nft add rule inet carom input tcp dport {PORT} drop",
        f"nft add rule inet carom input udp sport {PORT} drop",
        f"nft add rule inet carom input udp dport 53 counter packets {PORT} bytes 9 drop",
        SETS % f"53, {PORT + 1}-60000",
        MAP % (PORT - 1),
    ],
)
def test_a_rule_on_something_else(own_line: Line, rule: str) -> None:
    needs("nft")
    assert notes_of(own_line, f"{NFT}\n{rule}")[0] == []


@pytest.mark.parametrize("tool", ["iptables", "ip6tables", "iptables-legacy"])
@pytest.mark.parametrize(
    ("rule", "named"),
    [
        (f"-A INPUT -p udp -m udp --dport {PORT} -j DROP", True),
        (f"-A INPUT -p udp -m multiport --dports 53,50000:{PORT} -j DROP", True),
        (f"-A INPUT -p tcp -m tcp --dport {PORT} -j DROP", False),
        (f"-A INPUT -p udp -m udp --dport {PORT + 1} -j DROP", False),
    ],
)
def test_a_rule_of_iptables(own_line: Line, tool: str, rule: str, named: bool) -> None:
    needs(tool)
    notes, _ = notes_of(own_line, f"{tool} -w {rule}", "--bypass-firewall")
    notes = [one for one in notes if "has rules on it" in one]
    assert len(notes) == named
    assert all(f"{tool} -t filter {rule}" in note for note in notes)


def test_many_rules(own_line: Line) -> None:
    needs("nft")
    rule = f"nft add rule inet carom input udp dport {PORT} counter"
    (note,), _ = notes_of(own_line, "\n".join([NFT, *[rule] * 5]))
    assert note.count("handle") == 3
    assert note.endswith("and 2 more")


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_whom_xdp_slows(straight: Line, mode: str) -> None:
    (note,), log = notes_of(straight, "true", "--mode", mode, hook="xdp")
    assert note.startswith(f"{mode} XDP slows")
    assert INTERFACE in note
    assert "--hook tc" in note
    assert note in log


def test_tc_slows_nobody(straight: Line) -> None:
    assert notes_of(straight, "true")[0] == []


def test_without_a_fast_path_nothing_is_noted(own_line: Line) -> None:
    needs("nft")
    rule = f"nft add rule inet carom input udp dport {PORT} drop"
    assert notes_of(own_line, f"{NFT}\n{rule}", hook="none")[0] == []


@pytest.mark.parametrize("allow", [False, True])
def test_a_source_that_is_not_routed_back(own_line: Line, allow: bool) -> None:
    """The kernel drops its requests: answered they are without an allow-list, which is said."""
    source = "198.19.5.1"
    strict = Path(f"/proc/sys/net/ipv4/conf/{INTERFACE}/rp_filter")
    own_line.server.call(lambda: strict.write_text("1"))
    own_line.client.run("ip", "address", "add", f"{source}/32", "dev", INTERFACE)
    arguments = ("--allow", "198.18.0.0/15") if allow else ()
    with (
        Carom(own_line.server, "--fast", "bounce", *arguments) as carom,
        Client(own_line.client, own_line.address) as near,
        own_line.client.call(lambda: socket.socket(type=socket.SOCK_DGRAM)) as far,
    ):
        assert near.answered(b"routed")
        before = carom.counters()
        far.bind((source, 0))
        far.sendto(b"not routed", (own_line.address, PORT))
        carom.expect(before, **{"pass_neighbour" if allow else "bounce": 1})
        assert bool(readable([far], 0.5)) == (not allow)
        assert any("rp_filter" in note for note in carom.ready["notes"]) == (not allow)
