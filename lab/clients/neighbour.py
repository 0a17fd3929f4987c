# SPDX-License-Identifier: Apache-2.0
"""Where raw frames go: to a host on an interface's own link, by its MAC address."""

from __future__ import annotations

import ipaddress
import socket
import time

from pyroute2 import IPRoute, NetlinkError

from carom.errors import InterfaceError
from carom.kernel.links import Interface

_RTN_UNICAST = 1  # linux/rtnetlink.h
_NTF_USE = 0x01  # linux/neighbour.h: resolve it, as if a packet were to be sent
_NUD_FAILED = 0x20
_RESOLVE_SECONDS = 4.0  # the kernel asks three times, a second apart


def on_link(interface: Interface, address: ipaddress.IPv4Address) -> ipaddress.IPv4Address:
    """Our source address for frames to a host on this interface's own link.

    Raises InterfaceError when there is no route, or the route leaves elsewhere.
    """
    with IPRoute() as netlink:
        try:
            (route,) = netlink.route("get", dst=str(address))
        except NetlinkError as error:
            raise InterfaceError(
                f"there is no route to {address}", hint=f"see `ip route get {address}`"
            ) from error
    gateway, by = route.get_attr("RTA_GATEWAY"), route.get_attr("RTA_OIF")
    if route["type"] != _RTN_UNICAST:
        why = "it is this host's own, or a multicast or broadcast address"
    elif by != interface.ifindex:
        why = f"the route leaves by {socket.if_indextoname(by)}"
    elif gateway or route.get_attr("RTA_VIA"):
        why = f"the route goes through the gateway {gateway or 'of another family'}"
    else:
        return ipaddress.IPv4Address(route.get_attr("RTA_PREFSRC"))
    raise InterfaceError(
        f"{address} is not on the link of {interface.name}: {why}",
        hint=f"frames are sent raw, so it must be a neighbour; see `ip route get {address}`",
    )


def neighbour(interface: Interface, address: ipaddress.IPv4Address) -> bytes:
    """The MAC address of a neighbour; the kernel asks for it if it has to.

    Raises InterfaceError when no host answers.
    """
    wanted = {"dst": str(address), "ifindex": interface.ifindex}
    end = time.monotonic() + _RESOLVE_SECONDS
    asked = False
    with IPRoute() as netlink:
        while time.monotonic() < end:
            for entry in netlink.get_neighbours(**wanted):
                mac = entry.get_attr("NDA_LLADDR")
                if mac and not entry["state"] & _NUD_FAILED:
                    return bytes.fromhex(mac.replace(":", ""))
            if not asked:
                netlink.neigh("replace", **wanted, state=0, flags=_NTF_USE)
                asked = True
            time.sleep(0.02)
    raise InterfaceError(
        f"no host on {interface.name} answers for {address}",
        hint="is it up, and on this link? See `ip neigh`",
    )
