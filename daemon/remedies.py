# SPDX-License-Identifier: Apache-2.0
"""For each verdict on one request: what it says, and what would make it another.

Policy alone: nothing here asks the kernel. `reasons.py` has the same of many requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from carom.kernel.abi import SOURCE_PORT_MIN, TTL_FLOOR, Stop, Verdict


class Remedy(NamedTuple):
    """What a verdict says, and what would change it; empty where nothing should."""

    what: str
    change: str = ""


_SERVED = "the server answers it"

REMEDIES: Mapping[Verdict, Remedy] = {
    Verdict.HIT: Remedy("answered from the cache"),
    Verdict.BOUNCE: Remedy("answered with its own payload"),
    Verdict.SLIP: Remedy(
        "beyond the responses a second: answered with an empty reply that says to ask over TCP",
        "a higher --responses-per-second",
    ),
    Verdict.MISS: Remedy(
        f"not in the cache: {_SERVED}",
        "the same request again: its reply is kept, if it is of a kind that is (docs/protocols.md)",
    ),
    Verdict.MISS_EXPIRED: Remedy(
        f"in the cache, but older than its time: {_SERVED}", "a longer --ttl, or the server's own"
    ),
    Verdict.MISS_VOID: Remedy(
        f"in the cache, but written, invalidated or flushed since: {_SERVED}",
        "the same request again; if it is void each time, `carom status` names who voids",
    ),
    Verdict.MISS_TORN: Remedy(
        f"in the cache, but it is being replaced: {_SERVED}", "the same request again"
    ),
    Verdict.PASS_TRUNCATED: Remedy("the frame ends before a header does", "a whole frame"),
    Verdict.PASS_ETHERTYPE: Remedy(
        "neither IPv4 nor IPv6, or behind more than two VLAN tags", "at most two tags"
    ),
    Verdict.PASS_VERSION: Remedy(
        "its IP header is not what its EtherType says, or too short", "a right IP header"
    ),
    Verdict.PASS_OPTIONS: Remedy(
        "it has IPv4 options, or IPv6 extension headers", "a request without them"
    ),
    Verdict.PASS_FRAGMENT: Remedy(
        "it is a fragment", "a request that fits one packet, or a larger MTU on its way"
    ),
    Verdict.PASS_PROTOCOL: Remedy("it is not UDP", "a request over UDP"),
    Verdict.PASS_LENGTH: Remedy(
        "the lengths of frame, IP and UDP disagree, or several datagrams are in one packet",
        "lengths that agree; no receive offload that merges datagrams (ethtool -K)",
    ),
    Verdict.PASS_CHECKSUM: Remedy(
        "its IPv4 or UDP checksum is wrong, or missing where it must not be",
        "a right checksum (a capture on the sender has it before the device has made it)",
    ),
    Verdict.PASS_SERVICE: Remedy(
        "no service is answered at that address, port, interface and VLAN tags",
        "an address and a port of `carom status`; for more addresses, --bind",
    ),
    Verdict.PASS_MAC: Remedy(
        "its frame is for another MAC than the interface's own",
        "a frame for this host; on a bridge or a virtual router (VRRP) another interface",
    ),
    Verdict.PASS_SOURCE_NOBODY: Remedy(
        "it comes from an address that nobody has (0.0.0.0/8, ::)", "a client's own address"
    ),
    Verdict.PASS_SOURCE_LOOPBACK: Remedy(
        "it comes from a loopback address", "a client's own address"
    ),
    Verdict.PASS_SOURCE_GROUP: Remedy(
        "it comes from a multicast, broadcast or reserved address", "a client's own address"
    ),
    Verdict.PASS_SOURCE_MAC: Remedy(
        "its frame comes from a multicast or broadcast MAC", "a client's own MAC"
    ),
    Verdict.PASS_SOURCE_LOW: Remedy(
        f"its source port is below {SOURCE_PORT_MIN}, where a reply could reach a service",
        f"a source port of {SOURCE_PORT_MIN} or more",
    ),
    Verdict.PASS_SOURCE_SERVED: Remedy(
        "its source port is a service's here: their replies to each other could go in a loop",
        "another source port",
    ),
    Verdict.PASS_SOURCE_OWN: Remedy(
        "it comes from an address of this host, or its networks' broadcast",
        "a client on another host (or in another network namespace)",
    ),
    Verdict.PASS_TTL: Remedy(
        f"its TTL, or hop limit, is below {TTL_FLOOR}",
        f"a client that is nearer, or sends with {TTL_FLOOR} or more left",
    ),
    Verdict.PASS_OFF: Remedy(
        "the service's fast path is off",
        "--fast cache; or a new start, where `carom status` says that a differing reply did it",
    ),
    Verdict.PASS_LEASE: Remedy(
        "the daemon has not renewed its lease: it is stopped, or gets no CPU",
        "a daemon that runs: SIGCONT, or more CPU for it",
    ),
    Verdict.PASS_CPU: Remedy(
        f"its CPU has given as many replies a second as one may: {_SERVED}",
        "a higher --max-hits-per-cpu, or requests that more CPUs receive",
    ),
    Verdict.PASS_SIZE: Remedy(
        "its payload is empty, or too long for a key", "a payload of 1 to 256 bytes (raw)"
    ),
    Verdict.PASS_REQUEST: Remedy(
        "it is of a kind that is not answered from a cache, or the stored reply does not answer it",
        "what docs/protocols.md names for its protocol",
    ),
    Verdict.PASS_WRITE: Remedy("it writes: what it writes is void from then on"),
    Verdict.PASS_AMPLIFY: Remedy(
        "its reply is too many times as long as it is", "a larger --amplify"
    ),
    Verdict.PASS_ALLOW: Remedy("its source is none that --allow names", "--allow its prefix"),
    Verdict.PASS_NEIGHBOUR: Remedy(
        "its source is allowed, but a reply would be sent to another MAC than it came from",
        "a frame from the neighbour or gateway that `ip route get` and `ip neigh` name",
    ),
    Verdict.PASS_RESPONSES: Remedy(
        "the responses a second of its prefix are used up", "a higher --responses-per-second"
    ),
    Verdict.PASS_COOKIE: Remedy(
        "it has a cookie that is the server's to judge", "--cookie-secret-file"
    ),
    Verdict.PASS_ROOM: Remedy(
        "its reply is longer than the interface's MTU, or than its driver has room for",
        "a larger MTU, or --hook tc",
    ),
    Verdict.PASS_TO_TC: Remedy("XDP has no room for its reply, and leaves it to TC ingress"),
    Verdict.PASS_MTU: Remedy(
        "its reply is longer than the way back is known to take",
        "a larger --max-reply, or forwarding on, so that the kernel can be asked",
    ),
    Verdict.PASS_RATE: Remedy(
        "the bytes of replies a second are used up", "a higher --prefix-rate or --total-rate"
    ),
    Verdict.PASS_SHADOW: Remedy(
        f"a hit that goes up all the same (--shadow): {_SERVED}, and both replies are compared",
        "the same request again",
    ),
    Verdict.DROP_LOOP: Remedy("one of many replies that echo each other: it ends a loop"),
    Verdict.FAULT: Remedy("the kernel failed where it cannot", "please report it"),
}

GROWN = "it is longer than its request: a driver without room for that has XDP leave it to TC"
"""Of a hit at XDP that `carom why` cannot be sure of: only the driver knows its room."""

STOPS: Mapping[Stop, str] = {
    Stop.PARSE: "a UDP datagram, whole",
    Stop.SERVICE: "a service's address and port",
    Stop.MAC: "for this host's MAC",
    Stop.SOURCE: "a source that may be answered",
    Stop.HEADER: "TTL and IPv4's checksum",
    Stop.OFF: "the fast path is on",
    Stop.LEASE: "the daemon is alive",
    Stop.CPU: "replies a second of its CPU",
    Stop.KEY: "a request that can be answered",
    Stop.LOOK_UP: "its reply, from the cache",
    Stop.AMPLIFY: "not too long for its request",
    Stop.MAPS: "nobody of ours, and allowed",
    Stop.CHECKSUM: "UDP's checksum",
    Stop.ADAPT: "the reply to this very request",
    Stop.COOKIE: "its cookie",
    Stop.RESPONSES: "responses a second",
    Stop.LENGTH: "a length that the way back takes",
    Stop.RATE: "bytes a second",
    Stop.ROOM: "room in the frame",
    Stop.LOOP: "no loop",
    Stop.ANSWER: "answered",
}
"""What is looked at there."""
