# SPDX-License-Identifier: Apache-2.0
"""IPsec policies on incoming packets (ip-xfrm(8)): they drop what is not protected as required."""

from __future__ import annotations

import functools
import ipaddress
import socket
import struct
from collections.abc import Iterator

from carom.daemon.ruleset import (
    PORTS,
    UDP,
    Chain,
    Match,
    Requests,
    Rule,
    Spans,
    Verdict,
    spans_of,
    within,
)
from carom.kernel import netlink

PROTOCOL = 6  # NETLINK_XFRM, linux/netlink.h
_GETPOLICY, _GETDEFAULT = 0x15, 0x28  # XFRM_MSG_*, linux/xfrm.h
_IN = 0  # XFRM_POLICY_IN
_BLOCK = 1  # XFRM_POLICY_BLOCK
_TEMPLATES = 5  # XFRMA_TMPL
_SELECTOR = struct.Struct("=16s16s4HHBBBxxxiI")  # struct xfrm_selector; its ports are big-endian
_INFO_REST = struct.Struct("=96xIIBBBB4x")  # the rest of struct xfrm_userpolicy_info
_TEMPLATE = 64  # bytes of struct xfrm_user_tmpl
_OPTIONAL = 50  # where its `optional` is
_DEFAULTS = struct.Struct("=BBB")


class _Policy:
    def __init__(self, message: memoryview):
        daddr, saddr, dport, dmask, sport, smask, family, d_len, s_len, proto, index, _ = (
            _SELECTOR.unpack_from(message)
        )
        self.priority, _, self.direction, self.action, _, _ = _INFO_REST.unpack_from(
            message, _SELECTOR.size
        )
        self.version = 6 if family == socket.AF_INET6 else 4
        self.source = _network(saddr, s_len, self.version)
        self.destination = _network(daddr, d_len, self.version)
        self.ports = _ports(dport, dmask)
        self.source_ports = _ports(sport, smask)
        self.protocol = proto
        self.ifindex = index
        attributes = dict(netlink.attributes(message[_SELECTOR.size + _INFO_REST.size :]))
        templates = attributes.get(_TEMPLATES, b"")
        self.protects = any(
            not templates[at + _OPTIONAL] for at in range(0, len(templates), _TEMPLATE)
        )

    def __str__(self) -> str:
        return f"ip xfrm policy in src {self.source} dst {self.destination}"

    def match(self, requests: Requests) -> Match:
        if self.protocol not in (0, UDP):
            return Match.NONE
        return min(
            within(requests.source, spans_of(self.source)),
            within(requests.destination, spans_of(self.destination)),
            within(((requests.port, requests.port),), self.ports),
            within(PORTS, self.source_ports),
            Match.UNKNOWN if self.ifindex else Match.ALL,
        )


def _network(
    packed: bytes, length: int, version: int
) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    if version == 4:
        return ipaddress.IPv4Network((packed[:4], length), strict=False)
    return ipaddress.IPv6Network((packed, length), strict=False)


def _ports(port: int, mask: int) -> Spans:
    port, mask = socket.ntohs(port), socket.ntohs(mask)
    if mask == 0xFFFF:
        return ((port, port),)
    return ((0, 65_535),) if not mask else ((port & mask, port | ~mask & 0xFFFF),)


def policies() -> list[Chain]:
    """The policies of this network namespace, as a chain for each version of IP.

    Raises OSError where the kernel has no IPsec.
    """
    inbound = [_Policy(message) for message in netlink.dump(_GETPOLICY, bytes(64), PROTOCOL)]
    inbound = sorted(
        (policy for policy in inbound if policy.direction == _IN),
        key=lambda policy: policy.priority,
    )
    blocks = _blocks_by_default()
    chains = []
    for version in (4, 6):
        rules = [
            Rule(str(policy), functools.partial(_verdicts, policy))
            for policy in inbound
            if policy.version == version
        ]
        chains.append(
            Chain(
                f"ip xfrm policy in of IPv{version}",
                rules,
                "drop" if blocks else "accept",
                functools.partial(_applies, version),
                "ip xfrm policy getdefault (in block)",
            )
        )
    return chains


def _applies(version: int, requests: Requests) -> bool:
    return requests.version == version


def _verdicts(policy: _Policy, requests: Requests) -> Iterator[tuple[Match, Verdict]]:
    drops = policy.action == _BLOCK or policy.protects
    yield policy.match(requests), Verdict("drop" if drops else "accept")


def _blocks_by_default() -> bool:
    try:
        (answer,) = netlink.ask(_GETDEFAULT, _DEFAULTS.pack(0, 0, 0), PROTOCOL)
    except OSError:  # Linux before 5.15
        return False
    return bool(_DEFAULTS.unpack_from(answer)[0] == _BLOCK)
