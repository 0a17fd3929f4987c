# SPDX-License-Identifier: Apache-2.0
"""Netlink itself: dumps, this host's addresses, and changes of links and rules."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

from carom.kernel import forked
from carom.kernel.waiting import readable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_RTN_BROADCAST = 3  # linux/rtnetlink.h
_GETADDR, _GETROUTE = 22, 26  # RTM_*
_IFA_ADDRESS, _IFA_LOCAL = 1, 2  # linux/if_addr.h
_RTA_DST = 1
_ERROR, _DONE = 2, 3  # NLMSG_*, linux/netlink.h
_REQUEST, _ACKNOWLEDGE, _DUMP = 0x1, 0x4, 0x300  # NLM_F_*
_PATIENCE = 10.0  # seconds for an answer
_INTERRUPTED = 0x10  # NLM_F_DUMP_INTR
_SOL_NETLINK, _GET_STRICT_CHK, _ADD_MEMBERSHIP = 270, 12, 1
_NETLINK_XFRM, _NETLINK_NETFILTER = 6, 12
_GROUP_NFTABLES = 7  # NFNLGRP_NFTABLES, linux/netfilter/nfnetlink.h
_GROUP_XFRM_POLICY = 4  # XFRMNLGRP_POLICY, linux/xfrm.h
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_ATTRIBUTE = struct.Struct("=HH")
_IFADDR = struct.Struct("=BBBBI")  # struct ifaddrmsg
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_TC = struct.Struct("=BxxxiIII")  # struct tcmsg
_GETTFILTER = 46  # RTM_GETTFILTER
_TCA_KIND, _TCA_OPTIONS, _TCA_BPF_NAME = 1, 2, 7  # linux/rtnetlink.h, linux/pkt_cls.h
_RECEIVED_MAX = 1 << 20
_TRIES = 5


def addresses() -> dict[int, tuple[Address, ...]]:
    """Every interface's addresses, by ifindex. Raises OSError."""
    by_link: dict[int, list[Address]] = {}
    for message in dump(_GETADDR, _IFADDR.pack(0, 0, 0, 0, 0)):
        *_, index = _IFADDR.unpack_from(message)
        values = dict(attributes(message[_IFADDR.size :]))
        local = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS)
        if local is not None:
            by_link.setdefault(index, []).append(_address(local))
    return {index: tuple(addresses) for index, addresses in by_link.items()}


def _address(packed: bytes) -> Address:
    if len(packed) == 4:
        return ipaddress.IPv4Address(packed)
    return ipaddress.IPv6Address(packed)


def attributes(data: memoryview) -> Iterator[tuple[int, bytes]]:
    """Type and value of each attribute (netlink(7))."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        yield kind, bytes(data[at + _ATTRIBUTE.size : at + length])
        at += max(length + 3 & ~3, _ATTRIBUTE.size)


def dump(kind: int, body: bytes, protocol: int = socket.NETLINK_ROUTE) -> list[memoryview]:
    """The messages that answer a dump request of netlink(7), each without its header.

    pyroute2 reads some thousand of these a second, too few for a host with 100,000 addresses. What
    changes meanwhile may be missing; who listens to `Changes` is woken up and asks again. Raises
    OSError.
    """
    messages: list[memoryview] = []
    for _ in range(_TRIES):
        messages, whole = _exchange(kind, _REQUEST | _DUMP, body, protocol)
        if whole:
            break
    return messages


def ask(kind: int, body: bytes, protocol: int = socket.NETLINK_ROUTE) -> list[memoryview]:
    """The message that answers a request, without its header, in a list. Raises OSError."""
    return _exchange(kind, _REQUEST, body, protocol)[0]


def command(kind: int, body: bytes, protocol: int = socket.NETLINK_ROUTE) -> None:
    """Have the kernel do something. Raises OSError where it does not."""
    _exchange(kind, _REQUEST | _ACKNOWLEDGE, body, protocol)


def _exchange(kind: int, flags: int, body: bytes, protocol: int) -> tuple[list[memoryview], bool]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as netlink:
        netlink.settimeout(_PATIENCE)
        if protocol == socket.NETLINK_ROUTE:
            netlink.setsockopt(_SOL_NETLINK, _GET_STRICT_CHK, 1)
        header = _HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0)
        netlink.sendto(header + body, (0, 0))
        return _receive(netlink, many=bool(flags & _DUMP))


def _receive(netlink: socket.socket, *, many: bool) -> tuple[list[memoryview], bool]:
    """The messages of an answer, and whether nothing changed meanwhile."""
    messages: list[memoryview] = []
    whole = True
    while True:
        data = memoryview(netlink.recv(_RECEIVED_MAX))
        while len(data) >= _HEADER.size:
            length, kind, flags, _, _ = _HEADER.unpack_from(data)
            whole = whole and not flags & _INTERRUPTED
            if kind == _ERROR:
                (code,) = struct.unpack_from("=i", data, _HEADER.size)
                if not code:  # an acknowledgement
                    return messages, whole
                raise OSError(-code, os.strerror(-code))
            if kind == _DONE:
                return messages, whole
            messages.append(data[_HEADER.size : length])
            data = data[length + 3 & ~3 :]
        if not many:
            return messages, whole


def own_addresses() -> frozenset[Address]:
    """Every address of this network namespace, with IPv4's broadcast addresses.

    Raises OSError when the kernel does not tell them.
    """
    return frozenset(address for group in addresses().values() for address in group) | frozenset(
        _broadcasts()
    )


@contextlib.contextmanager
def route_socket() -> Iterator[Any]:
    """pyroute2's IPRoute, for what is asked seldom; its errors become OSErrors.

    It is imported here: that takes longer than most commands do, and a service that never asks
    would keep its memory.
    """
    from pyroute2 import IPRoute, NetlinkError

    with IPRoute() as netlink:
        try:
            yield netlink
        except NetlinkError as error:
            raise OSError(*error.args) from error


class Filter(NamedTuple):
    """A filter at TC: its kind, its priority, and the name of its program if it is one of BPF."""

    kind: str
    priority: int
    name: str


def filters(index: int, parent: int) -> list[Filter]:
    """The filters of an interface at ingress or egress (`parent`). Raises OSError."""
    found = []
    for message in dump(_GETTFILTER, _TC.pack(socket.AF_UNSPEC, index, 0, parent, 0)):
        *_, info = _TC.unpack_from(message)
        told = dict(attributes(message[_TC.size :]))
        if _TCA_OPTIONS in told:  # each priority also has an entry without, for its chain
            kind = text(told[_TCA_KIND])
            options = dict(attributes(memoryview(told[_TCA_OPTIONS]))) if kind == "bpf" else {}
            found.append(Filter(kind, info >> 16, text(options.get(_TCA_BPF_NAME, b""))))
    return found


def text(value: bytes) -> str:
    """An attribute's text."""
    return value.rstrip(b"\0").decode(errors="replace")


def _broadcasts() -> Iterator[Address]:
    """IPv4's broadcast addresses, by the kernel's routes: an address alone does not tell them."""
    asked = _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, _RTN_BROADCAST, 0)
    for message in dump(_GETROUTE, asked):
        if _ROUTE.unpack_from(message)[7] == _RTN_BROADCAST:
            for kind, value in attributes(message[_ROUTE.size :]):
                if kind == _RTA_DST:
                    yield _address(value)


class Changes:
    """Wakes up `wait` when a link or an address of this namespace changes, or by `poke`."""

    _GROUPS = 0x1 | 0x10 | 0x100  # RTMGRP_{LINK,IPV4_IFADDR,IPV6_IFADDR}, linux/rtnetlink.h

    def __init__(self) -> None:
        self._poked = forked.made(lambda: os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        self._poking = threading.Lock()
        self._sockets: list[socket.socket] = []
        try:
            self._listen()
        except BaseException:
            self.close()
            raise

    def _listen(self) -> None:
        self._hear(socket.NETLINK_ROUTE).bind((0, self._GROUPS))

    def _hear(self, protocol: int) -> socket.socket:
        heard = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        heard.setblocking(False)
        forked.keep(heard.fileno())
        self._sockets.append(heard)
        return heard

    def wait(self, seconds: float | None) -> bool:
        """Wait for at most `seconds` (None: without limit); True when something changed."""
        watched: list[Any] = [*self._sockets, self._poked]
        changed = bool(readable(watched, seconds))
        self.forget()
        return changed

    def forget(self) -> None:
        """Drop the changes that were reported until now."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._poked)
        for heard in self._sockets:
            while True:
                try:
                    heard.recv(65536)
                except BlockingIOError:
                    break
                except OSError:  # ENOBUFS: overrun, which is a change as well
                    continue

    def poke(self) -> None:
        """Wake up `wait`, from any thread; nothing once it is closed."""
        with self._poking:
            if self._poked >= 0:
                os.eventfd_write(self._poked, 1)

    def close(self) -> None:
        """Stop listening; a second call does nothing."""
        while self._sockets:
            heard = self._sockets.pop()
            forked.forget(heard.fileno())
            heard.close()
        with self._poking:
            poked, self._poked = self._poked, -1
        if poked >= 0:
            forked.close(poked)


class RuleChanges(Changes):
    """The same for changes of nftables rules and IPsec policies, where the kernel reports them."""

    def _listen(self) -> None:
        with contextlib.suppress(OSError):  # a kernel without one of them
            rules = self._hear(_NETLINK_NETFILTER)
            rules.bind((0, 0))
            rules.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES)
        with contextlib.suppress(OSError):
            self._hear(_NETLINK_XFRM).bind((0, 1 << (_GROUP_XFRM_POLICY - 1)))
