# SPDX-License-Identifier: Apache-2.0
"""The programs at a route's control group, and their maps: lead.h is the other side.

They are attached without a link: what they keep from leaving must not leave because the process
that attached them has ended. They go with the group and the last socket that was made in it.
Another process finds their maps by the programs that are there.
"""

from __future__ import annotations

import enum
import ipaddress
import itertools
import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from carom.errors import BPFError
from carom.kernel import forked, libbpf, values
from carom.kernel.bpf import Module
from carom.kernel.compiled import Hook
from carom.kernel.netlink import Address, Network
from carom.kernel.recipe import Recipe
from carom.kernel.resource import Resource

ADDRESSES_MAX, FURTHER_MAX = 16, 4_096
"""Of the interface's addresses: those of each family in the policy, and others; from more than
these nothing leaves."""

_HERE = Path(__file__).resolve().parent
_ATTACHED: dict[str, Hook] = {
    "route_out": "cgroup",  # first: nothing leaves before it is there
    "route_made": "create",
    "route_closed": "release",
    "route_in": "cgroup",
    "route_connect4": "connect4",
    "route_connect6": "connect6",
    "route_send4": "sendmsg4",
    "route_send6": "sendmsg6",
    "route_receive4": "recvmsg4",
    "route_receive6": "recvmsg6",
    "route_peer4": "getpeername4",
    "route_peer6": "getpeername6",
}
_WHERE = {"route_out": "egress", "route_in": "ingress"}
_POLICY = struct.Struct("=QIIII16s64s256s")
_LED, _PROCESS = struct.Struct("=QII16s"), struct.Struct("=16sIIII6Q6Q")
_WORD, _LAN = struct.Struct("=I"), struct.Struct("=I16s")
_MAPPED = bytes(10) + b"\xff\xff"  # before an IPv4 address among IPv6 ones (RFC 4291, 2.5.5.2)
_SIZES = {"policies": _POLICY.size, "sockets": _LED.size, "processes": _PROCESS.size, "further": 1}


class Why(enum.IntEnum):
    """Why something was refused, in the order of enum why."""

    NETNS, MPTCP, STRAY, SOURCE, IPV6, DNS = range(6)


NO_IPV6, OTHER_NETNS, LAN, FURTHER = 1, 2, 4, 8  # a policy's flags


class Policy(NamedTuple):
    """What is true of a route now: struct policy. An `ifindex` of 0: its interface is gone."""

    netns: int
    mark: int
    ifindex: int
    flags: int
    dns: tuple[Address, ...]
    sources: tuple[Address, ...]

    def packed(self) -> bytes:
        """As the programs read it; what is more than ADDRESSES_MAX is `further`."""
        four, six = (b"".join(one.packed for one in self._of(version)) for version in (4, 6))
        dns4, dns6 = (
            next((one.packed for one in self.dns if one.version == version), bytes(length))
            for version, length in ((4, 4), (6, 16))
        )
        (resolver,) = _WORD.unpack(dns4)
        flags = self.flags | FURTHER * bool(self.further())
        words = self.netns, self.mark, self.ifindex, flags, resolver, dns6
        return _POLICY.pack(*words, four[: 4 * ADDRESSES_MAX], six[: 16 * ADDRESSES_MAX])

    def further(self) -> list[bytes]:
        """The addresses that are in a map of their own, as the programs read them."""
        beyond = (one for version in (4, 6) for one in self._of(version)[ADDRESSES_MAX:])
        return [_mapped(one) for one in itertools.islice(beyond, FURTHER_MAX)]

    def _of(self, version: int) -> list[Address]:
        return [one for one in self.sources if one.version == version]


class Process(NamedTuple):
    """What a process' sockets did.

    `ifindex` is where its last packet left, `strayed` where its last refused one would have; `open`
    is how many sockets it made that are not closed.
    """

    name: str
    uid: int
    ifindex: int
    strayed: int
    open: int
    out_packets: int
    out_bytes: int
    in_packets: int
    in_bytes: int
    refused: dict[Why, int]


def recipe() -> Recipe:
    """The programs, as they come with carom."""
    return Recipe(_HERE / "lead.c", include=(_HERE,), hooks=_ATTACHED, packaged="lead")


def attach(group: int) -> Maps:
    """Attach all programs at a group's descriptor: until a policy is said, they refuse everything.

    Raises BPFError, PrivilegeError.
    """
    with Module(recipe()) as module:
        module.load(_ATTACHED)
        for name, hook in _ATTACHED.items():
            try:
                where = libbpf.CGROUP[_WHERE.get(name, hook)]
                libbpf.attach_cgroup(module.program(name), group, where)
            except OSError as error:
                raise BPFError(
                    f"{name} cannot be attached at a control group: {error.strerror}",
                    hint="that needs Linux 5.18 or newer with control groups (CONFIG_CGROUP_BPF)",
                ) from error
    found = find(group)
    if found is None:
        raise BPFError("the programs of a route are gone again", hint="does another carom run?")
    return found


def find(group: int) -> Maps | None:
    """The maps of the programs that are attached at a group; None where there are none.

    Raises BPFError for programs of another carom, PrivilegeError.
    """
    try:
        maps: dict[str, int] = {}
        for where in ("egress", "create", "connect4"):
            for number in libbpf.programs_at(group, libbpf.CGROUP[where]):
                if libbpf.program_name(number).startswith("route_"):
                    maps |= _maps_of(number, leaving=maps)
    except OSError as error:
        raise BPFError(f"a control group's programs cannot be read: {error.strerror}") from error
    if not maps:
        return None
    for name, size in _SIZES.items():
        if name not in maps or libbpf.map_shape(maps[name])[0].value_size != size:
            Maps(maps).close()
            raise BPFError(
                "the programs of this route are another carom's",
                hint="end its programs and start it anew: carom route stop --kill",
            )
    return Maps(maps)


def _maps_of(program_id: int, leaving: Mapping[str, int]) -> dict[str, int]:
    program = libbpf.program_by_id(program_id)
    try:
        found = libbpf.maps_of(program)
    finally:
        os.close(program)
    for name in found.keys() & leaving.keys():
        forked.close(found.pop(name))
    return found


class Maps(Resource):
    """What the programs of a route are told, and what they count."""

    def __init__(self, maps: dict[str, int]):
        self._maps = maps

    def say(self, policy: Policy) -> None:
        """Have another policy: a packet sees the old one or the new one. Raises OSError."""
        only = _WORD.pack(0)
        (now,) = _WORD.unpack(libbpf.lookup(self._maps["chosen"], only, 4) or bytes(4))
        further, known = policy.further(), self._all_of("further", 16)
        for address in further:
            if address not in known:
                libbpf.update(self._maps["further"], address, b"\1")
        libbpf.update(self._maps["policies"], _WORD.pack(now ^ 1), policy.packed())
        libbpf.update(self._maps["chosen"], only, _WORD.pack(now ^ 1))
        libbpf.withdraw(self._maps["further"], known, {*further})

    def say_lans(self, networks: Iterable[Network]) -> None:
        """Have these as the host's own networks. Raises OSError."""
        wanted = dict.fromkeys(map(_packed_lan, networks), b"\1")
        libbpf.replace(self._maps["lans"], self._all_of("lans", _LAN.size), wanted)

    def _all_of(self, name: str, key_size: int) -> dict[bytes, bytes]:
        """What is in a map that has nothing but keys."""
        return {
            bytes(keys[n * key_size : (n + 1) * key_size]): b"\1"
            for count, keys, _ in libbpf.batches(self._maps[name], key_size, 1)
            for n in range(count)
        }

    def policy(self) -> Policy:
        """The one that is in force. Raises OSError."""
        only = _WORD.pack(0)
        chosen = libbpf.lookup(self._maps["chosen"], only, 4) or only
        packed = libbpf.lookup(self._maps["policies"], chosen, _POLICY.size) or bytes(_POLICY.size)
        netns, mark, ifindex, flags, dns4, dns6, four, six = _POLICY.unpack(packed)
        further = tuple(map(_unmapped, self._all_of("further", 16)))
        return Policy(
            netns,
            mark,
            ifindex,
            flags & ~FURTHER,
            tuple(_addresses(_WORD.pack(dns4), 4)) + tuple(_addresses(dns6, 16)),
            tuple(_addresses(four, 4)) + tuple(_addresses(six, 16)) + further,
        )

    def processes(self) -> dict[int, Process]:
        """What each process' sockets did, by pid; 0 for sockets that were not made in the route.
        The least active of more than 4,096 are forgotten. Raises OSError."""
        found: dict[int, Process] = {}
        for count, keys, packed in libbpf.batches(self._maps["processes"], 4, _PROCESS.size):
            pids = keys.cast("I")
            found |= {pids[n]: _process(packed[n * _PROCESS.size :]) for n in range(count)}
        return found

    def refused(self) -> dict[Why, int]:
        """How often each thing was refused, of all processes. Raises OSError."""
        counts = {}
        for why in Why:
            value = libbpf.lookup(self._maps["refusals"], _WORD.pack(why), 8) or bytes(8)
            counts[why] = int.from_bytes(value, "little")
        return counts

    def adopt(self, descriptor: int, cookie: int, pid: int) -> None:
        """Have a socket of another process counted as that process'. Raises OSError."""
        value = _LED.pack(cookie, pid, 0, bytes(16))
        libbpf.update(self._maps["sockets"], struct.pack("=i", descriptor), value)

    def close(self) -> None:
        """Close the descriptors; the maps are the programs'."""
        while self._maps:
            forked.close(self._maps.popitem()[1])


def _packed_lan(network: Network) -> bytes:
    bits = 128 - network.max_prefixlen + network.prefixlen
    return _LAN.pack(bits, _mapped(network.network_address))


def _mapped(address: Address) -> bytes:
    """Its 16 bytes, of an IPv4 one as ::ffff:0:0/96 has it."""
    return (_MAPPED if address.version == 4 else b"") + address.packed


def _unmapped(packed: bytes) -> Address:
    return ipaddress.ip_address(packed.removeprefix(_MAPPED))


def _process(packed: memoryview) -> Process:
    name, uid, ifindex, strayed, _, opened, closed, *rest = _PROCESS.unpack_from(packed)
    refused = {why: count for why, count in zip(Why, rest[4:], strict=True) if count}
    out_packets, out_bytes, in_packets, in_bytes = rest[:4]
    return Process(
        values.text(name),
        uid,
        ifindex,
        strayed,
        max(opened - closed, 0),
        out_packets,
        out_bytes,
        in_packets,
        in_bytes,
        refused,
    )


def _addresses(packed: bytes, length: int) -> Iterable[Address]:
    for at in range(0, len(packed), length):
        one = packed[at : at + length]
        if any(one):
            yield ipaddress.ip_address(one)
