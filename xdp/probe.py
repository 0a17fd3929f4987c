# SPDX-License-Identifier: Apache-2.0
"""Find out with test frames whether what native XDP sends by a veth gets to its other end."""

from __future__ import annotations

import os
from pathlib import Path

from carom.errors import InterfaceError
from carom.kernel import ethtool, libbpf
from carom.kernel.links import Interface

_FRAMES = 16
_TYPE = b"\x88\xb5"  # of local experiments (IEEE 802): nobody takes it


def check_arrival(interface: Interface) -> None:
    """Raises InterfaceError if native XDP's replies get lost: on a veth, or on a bond with one."""
    for name, arrives in arrivals(interface).items():
        if arrives is False:
            raise InterfaceError(
                lost_words(name),
                hint="--mode generic; or first put an XDP program on its other end",
            )


def lost_words(name: str) -> str:
    """What becomes of native XDP's replies by a veth whose other end has no program."""
    return (
        f"native XDP's replies do not get to the other end of {name}, a veth: it has no XDP program"
    )


def arrivals(interface: Interface) -> dict[str, bool | None]:
    """Whether test frames get to the other end of each veth of an interface that is connected.

    None where that cannot be found out.
    """
    devices = [(interface.name, interface.ifindex, interface.driver)]
    devices += [(port.name, port.ifindex, port.driver) for port in interface.ports]
    return {
        name: _arrive(name, ifindex, interface.mac)
        for name, ifindex, driver in (devices if interface.up and interface.carrier else ())
        if driver == "veth"
    }


def sent(name: str) -> int:
    """The number of packets that an interface has sent. Raises OSError.

    For native XDP on a veth only packets that its other end took in count.
    """
    return int(Path(f"/sys/class/net/{name}/statistics/tx_packets").read_text())


def _arrive(name: str, ifindex: int, mac: bytes) -> bool | None:
    """Whether frames arrive at the other end; None where that cannot be found out.

    A veth drops what its peer sends by XDP, and counts nothing, unless it takes frames in by NAPI
    (veth_xdp_xmit in the kernel), as it does for a native XDP program. With GRO it uses NAPI too,
    but XDP_TX is lost all the same (veth_xdp_flush): that only shows when hits are lost. The test
    frames are addressed to their sender, so the peer drops them.
    """
    try:
        program = libbpf.load_xdp_redirect(ifindex)  # XDP_TX on a port is the bond's
        try:
            before = _taken(name)
            libbpf.run_live(program, mac + mac + _TYPE + bytes(46), ifindex, _FRAMES)
        finally:
            os.close(program)
        return _taken(name) - before >= _FRAMES
    except OSError:  # before Linux 5.18; it is gone
        return None


def _taken(name: str) -> int:
    """The number of frames sent by XDP that a veth's other end took in, or had no room for.

    Raises OSError.
    """
    counters = ethtool.counters(name)
    if not counters:
        raise OSError(f"{name} has no counters")
    return sum(
        count
        for counter, count in counters.items()
        if counter.startswith("tx_") and "xdp_xmit" in counter
    )
