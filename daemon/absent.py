# SPDX-License-Identifier: Apache-2.0
"""Why there is no server to front, in words: who else is at the port, and what cannot be seen."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from carom.daemon import sockets
from carom.daemon.options import Options
from carom.daemon.sockets import Namespace, Socket
from carom.errors import ServerError

_FIRST_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO, linux/proc_ns.h


def none_listens(
    options: Options,
    port: int,
    at: str,
    namespaces: Iterable[Namespace],
    keepers: Iterable[Socket] = (),
) -> ServerError:
    """Nobody listens on the UDP port, `at` the address that was asked for, in these namespaces.

    `keepers` are held for a container, whose server may have another port.
    """
    message = f"no process of this host listens on UDP port {port}{at}"
    if port != options.port:
        message += f", which requests to port {options.port} are translated to"
    others = _over_tcp(port, namespaces)
    if others:
        more = f"-U {port}" if options.protocol == "memcached" else "UDP"
        return ServerError(
            f"{message}, and over TCP alone {', '.join(others)} does",
            hint=f"carom answers over UDP: start the server with {more}",
            passing=True,
        )
    if any(keepers):
        message += f"; port {options.port} itself is only held for a container"
    hints = [
        "start the server first; one on another host cannot be fronted from here",
        "--server-port PORT for one that has another port, which this host translates requests to",
    ]
    return ServerError(message, hint="; ".join((*hints, *_unseen())), passing=True)


def _over_tcp(port: int, namespaces: Iterable[Namespace]) -> list[str]:
    """The processes that listen on the TCP port, as a user knows them."""
    found = []
    for namespace in namespaces:
        listening = [
            one.inode
            for one in sockets.bound(namespace.process, stream=True)
            if one.serves and one.port == port
        ]
        for pids in sockets.holders(listening, sockets.processes()).values():
            found += [sockets.name(pid) for pid in sorted(pids)] or ["a process that is not seen"]
    return list(dict.fromkeys(found))


def _unseen() -> list[str]:
    """What may hide a server that does run."""
    said = []
    if os.readlink("/proc/self/ns/pid") != _FIRST_PID_NAMESPACE:
        said.append("of a PID namespace other than carom's own no process is seen")
    hidden = sum(map(_is_hidden, sockets.processes()))
    if hidden:
        said.append(
            f"{hidden} processes may not be looked into: that takes root, or CAP_SYS_PTRACE and "
            "CAP_DAC_READ_SEARCH"
        )
    return said


def _is_hidden(process: Path) -> bool:
    try:
        os.readlink(process / "ns/net")
    except PermissionError:
        return True
    except OSError:  # it has ended
        pass
    return False
