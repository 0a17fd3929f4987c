# SPDX-License-Identifier: Apache-2.0
"""Attach a program at the root of control groups, by a link: it sees every socket of this host."""

from __future__ import annotations

from typing import Literal, get_args

from carom.errors import BPFError, PrivilegeError
from carom.kernel import libbpf
from carom.kernel.attached import ENDING, Links
from carom.kernel.cgroups import link_at_root
from carom.kernel.compiled import Hook
from carom.kernel.resource import Resource

Edge = Literal["ingress", "egress", "bind4", "bind6", "release"]
"""Where a program sees sockets: their packets, in and out, their bind() and their end."""

EDGES: tuple[Edge, ...] = get_args(Edge)

PROGRAM_KINDS: dict[Edge, Hook] = {
    "ingress": "cgroup",
    "egress": "cgroup",
    "bind4": "bind4",
    "bind6": "bind6",
    "release": "release",
}


def link_name(edge: Edge) -> str:
    """What tells this link from its owner's others."""
    return f"edge-{edge}"


class EdgeLink(Resource):
    """An attached program; it is detached when the context is left, or its owner ends, unless it is
    of `links` that outlive it."""

    def __init__(self, program_fd: int, edge: Edge, links: Links = ENDING):
        """Attach beside other programs. Raises BPFError, PrivilegeError."""
        self._links, self._name = links, link_name(edge)
        try:
            kind = libbpf.CGROUP[edge]
            self._fd = links.made(self._name, program_fd, lambda: link_at_root(program_fd, kind))
        except PermissionError as error:
            raise PrivilegeError(
                "not allowed to watch this host's sockets",
                hint="run it as root, or with CAP_BPF and CAP_NET_ADMIN; where no control groups "
                "(version 2) are mounted, with CAP_SYS_ADMIN too",
            ) from error
        except OSError as error:
            raise BPFError(
                f"this host's sockets cannot be watched: {error.strerror}",
                hint="that needs Linux 5.18 or newer with control groups (CONFIG_CGROUP_BPF)",
            ) from error

    def close(self) -> None:
        """Detach, unless it is to outlive its owner."""
        self._links.close(self._name, self._fd)

    def replace(self, program_fd: int) -> None:
        """Replace the program, between two packets. Raises OSError."""
        libbpf.update_link(self._fd, program_fd)
