# SPDX-License-Identifier: Apache-2.0
"""What a firewall does with a service's requests, as far as its rules tell: no I/O here.

A rule matches all requests, none or some, or nobody can tell. This tells where a request may be
dropped, and what happens to requests that no rule picks out.
"""

from __future__ import annotations

import bisect
import enum
import ipaddress
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Literal, NamedTuple

Spans = tuple[tuple[int, int], ...]
"""Ranges of numbers: the first and the last of each, both included."""

UDP = 17
PORTS: Spans = ((1024, 65_535),)
"""Source ports that are answered."""

_SOURCES: dict[int, tuple[tuple[str, str], ...]] = {
    4: (
        ("0.0.0.1", "126.255.255.255"),
        ("128.0.0.0", "223.255.255.255"),
        ("240.0.0.0", "255.255.255.254"),
    ),
    6: (("::2", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),),
}
"""Sources that are answered: not loopback, multicast, broadcast or unspecified."""

_PICKED = 7  # sources that are tried one by one
_HIGHEST = 2**129
HANDS_ON = " (hands it on)"
"""Behind the name of a rule that sends requests to somebody else."""

_DEEPEST = 64  # jumps; the kernel itself ends at 16


class Match(enum.IntEnum):
    """A condition holds for none of the requests, some, nobody can tell, or all."""

    NONE = 0
    SOME = 1
    UNKNOWN = 2
    ALL = 3

    def inverted(self) -> Match:
        """The opposite condition."""
        return {Match.NONE: Match.ALL, Match.ALL: Match.NONE}.get(self, self)


class Requests(NamedTuple):
    """The requests in question.

    `first` are a client's first ones, for which no connection is known. A `lower` interface is
    below others, whose names rules may see instead. `bridged` ones pass a bridge's rules.
    """

    version: int
    source: Spans
    destination: Spans
    port: int
    interface: str
    lower: bool = False
    first: bool = False
    bridged: bool = False


Kind = Literal["accept", "drop", "elsewhere", "jump", "goto", "return"]


class Destination(NamedTuple):
    """Where a rule sends requests on to; an address or port of None stays as it is.

    With `local` it is this host, at an address of the interface.
    """

    address: IPv4Address | IPv6Address | None = None
    port: int | None = None
    local: bool = False


class Verdict(NamedTuple):
    """What a rule does; `elsewhere` hands a request to somebody else, who may do anything.

    `to` is the new destination, if the rule changes only that.
    """

    kind: Kind
    target: str = ""
    to: Destination | None = None


class Rule(NamedTuple):
    """A rule's name, and its verdicts in order, each with the requests that it matches."""

    where: str
    verdicts: Callable[[Requests], Iterable[tuple[Match, Verdict]]]


class Chain(NamedTuple):
    """Rules in order. Chains where the kernel starts have a `policy`; `applies` says to whom."""

    where: str
    rules: Sequence[Rule]
    policy: Literal["accept", "drop"] | None = None
    applies: Callable[[Requests], bool] = lambda requests: True
    policy_where: str = ""


class Fate(NamedTuple):
    """What a chain does: where it may drop, and why it drops what no rule picks out (`why`), if so.

    `perhaps` says that some rule may still accept those.
    """

    drops: tuple[str, ...]
    why: str | None = None
    perhaps: bool = False


def all_sources(version: int) -> Spans:
    """Every source that is answered."""
    return tuple(
        (int(ipaddress.ip_address(first)), int(ipaddress.ip_address(last)))
        for first, last in _SOURCES[version]
    )


def spans_of(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> Spans:
    """A prefix as a span."""
    return ((int(network.network_address), int(network.broadcast_address)),)


def merged(spans: Iterable[tuple[int, int]]) -> Spans:
    """The same numbers in as few spans as possible, in order."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(joined[-1][1], last)
        else:
            joined.append((first, last))
    return tuple(joined)


def within(have: Spans, wanted: Spans) -> Match:
    """How many of the numbers lie in the wanted ones, which are merged()."""
    inside = touched = 0
    for first, last in have:
        at = bisect.bisect_right(wanted, (first, _HIGHEST))
        if at and wanted[at - 1][1] >= last:
            inside += 1
        elif (at and wanted[at - 1][1] >= first) or (at < len(wanted) and wanted[at][0] <= last):
            touched += 1
    if inside == len(have):
        return Match.ALL
    return Match.SOME if inside or touched else Match.NONE


def interface_match(requests: Requests, names: Iterable[str]) -> Match:
    """Whether requests come in by one of these interfaces; a final `*` or `+` matches anything."""
    for name in names:
        if name == requests.interface or (
            name[-1:] in ("*", "+") and requests.interface.startswith(name[:-1])
        ):
            return Match.UNKNOWN if requests.lower else Match.ALL
    return Match.UNKNOWN if requests.lower and set(names) != {"lo"} else Match.NONE


def state_match(requests: Requests, states: Iterable[str]) -> Match:
    """Whether a request is in one of these states of connection tracking."""
    if {state.lower() for state in states} & {"new", "untracked"}:
        return Match.ALL
    return Match.NONE if requests.first else Match.SOME


class _End(NamedTuple):
    """What happens to a request that no rule picks out, and by which rule."""

    kind: Kind
    where: str = ""
    perhaps: bool = False
    to: Destination | None = None


class _Walk:
    """One walk through a table's chains."""

    def __init__(self, chains: Mapping[str, Chain], requests: Requests):
        self._chains = chains
        self._requests = requests
        self._ends: dict[str, _End] = {}
        self.drops: dict[str, None] = {}
        self.handing: dict[str, None] = {}

    def end(self, chain: Chain, depth: int = 0) -> _End:
        """How a chain ends."""
        if chain.where not in self._ends:
            self._ends[chain.where] = _End("return")  # a loop, which the kernel refuses
            self._ends[chain.where] = self._end(chain, depth)
        return self._ends[chain.where]

    def _end(self, chain: Chain, depth: int) -> _End:
        perhaps = False
        for rule in chain.rules:
            for match, verdict in rule.verdicts(self._requests):
                if match is Match.NONE:
                    continue
                end = self._verdict(rule, verdict, depth)
                if match is Match.ALL and (end.kind != "return" or verdict.kind != "jump"):
                    return end._replace(perhaps=perhaps or end.perhaps)
                if match > Match.SOME:
                    perhaps |= end.perhaps or end.kind == "accept"
        return _End("return", "", perhaps)

    def _verdict(self, rule: Rule, verdict: Verdict, depth: int) -> _End:
        if verdict.kind in ("jump", "goto"):
            target = self._chains.get(verdict.target)
            if target is None or depth > _DEEPEST:
                self.drops[f"{rule.where} (whose chain could not be read)"] = None
                return _End("return")
            return self.end(target, depth + 1)
        if verdict.kind == "elsewhere":
            self.drops[f"{rule.where}{HANDS_ON}"] = None
            self.handing[rule.where] = None
            return _End("accept", rule.where, to=verdict.to)
        if verdict.kind == "drop":
            self.drops[rule.where] = None
        return _End(verdict.kind, rule.where)


def judge(
    chain: Chain, chains: Mapping[str, Chain], requests: Requests, *, strictly: bool = False
) -> Fate:
    """What a chain with a policy does with requests, jumping to others of its table.

    It drops by default if it drops most of the sources picked from all over; `strictly`, if it may
    drop any.
    """
    walk = _Walk(chains, requests)
    walk.end(chain)
    first = requests._replace(first=True)
    ends = [
        _final(chain, chains, first._replace(source=source)) for source in picked(requests.source)
    ]
    whole = _final(chain, chains, first)
    dropped = [end for end in (*ends, *([whole] if strictly else [])) if end.kind == "drop"]
    certain = bool(dropped) if strictly else 2 * len(dropped) > len(ends)
    drops = dict(walk.drops)
    for end in (*dropped, whole):
        if end.kind == "drop":
            drops[end.where] = None
    return Fate(tuple(drops), dropped[0].where if certain else None, whole.perhaps)


def destination(
    chain: Chain, chains: Mapping[str, Chain], requests: Requests
) -> tuple[Destination, str] | None:
    """Where a chain sends most sources' requests on to, and by which rule; None if it does not.

    Also None where it drops them, or hands them on without saying where to.
    """
    first = requests._replace(first=True)
    ends = [
        _final(chain, chains, first._replace(source=source)) for source in picked(requests.source)
    ]
    destinations = [(end.to, end.where) for end in ends if end.to and not end.perhaps]
    most = max(destinations, key=destinations.count, default=None)
    return most if most and 2 * destinations.count(most) > len(ends) else None


def handing(chain: Chain, chains: Mapping[str, Chain], requests: Requests) -> list[str]:
    """The rules that may send some requests on: some sources' only, or nobody can tell where to."""
    walk = _Walk(chains, requests._replace(first=True))
    walk.end(chain)
    return list(walk.handing)


def _final(chain: Chain, chains: Mapping[str, Chain], requests: Requests) -> _End:
    end = _Walk(chains, requests).end(chain)
    if end.kind == "return" and chain.policy == "drop":
        return _End("drop", chain.policy_where, end.perhaps)
    return end


def picked(sources: Spans) -> list[Spans]:
    """Some sources, each alone: the same ones every time, the lowest and the highest among them."""
    draw = random.Random(0)
    points = [sources[0][0], sources[-1][1]]
    sizes = [last - first + 1 for first, last in sources]
    for _ in range(_PICKED - len(points)):
        first, last = draw.choices(sources, sizes)[0]
        points.append(draw.randint(first, last))
    return [((point, point),) for point in points]
