# SPDX-License-Identifier: Apache-2.0
"""Rules of nftables, as `nft -j list ruleset` prints them (libnftables-json(5)): no I/O here."""

from __future__ import annotations

import functools
import ipaddress
import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from carom.daemon.ruleset import (
    PORTS,
    UDP,
    Chain,
    Destination,
    Match,
    Requests,
    Rule,
    Spans,
    Verdict,
    interface_match,
    merged,
    state_match,
    within,
)

HOOKS = {"prerouting", "input", "ingress"}
"""Hooks that a request passes on its way to a socket, and a hit does not."""

_VERSIONS = {"ip": (4,), "ip6": (6,), "inet": (4, 6), "netdev": (4, 6), "bridge": (4, 6)}
_TERMINAL: dict[str, Verdict] = {
    "accept": Verdict("accept"),
    "drop": Verdict("drop"),
    "reject": Verdict("drop"),
    "return": Verdict("return"),
    **dict.fromkeys(("queue", "tproxy", "fwd"), Verdict("elsewhere")),
}
_UNTOLD = {"limit", "quota", "ct count", "connlimit", "meter", "last"}
"""Statements that hold for some requests, nobody can tell which."""

_SIDE_EFFECTS = {
    *("counter", "log", "mangle", "notrack", "ct helper", "ct timeout", "ct expectation", "flow"),
    *("set", "map", "dup", "snat", "masquerade", "secmark", "comment"),
}
"""Statements after which a rule goes on for all requests."""

_XT_DROPS = {"DROP", "REJECT", "NFQUEUE", "DNAT", "REDIRECT", "TPROXY", "TARPIT"}
_HIGHEST = 2**128
_NAMES = {
    "ip": 0x0800,
    "ip6": 0x86DD,
    "arp": 0x0806,
    "vlan": 0x8100,
    "ipv4": socket.AF_INET,
    "ipv6": socket.AF_INET6,
    "host": 0,
    "unicast": 0,
    "broadcast": 1,
    "multicast": 2,
    "other": 3,
}


class _Set(NamedTuple):
    """A named set or map: its elements, and whether packets fill it."""

    elements: list[Any]
    dynamic: bool
    addresses: bool


class _Table:
    """What belongs to one table."""

    def __init__(self) -> None:
        self.chains: dict[str, dict[str, Any]] = {}
        self.rules: dict[str, list[dict[str, Any]]] = {}
        self.sets: dict[str, _Set] = {}
        self.numbers: dict[str, tuple[Spans, bool]] = {}


def tables(
    objects: Iterable[dict[str, Any]],
    skip: Iterable[tuple[str, str]] = (),
    devices: Mapping[tuple[str, str, str], tuple[str, ...]] | None = None,
) -> list[dict[str, Chain]]:
    """Each table's chains by name, without the tables (family, name) to skip.

    `devices` are those of the chains (family, table, name) that are only at some devices.
    """
    by_name: dict[tuple[str, str], _Table] = {}
    for wrapped in objects:
        for kind, content in wrapped.items():
            if kind not in ("table", "chain", "rule", "set", "map"):
                continue
            name = content["name"] if kind == "table" else content["table"]
            table = by_name.setdefault((content["family"], name), _Table())
            if kind == "table":
                continue
            if kind == "chain":
                table.chains[content["name"]] = content
            elif kind == "rule":
                table.rules.setdefault(content["chain"], []).append(content)
            else:
                types = content.get("type", "")
                flags = content.get("flags", ())
                table.sets[content["name"]] = _Set(
                    content.get("elem", []),
                    bool(
                        {"dynamic", "timeout"} & set([flags] if isinstance(flags, str) else flags)
                    ),
                    "addr" in str(types) or not isinstance(types, str | list),
                )
    skipped = set(skip)
    return [
        {name: _chain(family, table, chain, devices or {}) for name, chain in table.chains.items()}
        for (family, name), table in by_name.items()
        if family in _VERSIONS and (family, name) not in skipped
    ]


def _chain(
    family: str,
    table: _Table,
    chain: dict[str, Any],
    devices: Mapping[tuple[str, str, str], tuple[str, ...]],
) -> Chain:
    where = f"nft {family} {chain['table']} {chain['name']}"
    rules = [
        Rule(f"{where} handle {rule['handle']}", functools.partial(_verdicts, rule["expr"], table))
        for rule in table.rules.get(chain["name"], ())
    ]
    if chain.get("hook") not in HOOKS:
        return Chain(where, rules)
    policy: Literal["accept", "drop"] = "drop" if chain.get("policy") == "drop" else "accept"
    at = devices.get((family, chain["table"], chain["name"]))

    def applies(requests: Requests) -> bool:
        if requests.version not in _VERSIONS[family]:
            return False
        if family == "bridge":
            return requests.bridged
        return at is None or requests.interface in at

    return Chain(where, rules, policy, applies, f"{where} (policy {policy})")


def _verdicts(
    statements: list[Any], table: _Table, requests: Requests
) -> Iterator[tuple[Match, Verdict]]:
    match = Match.ALL
    for statement in statements:
        if isinstance(statement, str):
            statement = {statement: None}
        ((kind, body),) = statement.items()
        if kind == "match":
            match = min(match, _match(body, table, requests))
        elif kind in _UNTOLD:
            match = min(match, Match.UNKNOWN)
        elif kind == "xt":
            name = (body or {}).get("name", "")
            if (body or {}).get("type") == "target":
                if name in _XT_DROPS:
                    yield min(match, Match.UNKNOWN), Verdict("drop")
            elif name != "comment":
                match = min(match, Match.UNKNOWN)
        elif kind == "vmap":
            for key, verdict in _pairs(body["data"], table):
                held = _in(body["key"], [key], table, requests)
                yield min(match, held), _verdict(verdict)
        elif kind in _TERMINAL or kind in ("jump", "goto", "dnat", "redirect"):
            yield match, _verdict(statement)
        elif kind not in _SIDE_EFFECTS and kind != "continue":
            match = min(match, Match.UNKNOWN)
        if match is Match.NONE:
            return


def _verdict(statement: Any) -> Verdict:
    if isinstance(statement, str):
        statement = {statement: None}
    ((kind, body),) = statement.items()
    if kind == "jump":
        return Verdict("jump", body["target"])
    if kind == "goto":
        return Verdict("goto", body["target"])
    if kind in ("dnat", "redirect"):
        return Verdict("elsewhere", to=_destination(kind, body or {}))
    return _TERMINAL.get(kind, Verdict("elsewhere"))


def _destination(kind: str, body: dict[str, Any]) -> Destination | None:
    """Where a rule translates to; None where that is no one address and port."""
    address, port = body.get("addr"), body.get("port")
    try:
        return Destination(
            None if address is None else ipaddress.ip_address(address),
            None if port is None else int(port),
            kind == "redirect",
        )
    except (TypeError, ValueError):  # a range, a map
        return None


def _pairs(data: Any, table: _Table) -> Iterator[tuple[Any, Any]]:
    """Keys and verdicts of a map."""
    if isinstance(data, str):
        named = table.sets.get(data.removeprefix("@"))
        elements = named.elements if named else []
    else:
        elements = data.get("set", data) if isinstance(data, dict) else data
    for element in elements:
        is_pair = isinstance(element, list | tuple) and len(element) == 2
        if is_pair and element[1] not in ("continue", {"continue": None}):
            yield element[0], element[1]


def _match(body: dict[str, Any], table: _Table, requests: Requests) -> Match:
    op, left, right = body.get("op", "=="), body["left"], body["right"]
    if op in ("<", ">", "<=", ">="):
        have = _have(left, requests)
        if not isinstance(have, tuple):
            return _unlike(have)
        values = _spans(right)
        if not values:
            return Match.UNKNOWN
        value = values[0][0]
        span = {
            "<": (0, value - 1),
            "<=": (0, value),
            ">": (value + 1, _HIGHEST),
            ">=": (value, _HIGHEST),
        }[op]
        return within(have, (span,))
    match, sure = _equal(left, right, table, requests)
    if op != "!=":
        return match
    # `tcp dport != 53` is about TCP alone: a field that is not there is not unequal.
    return match.inverted() if sure else Match.NONE


def _equal(left: Any, right: Any, table: _Table, requests: Requests) -> tuple[Match, bool]:
    """Whether both sides are equal, and whether requests have the left side at all."""
    if _have(left, requests) is Match.NONE:
        return Match.NONE, False
    if isinstance(right, str) and right.startswith("@"):
        named = table.sets.get(right[1:])
        if named is None:
            return Match.UNKNOWN, True
        match = _in(left, named.elements, table, requests, right)
        if match is Match.NONE and named.addresses:
            match = Match.SOME  # it may be filled at any time
        elif match is Match.ALL and named.dynamic:
            match = Match.UNKNOWN  # or emptied
        return match, True
    if isinstance(right, dict) and "set" in right:
        right = right["set"]
    return _in(left, right if isinstance(right, list) else [right], table, requests), True


def _in(left: Any, values: list[Any], table: _Table, requests: Requests, name: str = "") -> Match:
    """Whether the left side is among `values`, the elements of a set if it has a `name`."""
    have = _have(left, requests)
    if name in table.numbers and isinstance(have, tuple):
        wanted, unread = table.numbers[name]
        match = within(have, wanted)
        return max(match, Match.UNKNOWN) if unread else match
    values = [_bare(value) for value in values]
    if isinstance(left, dict) and "concat" in left:
        return max(
            (
                min(
                    _in(part, [value], table, requests)
                    for part, value in zip(left["concat"], element["concat"], strict=False)
                )
                for element in values
                if isinstance(element, dict) and "concat" in element
            ),
            default=Match.NONE,
        )
    special = _special(left, values, requests)
    if special is not None:
        return special
    if not isinstance(have, tuple):
        return _unlike(have)
    if "*" in [value for value in values if isinstance(value, str)]:
        return Match.ALL
    read = [_spans(value) for value in values]
    unread = None in read
    wanted = merged(span for spans in read for span in spans or ())
    if name:
        table.numbers[name] = wanted, unread
    match = within(have, wanted)
    return max(match, Match.UNKNOWN) if unread else match


def _bare(value: Any) -> Any:
    """An element without its timeout, comment and counters."""
    if isinstance(value, dict) and "elem" in value:
        return value["elem"]["val"]
    return value


def _special(left: Any, values: list[Any], requests: Requests) -> Match | None:
    """A match of what is no number: interfaces, states, kinds of addresses; None for others."""
    if not isinstance(left, dict):
        return None
    ((kind, body),) = left.items()
    if kind == "meta" and body["key"] in ("iif", "iifname"):
        return interface_match(requests, [str(value) for value in values])
    if kind == "ct" and body.get("key") == "state":
        return state_match(requests, _words(values))
    if kind == "ct" and body.get("key") == "direction":
        return Match.ALL if "original" in values or 0 in values else Match.NONE
    if kind == "fib" and body.get("result") == "type" and "daddr" in body.get("flags", ()):
        return Match.ALL if "local" in values else Match.NONE
    if kind in ("meta", "ipsec") and body.get("key") in ("ipsec", "secpath"):
        return Match.NONE if True in values or 1 in values else Match.ALL
    return None


def _words(tree: Any) -> Iterator[str]:
    """All text in a value: `established|new` is a tree."""
    if isinstance(tree, str):
        yield tree
    for part in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _words(part)


def _unlike(have: Match | None) -> Match:
    return Match.NONE if have is Match.NONE else Match.UNKNOWN


def _have(left: Any, requests: Requests) -> Spans | Match | None:
    """The requests' values of the left side: numbers; NONE if they have none, None if unknown."""
    if not isinstance(left, dict) or len(left) != 1:
        return None
    ((kind, body),) = left.items()
    if kind == "meta":
        return _one(
            {
                "l4proto": UDP,
                "nfproto": socket.AF_INET if requests.version == 4 else socket.AF_INET6,
                "protocol": 0x0800 if requests.version == 4 else 0x86DD,
                "pkttype": 0,
            }.get(body["key"])
        )
    if kind != "payload" or "field" not in body:
        return None
    protocol, field = body["protocol"], body["field"]
    if protocol in ("ip", "ip6"):
        if (protocol == "ip") != (requests.version == 4):
            return Match.NONE
        if field in ("saddr", "daddr"):
            return requests.source if field == "saddr" else requests.destination
        return _one(UDP) if field in ("protocol", "nexthdr") else None
    if protocol in ("udp", "th"):
        if field == "dport":
            return _one(requests.port)
        return PORTS if field == "sport" else None
    if protocol == "ether":
        return _one({"type": 0x0800 if requests.version == 4 else 0x86DD}.get(field))
    return None if protocol == "vlan" else Match.NONE  # another protocol's


def _one(value: int | None) -> Spans | None:
    return None if value is None else ((value, value),)


def _spans(value: Any) -> Spans | None:
    """The numbers that a value stands for; None for what cannot be read."""
    if isinstance(value, bool):
        return ((int(value), int(value)),)
    if isinstance(value, int):
        return ((value, value),)
    if isinstance(value, str):
        return _spans_of_text(value)
    if isinstance(value, dict) and "prefix" in value:
        first = _spans(value["prefix"]["addr"])
        if not first:
            return None
        bits = 128 if ":" in str(value["prefix"]["addr"]) else 32
        size = 1 << (bits - value["prefix"]["len"])
        return ((first[0][0], first[0][0] + size - 1),)
    if isinstance(value, dict) and "range" in value:
        low, high = map(_spans, value["range"])
        return ((low[0][0], high[0][1]),) if low and high else None
    if isinstance(value, dict) and "set" in value:
        parts = [_spans(_bare(element)) for element in value["set"]]
        return None if None in parts else tuple(span for part in parts for span in part or ())
    return None


def _spans_of_text(text: str) -> Spans | None:
    try:
        number = int(ipaddress.ip_address(text))
    except ValueError:
        if text in _NAMES:
            return _one(_NAMES[text])
        if text.isdigit():
            return _one(int(text))
        for look in (socket.getprotobyname, lambda name: socket.getservbyname(name, "udp")):
            try:
                return _one(look(text))
            except OSError:
                continue
        return None
    return _one(number)
