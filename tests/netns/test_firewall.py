# SPDX-License-Identifier: Apache-2.0
"""What hits pass: rules of every kind, read from real rulesets; and what carom does about it."""

from __future__ import annotations

import ipaddress
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from carom.daemon import firewall
from carom.daemon.firewall import Findings, Ruleset, Way
from carom.vm.namespace import Namespace, join
from netns.line import Line
from netns.memcache import Memcached
from netns.process import INTERFACE, Carom, run, until
from netns.services import PORT
from netns.test_notes import needs
from netns.wire import Client

OURS4, OURS6 = "198.18.0.2", "2001:db8::2"
INPUT = "chain in {{ type filter hook {hook} priority 0; policy {policy}; {rules} }}"


@pytest.fixture
def host() -> Iterator[Namespace]:
    """A host that does nothing, with an interface."""
    with Namespace("host") as host, Namespace("peer") as peer:
        join(host, INTERFACE, peer, INTERFACE)
        host.address(INTERFACE, OURS4, 24)
        host.address(INTERFACE, OURS6, 64)
        yield host


def put(host: Namespace, text: str) -> None:
    """Give a ruleset to `nft -f -`."""
    needs("nft")
    subprocess.run(host.argv(["nft", "-f", "-"]), input=text, text=True, check=True)


def table(
    rules: str, *, policy: str = "accept", hook: str = "input", family: str = "inet", more: str = ""
) -> str:
    """A table with a chain of rules, one a line, and more in it."""
    lines = "\n".join(one.strip() for one in rules.split(";"))
    chain = INPUT.format(hook=hook, policy=policy, rules=lines + "\n")
    return f"table {family} f {{\n{more}\n{chain}\n}}\n"


def looked(host: Namespace, *allow: str, address: str = OURS4) -> Findings:
    """What is found for a service."""
    way = Way(INTERFACE, ipaddress.ip_address(address))
    return host.call(lambda: firewall.look(Ruleset(), PORT, [way], allow))


@pytest.mark.parametrize(
    "rules",
    [
        table("iif lo accept; ip saddr 10.0.0.0/8 accept", policy="drop"),
        table("ct state established,related accept; ct state invalid drop", policy="drop"),
        table("ip saddr 10.0.0.0/8 accept; drop"),
        table("ct state vmap { established : accept, invalid : drop }; reject"),
        table(
            "tcp dport 1-65535 accept; meta l4proto udp counter reject with icmpx host-unreachable"
        ),
        table("jump rest", more="chain rest {\ntcp dport 22 accept\ndrop\n}"),
        table("goto rest; accept", policy="drop", more="chain rest {\ntcp dport 22 accept\n}"),
        table(
            "jump outer; accept",
            more="chain inner {\nudp dport 1-65535 drop\n}\nchain outer {\njump inner\n}",
        ),
        table(f"udp dport vmap {{ {PORT} : jump mine }}", more="chain mine {\ndrop\n}"),
        table(f"udp dport {PORT + 1} accept; udp dport != 53 drop"),
        table(f"ip saddr . udp dport {{ 10.0.0.1 . {PORT} }} accept", policy="drop"),
        table(
            "ip saddr @known accept",
            policy="drop",
            more="set known {\ntype ipv4_addr\nelements = { 10.0.0.1, 10.0.0.7 }\n}",
        ),
        table("udp dport @open accept", policy="drop", more="set open {\ntype inet_service\n}"),
        table("iifname eth* accept; ip daddr 198.18.0.3 accept", policy="drop"),
        table("limit rate 5/second accept", policy="drop"),
        table("meta mark 7 accept", policy="drop"),
        table("ip saddr 198.18.0.1 accept", policy="drop", family="ip"),
        table("", policy="drop", hook="prerouting"),
        table("", policy="drop", hook=f"ingress device {INTERFACE}", family="netdev"),
        table("", policy="drop", hook=f"ingress device {INTERFACE}"),
        table("accept") + table("", policy="drop").replace("inet f", "inet g"),
        table("jump a", more="chain a {\nip saddr 10.0.0.0/8 return\ndrop\n}"),
        table("fib daddr type local udp sport 53 accept", policy="drop"),
    ],
)
def test_dropped_by_default(host: Namespace, rules: str) -> None:
    put(host, rules)
    found = looked(host)
    assert found.certain, found
    assert found.rules
    assert all(OURS4 in one and str(PORT) in one for one in found.certain)


@pytest.mark.parametrize(
    ("rules", "noted"),
    [
        (table(f"udp dport {PORT} accept", policy="drop"), True),
        (table(f"udp dport {{ 53, {PORT} }} accept; drop"), True),
        (table(f"meta l4proto udp th dport {PORT - 1}-{PORT + 1} accept", policy="drop"), True),
        (table(f"ct state new udp dport {PORT} accept; ct state established accept; drop"), True),
        (table(f"udp dport vmap {{ {PORT} : accept, 53 : drop }}", policy="drop"), True),
        (table(f"udp sport 1024-65535 udp dport {PORT} accept", policy="drop"), True),
        (table(f"iif {INTERFACE} accept", policy="drop"), False),
        (table("iifname carom* accept", policy="drop"), False),
        (table("iif != lo udp dport 1024-65535 accept", policy="drop"), True),
        (table(f"ip daddr {OURS4} udp dport {PORT} accept", policy="drop"), True),
        (table("jump a; drop", more=f"chain a {{\nudp dport {PORT} accept\n}}"), True),
        (table("ip saddr 0.0.0.0/0 accept", policy="drop"), False),
        (table("meta nfproto ipv4 accept; drop"), False),
        (table("meta pkttype host accept; drop"), False),
        (
            table(
                "udp dport @open accept",
                policy="drop",
                more=f"set open {{\ntype inet_service\nelements = {{ {PORT} }}\n}}",
            ),
            True,
        ),
        (table("ip saddr 10.0.0.1 drop"), True),
        (table("ct state invalid drop"), True),
        (table("ip saddr @bad drop", more="set bad {\ntype ipv4_addr\n}"), True),
        (table("limit rate over 5/second drop"), True),
        (table("jump a", more="chain a {\nip saddr 10.0.0.1 reject\n}"), True),
        (table("tcp dport 22 drop"), False),
        (table("udp dport 53 drop"), False),
        (table("tcp dport != 22 drop"), False),
        (table("ip6 saddr ::/0 drop"), False),
        (table("", policy="drop", family="ip6"), False),
        (table("", policy="drop", hook="forward"), False),
        (table("", policy="drop", hook="ingress device lo", family="netdev"), False),
        (table("jump a", more="chain a {\nip saddr != 10.0.0.0/8 return\ndrop\n}"), True),
        (table("ip saddr 0.0.0.0/1 accept; ip saddr 128.0.0.0/1 accept", policy="drop"), True),
        (table("iif lo drop"), False),
        (table("ip daddr 198.18.0.3 drop"), False),
        ("table inet f {\nflags dormant\n" + table("", policy="drop").partition("\n")[2], False),
        ("table inet f {\nchain nobody_jumps_to {\ndrop\n}\n}", False),
        (table("accept; drop"), False),
        ("", False),
    ],
)
def test_not_by_default(host: Namespace, rules: str, noted: bool) -> None:
    put(host, rules)
    found = looked(host)
    assert not found.certain
    assert bool(found.rules) == noted, found


def test_versions(host: Namespace) -> None:
    """A table of one version of IP drops that one alone; one of both, both."""
    put(host, table("", policy="drop", family="ip6"))
    assert not looked(host).certain
    assert looked(host, address=OURS6).certain
    put(host, table("meta nfproto ipv6 accept", policy="drop"))
    assert looked(host).certain


@pytest.mark.parametrize(
    ("rules", "allow", "right"),
    [
        ("ip saddr 198.18.0.1 accept", "198.18.0.1/32", True),
        ("ip saddr 198.18.0.0/24 accept", "198.18.0.0/25", True),
        ("ip saddr { 198.18.0.1, 198.18.0.4 } accept", "198.18.0.4/32", True),
        ("ip saddr 198.18.0.1 accept", "198.18.0.0/24", False),
        ("ip saddr 198.18.0.1 accept", "0.0.0.0/0", False),
        ("ct state established accept", "198.18.0.1/32", False),
        ("ip saddr 198.18.0.1 limit rate 5/second accept", "198.18.0.1/32", True),
        ("ip saddr 198.18.0.1 drop; accept", "198.18.0.4/32", True),
        ("ip6 saddr 2001:db8::/32 accept", "2001:db8::/64", True),
    ],
)
def test_an_allow_list(host: Namespace, rules: str, allow: str, right: bool) -> None:
    """One that lets in no more than the firewall does is no reason to refuse."""
    put(host, table(rules, policy="drop"))
    assert (not looked(host, allow).certain) == right


@pytest.mark.parametrize("tool", ["iptables", "iptables-legacy"])
@pytest.mark.parametrize(
    ("rules", "certain", "noted"),
    [
        ("-P INPUT DROP", True, True),
        ("-A INPUT -i lo -j ACCEPT\n-A INPUT -j REJECT", True, True),
        ("-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\n-P INPUT DROP", True, True),
        (f"-P INPUT DROP\n-A INPUT -p udp --dport {PORT} -j ACCEPT", False, True),
        (f"-A INPUT -p udp -m multiport --dports 53,{PORT} -j ACCEPT\n-A INPUT -j DROP", False, 1),
        (f"-A INPUT -s 10.0.0.1 -p udp --dport {PORT} -j ACCEPT\n-P INPUT DROP", True, True),
        ("-N mine\n-A mine ! -s 10.0.0.0/8 -j RETURN\n-A mine -j DROP\n-A INPUT -j mine", 0, True),
        ("-N mine\n-A mine -p udp -j DROP\n-A INPUT -j mine", True, True),
        ("-N mine\n-A INPUT -g mine\n-A INPUT -j DROP", False, False),
        ("-t raw -A PREROUTING -p udp -m comment --comment 'a b' -j DROP", True, True),
        ("-t mangle -A PREROUTING -s 10.0.0.1 -j DROP", False, True),
        (
            "-A INPUT -p tcp -j DROP\n-A INPUT -i lo -j DROP\n-A INPUT -p udp --dport 53 -j DROP",
            0,
            0,
        ),
        ("-P FORWARD DROP", False, False),
        (f"-A INPUT -i {INTERFACE} -j ACCEPT\n-A INPUT -j DROP", False, False),
    ],
)
def test_iptables(host: Namespace, tool: str, rules: str, certain: bool, noted: bool) -> None:
    needs(tool)
    host.run("sh", "-ec", "\n".join(f"{tool} -w {rule}" for rule in rules.splitlines()))
    found = looked(host)
    assert bool(found.certain) == bool(certain), found
    assert bool(found.rules) == bool(noted), found
    assert not looked(host, address=OURS6).certain


@pytest.mark.parametrize(
    ("policy", "certain", "noted"),
    [
        ("dir in src 0.0.0.0/0 dst 0.0.0.0/0 tmpl proto esp mode tunnel", True, True),
        ("dir in action block src 0.0.0.0/0 dst 198.18.0.2/32", True, True),
        (f"dir in src 0.0.0.0/0 dst 0.0.0.0/0 proto udp dport {PORT} tmpl proto esp", True, True),
        ("dir in src 10.0.0.0/8 dst 0.0.0.0/0 tmpl proto esp mode tunnel", False, True),
        ("dir in src 0.0.0.0/0 dst 0.0.0.0/0 tmpl proto esp level use", False, False),
        ("dir in src 0.0.0.0/0 dst 0.0.0.0/0 proto udp dport 53 tmpl proto esp", False, False),
        ("dir out src 0.0.0.0/0 dst 0.0.0.0/0 tmpl proto esp mode tunnel", False, False),
        ("dir in src ::/0 dst ::/0 tmpl proto esp mode tunnel", False, False),
    ],
)
def test_ipsec(host: Namespace, policy: str, certain: bool, noted: bool) -> None:
    done = subprocess.run(
        host.argv(["ip", "xfrm", "policy", "add", *policy.split()]),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"this kernel takes no such policy: {done.stderr.decode()}")
    found = looked(host)
    assert bool(found.certain) == certain, found
    assert bool(found.rules) == noted, found


def test_nothing_to_read_with(host: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chains that no tool here can list are at least said to be there."""
    put(host, table("", policy="drop"))
    real = shutil.which
    monkeypatch.setattr(
        firewall.shutil, "which", lambda name: None if name.startswith("nft") else real(name)
    )
    found = looked(host)
    assert not found.certain
    assert any("nft is not installed" in one and "f in" in one for one in found.unread)


@pytest.mark.parametrize("hook", ["xdp", "tc"])
def test_serve_refuses(own_line: Line, hook: str) -> None:
    put(own_line.server, table("iif lo accept; ip saddr 198.18.0.1 accept", policy="drop"))
    refused = run(own_line.server, "serve", "-i", INTERFACE, "--hook", hook)
    assert refused.code == 1, refused
    assert "the firewall drops by default" in refused.stderr
    assert "nft inet f in (policy drop)" in refused.stderr
    assert "--allow" in refused.stderr
    assert "--bypass-firewall" in refused.stderr
    assert "Traceback" not in refused.stderr
    refused = run(own_line.server, "serve", "-i", INTERFACE, "--hook", hook, "--allow", "0.0.0.0/0")
    assert refused.code == 1, refused
    assert "from 0.0.0.0/0" in refused.stderr


def test_front_refuses(own_line: Line) -> None:
    put(own_line.server, table("iif lo accept; ip saddr 198.18.0.1 accept", policy="drop"))
    with Memcached(own_line.server):
        refused = run(own_line.server, "front", "-i", INTERFACE)
        assert refused.code == 1, refused
        assert "nft inet f in (policy drop)" in refused.stderr


def test_a_version_that_the_server_has_not(own_line: Line) -> None:
    """Nothing is answered at an address that the server does not receive at."""
    put(own_line.server, table("", policy="drop", family="ip6"))
    with (
        Memcached(own_line.server, addresses="0.0.0.0"),
        Carom(own_line.server, "--hook", "tc", command="front") as carom,
    ):
        assert carom.ready["notes"] == []


@pytest.mark.parametrize(
    ("accepted", "way"),
    [
        ("meta nfproto ipv4 accept", "0.0.0.0"),
        ("ip6 daddr {address6} accept", "{address6}"),
        ("ip daddr {address} accept", "0.0.0.0"),
    ],
)
def test_what_is_accepted_alone(own_line: Line, accepted: str, way: str) -> None:
    """One IP, or one address: the hint leads there."""
    known = {"address": own_line.address, "address6": own_line.address6}
    put(own_line.server, table(f"iif lo accept; {accepted.format(**known)}", policy="drop"))
    bind = way.format(**known)
    with Memcached(own_line.server):
        refused = run(own_line.server, "front", "-i", INTERFACE)
        assert refused.code == 1, refused
        assert f"--bind {bind} for " in refused.stderr
        arguments = ("--hook", "tc", "--bind", bind)
        with Carom(own_line.server, *arguments, command="front") as carom:
            assert carom.status()["services"][0]["reach"][0]["answered"]


def test_a_rule_is_named_once(own_line: Line) -> None:
    """One that translates the port's requests is found in two ways."""
    rule = f"udp dport {PORT} ip saddr 198.18.7.7 dnat ip to 198.18.7.8"
    chain = f"chain c {{\ntype nat hook prerouting priority dstnat\n{rule}\n}}"
    put(own_line.server, f"table inet f {{\n{chain}\n}}\n")
    with Carom(own_line.server, "--hook", "tc") as carom:
        (note,) = carom.ready["notes"]
        assert note.count("nft inet f c handle") == 1


def test_an_allow_list_that_repeats_it(own_line: Line) -> None:
    """It starts, and strangers are as far away as without it."""
    put(own_line.server, table(f"ip saddr {own_line.client_address} accept", policy="drop"))
    allow = f"{own_line.client_address}/32"
    with (
        Carom(own_line.server, "--hook", "tc", "--allow", allow) as carom,
        Client(own_line.client, own_line.address) as client,
    ):
        assert any("--allow alone" in note for note in carom.ready["notes"])
        assert client.ask(b"known") == client.ask(b"known")
        assert carom.counters()["hit"] == 1


def test_bypass(own_line: Line) -> None:
    put(own_line.server, table("", policy="drop"))
    with Carom(own_line.server, "--hook", "tc", "--bypass-firewall") as carom:
        (first, *_) = carom.ready["notes"]
        assert "--bypass-firewall" in first
        assert "nft inet f in (policy drop)" in first


def test_without_a_fast_path(own_line: Line) -> None:
    """What userspace alone answers has passed the firewall."""
    put(own_line.server, table("", policy="drop"))
    with Carom(own_line.server, "--hook", "none") as carom:
        assert carom.ready["notes"] == []


def test_a_change_while_it_runs(own_line: Line) -> None:
    """It is warned of once, and stands in the status."""
    with Carom(own_line.server, "--hook", "tc") as carom:
        assert carom.ready["notes"] == []
        put(own_line.server, table("", policy="drop"))
        until(lambda: "drops by default now" in carom.stderr(), "a warning")
        until(lambda: carom.status()["ready"]["notes"], "a note")
        put(own_line.server, "table inet other {\n}\n")
        put(own_line.server, "flush ruleset\n")
        until(lambda: not carom.status()["ready"]["notes"], "the note to go")
        assert carom.stderr().count("drops by default now") == 1
