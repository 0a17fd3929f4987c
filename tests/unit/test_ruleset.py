# SPDX-License-Identifier: Apache-2.0
"""What cannot be had from a real ruleset everywhere: rules that a kernel or tool may lack."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from carom.daemon import iptables, nftables, ruleset
from carom.daemon.ruleset import Destination, Fate, Match, Requests

PORT = 51141
OURS = int(ipaddress.ip_address("198.18.0.2"))
_DPORT = {"payload": {"protocol": "udp", "field": "dport"}}
REQUESTS = Requests(4, ruleset.all_sources(4), ((OURS, OURS),), PORT, "eth0")


def fate(*rules: list[Any], policy: str = "drop", requests: Requests = REQUESTS) -> Fate:
    """Of a chain with these rules, as nft's JSON has them."""
    family = {"family": "inet", "table": "f"}
    objects: list[dict[str, Any]] = [
        {"chain": {**family, "name": "in", "hook": "input", "policy": policy}},
        *({"rule": {**family, "chain": "in", "handle": 7, "expr": rule}} for rule in rules),
    ]
    (table,) = nftables.tables(objects)
    return ruleset.judge(table["in"], table, requests)


@pytest.mark.parametrize(
    ("have", "wanted", "match"),
    [
        (((1, 5),), ((1, 5),), Match.ALL),
        (((1, 5),), ((0, 3), (4, 9)), Match.SOME),
        (((1, 5),), ((5, 9),), Match.SOME),
        (((1, 5),), ((6, 9),), Match.NONE),
        (((1, 5), (8, 9)), ((0, 5),), Match.SOME),
        (((3, 3),), (), Match.NONE),
    ],
)
def test_within(have: ruleset.Spans, wanted: ruleset.Spans, match: Match) -> None:
    assert ruleset.within(have, wanted) is match


def test_merged() -> None:
    assert ruleset.merged([(4, 9), (0, 3), (11, 12), (12, 20)]) == ((0, 9), (11, 20))


@pytest.mark.parametrize(
    "rule",
    [
        [{"queue": {"num": 1}}],
        [{"tproxy": {"port": 5}}],
        [{"xt": {"type": "target", "name": "DROP"}}],
        [{"jump": {"target": "a chain of which nothing is known"}}],
    ],
)
def test_who_may_drop(rule: list[Any]) -> None:
    found = fate(rule, policy="accept")
    assert found.why is None
    assert found.drops


@pytest.mark.parametrize(
    "rule",
    [
        [{"xt": {"type": "match", "name": "comment"}}, {"accept": None}],
        [{"match": {"op": "==", "left": {"meta": {"key": "ipsec"}}, "right": False}}, "accept"],
        [{"match": {"op": ">=", "left": _DPORT, "right": PORT}}, {"accept": None}],
        [{"match": {"op": "==", "left": _DPORT, "right": {"range": [1, 65535]}}}, "accept"],
    ],
)
def test_accepted(rule: list[Any]) -> None:
    assert fate(rule).why is None


@pytest.mark.parametrize(
    "rule",
    [
        [{"xt": {"type": "match", "name": "hashlimit"}}, {"accept": None}],
        [{"something new": {}}, {"accept": None}],
        [{"match": {"op": "==", "left": {"something": {"new": 1}}, "right": 7}}, "accept"],
        [{"match": {"op": "==", "left": _DPORT, "right": {"something": "new"}}}, "accept"],
    ],
)
def test_not_accepted(rule: list[Any]) -> None:
    assert fate(rule).why


def test_an_interface_below_others() -> None:
    """What rules see is the upper interface's name, which is not known here."""
    rule = [
        {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth0"}},
        {"accept": None},
    ]
    assert fate(rule).why is None
    found = fate(rule, requests=REQUESTS._replace(lower=True))
    assert found.why
    assert found.perhaps


SAVED = """*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
-A INPUT -m set ! --match-set known src -j DROP
-A INPUT -p udp -m udp --sport 1024:65535 --dport 51000: -j {target}
COMMIT
"""


@pytest.mark.parametrize(("target", "certain"), [("ACCEPT", False), ("LOG", True)])
def test_saved(target: str, certain: bool) -> None:
    (table,) = iptables.tables("iptables", SAVED.format(target=target))
    found = ruleset.judge(table["INPUT"], table, REQUESTS)
    assert bool(found.why) == certain
    assert found.drops


def to(address: str | None, port: int | None, *, local: bool = False) -> Destination:
    """Where requests are sent on to."""
    return Destination(ipaddress.ip_address(address) if address else None, port, local)


ON = {"match": {"op": "==", "left": _DPORT, "right": PORT}}
FROM = {"payload": {"protocol": "ip", "field": "saddr"}}
SOME = {"match": {"op": "==", "left": FROM, "right": {"prefix": {"addr": "10.0.0.0", "len": 8}}}}
OTHERS = {"match": {"op": "!=", "left": FROM, "right": {"prefix": {"addr": "10.0.0.0", "len": 8}}}}
THERE = {"dnat": {"addr": "198.18.3.2", "port": 53}}


@pytest.mark.parametrize(
    ("rules", "wanted"),
    [
        ([[ON, THERE]], to("198.18.3.2", 53)),
        ([[ON, {"dnat": {"addr": "198.18.3.2"}}]], to("198.18.3.2", None)),
        ([[ON, {"dnat": {"port": 53}}]], to(None, 53)),
        ([[ON, {"redirect": {"port": 5353}}]], to(None, 5353, local=True)),
        ([[ON, {"redirect": None}]], to(None, None, local=True)),
        ([[SOME, {"dnat": {"addr": "198.18.3.9"}}], [ON, THERE]], to("198.18.3.2", 53)),
        ([[OTHERS, THERE]], to("198.18.3.2", 53)),
        ([[SOME, THERE]], None),
        ([[ON, {"accept": None}], [ON, THERE]], None),
        ([[ON, {"dnat": {"addr": "198.18.3.2", "port": {"range": [53, 55]}}}]], None),
        ([[ON, {"dnat": {"addr": {"map": {}}, "port": 53}}]], None),
        ([[{"match": {"op": "==", "left": _DPORT, "right": 1}}, THERE]], None),
    ],
)
def test_destination(rules: list[Any], wanted: Destination | None) -> None:
    family = {"family": "ip", "table": "t"}
    objects: list[dict[str, Any]] = [
        {"chain": {**family, "name": "c", "hook": "prerouting", "policy": "accept"}},
        *({"rule": {**family, "chain": "c", "handle": 7, "expr": rule}} for rule in rules),
    ]
    (table,) = nftables.tables(objects)
    found = ruleset.destination(table["c"], table, REQUESTS)
    assert (found and found[0]) == wanted


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("DNAT --to-destination 198.18.3.2:53", to("198.18.3.2", 53)),
        ("DNAT --to-destination 198.18.3.2", to("198.18.3.2", None)),
        ("DNAT --to-destination :53 --random", to(None, 53)),
        ("DNAT --to-destination [2001:db8::2]:53", to("2001:db8::2", 53)),
        ("DNAT --to-destination 2001:db8::2", to("2001:db8::2", None)),
        ("DNAT --to-destination 198.18.3.2-198.18.3.9:53", None),
        ("DNAT --to-destination 198.18.3.2:53-55", None),
        ("REDIRECT --to-ports 5353", to(None, 5353, local=True)),
        ("REDIRECT --to-ports 5353-5360", None),
        ("REDIRECT", to(None, None, local=True)),
        ("ACCEPT", None),
    ],
)
def test_saved_destination(words: str, wanted: Destination | None) -> None:
    text = f"*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p udp --dport {PORT} -j {words}\n"
    (table,) = iptables.tables("iptables", text)
    found = ruleset.destination(table["PREROUTING"], table, REQUESTS)
    assert (found and found[0]) == wanted
