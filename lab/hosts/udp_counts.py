# SPDX-License-Identifier: Apache-2.0
"""The counters of this network namespace's UDP sockets over IPv4."""

from __future__ import annotations

from pathlib import Path


def read(port: int) -> dict[str, int]:
    """`received` by all sockets, and `drops` at the sockets of one port (/proc/net/snmp, udp)."""
    return {
        "received": received(Path("/proc/self/net/snmp").read_text()),
        "drops": drops(Path("/proc/self/net/udp").read_text(), port),
    }


def received(snmp: str) -> int:
    """Datagrams that programs have taken from their sockets."""
    names, values = (line.split() for line in snmp.splitlines() if line.startswith("Udp:"))
    return int(values[names.index("InDatagrams")])


def drops(udp: str, port: int) -> int:
    """Datagrams dropped at a port's sockets: rejected by a socket filter, or without room."""
    rows = (line.split() for line in udp.splitlines()[1:])
    return sum(int(row[-1]) for row in rows if int(row[1].rpartition(":")[2], 16) == port)
