# SPDX-License-Identifier: Apache-2.0
"""What cannot be had from a real ruleset everywhere: rules that a kernel or tool may lack."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from carom.daemon import iptables, nftables, ruleset
from carom.daemon.ruleset import Fate, Match, Requests

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
