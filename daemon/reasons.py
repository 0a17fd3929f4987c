# SPDX-License-Identifier: Apache-2.0
"""Why a service that gets requests has no hits: the most frequent reason, in words.

Policy alone: nothing here asks the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from carom.daemon.options import Options
from carom.daemon.outcomes import ANSWERED
from carom.kernel.abi import REPLY_MAX, SOURCE_PORT_MIN, TTL_FLOOR, Event, Verdict

LEAST = 10
"""Fewer requests than this may be an accident."""


class Counts(NamedTuple):
    """What was counted for one service, over some time.

    `strays` are packets to its port that no service was found for; `stray` says how most of them
    came. `replies` are its server's, and `kept` those that went into the cache. `events` are those
    at the socket's edge of a fronted server. Where `shared`, the last two are those of all fronted
    services together. `own` are counters of userspace, as `carom status` names them. `swept` are
    entries that were removed as dead, and `evicted` those that made room for others; 0 where they
    may be other services'.
    """

    verdicts: Mapping[Verdict, int]
    strays: int = 0
    stray: str = ""
    replies: int = 0
    kept: int = 0
    events: Mapping[Event, int] | None = None
    shared: bool = False
    own: Mapping[str, int] = {}
    swept: int = 0
    evicted: int = 0


class Reason(NamedTuple):
    """How many requests there were, what happened to most, and why."""

    requests: int
    what: str
    why: str


_WHY: Mapping[Verdict, str] = {
    Verdict.MISS_EXPIRED: "their replies had reached the end of their time: --ttl, or the server's",
    Verdict.MISS_VOID: "their replies were void: what they say is written as often as it is read, "
    "or something voids the whole service (the edge's counters, and `voids by`)",
    Verdict.MISS_TORN: "their replies were replaced as they were read",
    Verdict.PASS_MAC: "their frames are for another MAC than the interface's own, as a bridge's "
    "or a virtual router's (VRRP) are",
    Verdict.PASS_SOURCE_NOBODY: "they come from addresses that nobody has (0.0.0.0/8, ::)",
    Verdict.PASS_SOURCE_LOOPBACK: "they come from loopback addresses",
    Verdict.PASS_SOURCE_GROUP: "they come from multicast, broadcast or reserved addresses",
    Verdict.PASS_SOURCE_MAC: "they come from multicast or broadcast MACs",
    Verdict.PASS_SOURCE_LOW: f"their source ports are below {SOURCE_PORT_MIN}, where a reply could "
    "reach a well-known service",
    Verdict.PASS_SOURCE_SERVED: "their source ports are a service's here, whose replies to each "
    "other could go in a loop",
    Verdict.PASS_SOURCE_OWN: "they come from this host's own addresses, or its networks' broadcast",
    Verdict.PASS_TTL: f"their TTL, or hop limit, is below {TTL_FLOOR}",
    Verdict.PASS_OFF: "the service's fast path is off",
    Verdict.PASS_LEASE: "the daemon does not renew its lease: it is stopped, or gets no CPU",
    Verdict.PASS_CPU: "the replies a second of their CPU are used up: --max-hits-per-cpu",
    Verdict.PASS_SIZE: "their payloads are too long, or too short, to be keys",
    Verdict.PASS_CHECKSUM: "their checksums are wrong, or missing",
    Verdict.PASS_ROOM: "their replies are too long for the interface's MTU or its driver",
    Verdict.PASS_AMPLIFY: "their replies are too many times as long as they are: --amplify",
    Verdict.PASS_REQUEST: "they are of a kind that is not answered from a cache "
    "(docs/protocols.md)",
    Verdict.PASS_WRITE: "they are writes",
    Verdict.PASS_ALLOW: "their sources are none that --allow names",
    Verdict.PASS_RATE: "the bytes of replies a second are used up: --prefix-rate, --total-rate",
    Verdict.PASS_MTU: "their replies are longer than their way is known to take: --max-reply",
    Verdict.PASS_NEIGHBOUR: "they come from another MAC than replies to them would go to, which "
    "--allow asks for",
    Verdict.PASS_RESPONSES: "the replies a second are used up: --responses-per-second",
    Verdict.PASS_COOKIE: "they have a cookie that is the server's to judge: --cookie-secret-file",
    Verdict.PASS_SHADOW: "all hits go up to be compared: --shadow 1",
    Verdict.DROP_LOOP: "they are replies that echo each other: --echoes",
    Verdict.FAULT: "the kernel failed where it cannot: please report that",
}

_FULL = "the cache is full: --capacity, --memory"
_NOT_ADMITTED = "the cache is full, and no key is asked for twice: --capacity, --memory"
_HELD = "their keys, or the whole service, were written a moment before"

_OWN: Mapping[str, str] = {
    "handler_errors": "the handler fails at them, and they go unanswered: the log says how",
    "send_errors": "the server's replies cannot be sent: the log says why",
    "unfit": f"their replies are longer than {REPLY_MAX:,} bytes, or they can be no keys",
    "refused": _FULL,
    "not_admitted": _NOT_ADMITTED,
    "held": _HELD,
    "left": "the handler says that their replies are not to be kept (cache=False, or a ttl of 0)",
    "silent": "the server has no reply to them (its handler returns None), or does not get them",
    "ended": "their items end within two seconds, or are gone, when the server is asked",
    "unanswered": "the server does not say in time when their items end: --exptime",
}
"""Why a Python service's replies are not kept; the last two: why learned ones are not given."""

_NOT_KEPT: Mapping[Event, str] = {
    Event.UNASKED: "replies leave the server's sockets that no request was seen for there",
    Event.UNLEARNABLE: "the server's replies are none that are kept: errors, absent keys, "
    "answers without a name's records, replies of several parts or of more bytes than there is "
    "room for",
    Event.FULL: _FULL,
    Event.NOT_ADMITTED: _NOT_ADMITTED,
    Event.HELD: _HELD,
    Event.NOT_ASKED: "the daemon cannot ask the server fast enough when its items end",
    Event.ENDING: "their items may end, and the server does not say when: --exptime",
}


def reason(counts: Counts, options: Options, server: str) -> Reason | None:
    """Why there were no hits; None if there were hits, or hardly any requests.

    `server` says who the server is.
    """
    seen = {
        verdict: count
        for verdict, count in counts.verdicts.items()
        if verdict != Verdict.PASS_TO_TC
    }
    requests = sum(seen.values()) + counts.strays
    if any(counts.verdicts.get(verdict, 0) for verdict in ANSWERED):
        return None
    if requests < LEAST:
        return _by_another_way(counts, requests)
    if counts.strays > max(seen.values(), default=0):
        return Reason(requests, "pass_service", counts.stray)
    most = max(seen, key=lambda verdict: seen[verdict])
    if most == Verdict.MISS:
        return Reason(requests, "miss", _of_misses(seen[most], counts, server))
    if most == Verdict.MISS_EXPIRED and (never := _never_given(seen[most], counts)):
        return Reason(requests, "miss_expired", never)
    if most == Verdict.PASS_AMPLIFY:
        return Reason(requests, "pass_amplify", f"{_WHY[most]} {options.amplify}")
    return Reason(requests, most.name.lower(), _WHY.get(most, "they are not understood"))


def lost(name: str, hits: int, sent: int) -> Reason | None:
    """Why native XDP's hits do not get to the other end of a veth, which got `sent` packets."""
    if hits < LEAST or 2 * sent > hits:
        return None
    why = (
        f"hits do not get to the other end of {name}, a veth: it has no XDP program, which "
        "native XDP's replies need; --mode generic needs none"
    )
    return Reason(hits, "lost", why)


def _by_another_way(counts: Counts, requests: int) -> Reason | None:
    if counts.replies - requests < LEAST:
        return None
    why = (
        "its server answers requests that do not come in by the interfaces that carom is on: by "
        "others, which -i may name too, or from this host itself"
    )
    return Reason(counts.replies, "elsewhere", why)


def _never_given(misses: int, counts: Counts) -> str:
    """Why learned replies wait in the cache, and are not given: their server was asked in vain."""
    lost = {name: counts.own.get(name, 0) for name in ("ended", "unanswered")}
    most = max(lost, key=lambda name: lost[name])
    return _OWN[most] if 2 * lost[most] >= misses else ""


def _of_misses(misses: int, counts: Counts, server: str) -> str:
    """Why replies to these requests are not in the cache."""
    if 2 * counts.kept >= misses and not counts.shared:
        return _never_given(misses, counts) or _of_kept(counts)
    if counts.events is None:
        return _of_ours(misses, counts)
    lost = {event: counts.events.get(event, 0) for event in _NOT_KEPT}
    most = max(lost, key=lambda event: lost[event])
    all = "; counted for all fronted services together" if counts.shared else ""
    if counts.shared and counts.kept and counts.kept >= lost[most]:
        return f"they are not asked for twice, as far as the edge can tell{all}"
    if not lost[most]:
        others = counts.events.get(Event.STRANGER, 0)
        return (
            f"no reply to them leaves the server's sockets ({server}): it does not get them, "
            "or does not answer"
            + (", or a socket at its port that is not the server's does" if others else "")
        )
    who = f" ({server})" if most == Event.UNASKED and not counts.shared else ""
    return f"{_NOT_KEPT[most]}{who}{all}"


def _of_kept(counts: Counts) -> str:
    """Why replies that are kept are not given."""
    if 2 * counts.swept >= counts.kept:
        return (
            "their replies are kept, and reach the end of their time, or are void, before they are "
            "asked for again: --ttl, or the server's"
        )
    if 2 * counts.evicted >= counts.kept:
        return (
            "their replies are kept, and make room for others before they are asked for again "
            "(--capacity, --memory), or for newer ones to the same requests (carom why REQUEST)"
        )
    return "hardly any is asked for twice: most of their replies are kept"


def _of_ours(misses: int, counts: Counts) -> str:
    """Why a Python service's replies are not kept."""
    own = {name: counts.own.get(name, 0) for name in _OWN}
    done = counts.kept + sum(own[name] for name in ("unfit", "refused", "not_admitted", "held"))
    failed = own["handler_errors"] + own["send_errors"]
    own |= {"left": counts.replies - done, "silent": misses - counts.replies - failed}
    return _OWN[max(own, key=lambda name: own[name])]
