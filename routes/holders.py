# SPDX-License-Identifier: Apache-2.0
"""Who holds sockets of this network namespace, by the sockets' cookies.

The kernel tells the cookies of TCP and UDP sockets to whoever lists them (sock_diag(7)). Of others,
which only proc(5) lists, each is asked for its own, through a descriptor that its holder has.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Set
from pathlib import Path

from carom.kernel import netns
from carom.routes import sockets

_OTHERS = {"icmp": 9, "icmp6": 9, "raw": 9, "raw6": 9, "packet": 8}
"""The columns of their inodes, below /proc/net (net/ipv4/ping.c, raw.c, net/packet/af_packet.c)."""


def holders(cookies: Set[int]) -> dict[int, int]:
    """By cookie: a process that holds it, where one does. Raises BPFError, OSError."""
    if not cookies:
        return {}
    found = {one.inode: one.cookie for one in sockets.listed() if one.cookie in cookies}
    held = sockets.held_by(sockets.processes()) if found else {}
    by_cookie = {found[inode]: pids[0] for inode, pids in held.items() if inode in found}
    if len(by_cookie) < len(cookies):
        by_cookie |= {cookie: pid for cookie, pid in _of_others() if cookie in cookies}
    return by_cookie


def _of_others() -> Iterator[tuple[int, int]]:
    """Cookies and holders of sockets that are neither TCP's nor UDP's."""
    inodes = set[int]()
    for name, column in _OTHERS.items():
        with contextlib.suppress(OSError):  # this kernel has none of them
            text = Path(f"/proc/thread-self/net/{name}").read_text(encoding="ascii")
            inodes |= {int(line.split()[column]) for line in text.splitlines()[1:]}
    for pid in sockets.processes() if inodes else ():
        with contextlib.suppress(OSError):  # it has ended, or let go of it
            for number, inode in netns.descriptors(Path(f"/proc/{pid}")):
                if inode in inodes:
                    yield sockets.cookie_of(pid, number), pid
