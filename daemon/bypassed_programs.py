# SPDX-License-Identifier: Apache-2.0
"""Programs of others that a request passes on its way to the server, and a hit does not."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from carom.daemon.fastpath import Attachment
from carom.kernel import libbpf, netlink
from carom.kernel.cgroups import open_root
from carom.tc.link import NAME as CLSACT_NAME

_OURS = ("edge_", "tc_fastpath", "tc_answer", "tc_handover", "tc_traced", "tc_unspec")
"""Programs of caroms, which drop nothing."""

_EFFECTIVE = 1  # BPF_F_QUERY_EFFECTIVE
_PARENTS = {"ingress": (0xFFFFFFF2, 0xFFFF0000), "egress": (0xFFFFFFF3,)}


def cgroup_programs(pids: Iterable[int], ours: Iterable[int] = ()) -> Iterator[str]:
    """Names of the programs of control groups that see the packets of a server's sockets.

    `pids` are the server's, and `ours` the ids of this carom's programs: only CAP_SYS_ADMIN is told
    names. systemd's IPAddressAllow= and IPAddressDeny= are such programs.
    """
    try:
        root = open_root()
    except OSError:  # no control groups of version 2
        return
    own = set(ours)
    try:
        names: dict[str, None] = {}
        for pid in pids:
            with _group(root, pid) as (group, path):
                for direction in ("ingress", "egress"):
                    with contextlib.suppress(OSError):
                        kind = libbpf.CGROUP[direction]
                        for id in libbpf.programs_at(group, kind, _EFFECTIVE):
                            name = libbpf.program_name(id)
                            if id not in own and not name.startswith(_OURS):
                                names[f"{name or 'a program'} (id {id}, {direction}, {path})"] = (
                                    None
                                )
        yield from names
    finally:
        os.close(root)


@contextlib.contextmanager
def _group(root: int, pid: int) -> Iterator[tuple[int, str]]:
    """A descriptor of a process' control group, or of the root where it cannot be found."""
    path = "/"
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                path = line[3:]
    try:
        group = os.open(path.lstrip("/") or ".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=root)
    except OSError:  # it is in another control group namespace
        group, path = os.dup(root), "/"
    try:
        yield group, path
    finally:
        os.close(group)


def tc_programs(attachment: Attachment, ours: Iterable[int] = ()) -> Iterator[str]:
    """Programs at TC that see requests after ours, or the server's replies, and no hit.

    `ours` are the ids of this carom's programs.
    """
    index, at_xdp = attachment.interface.ifindex, attachment.hook == "xdp"
    own = set(ours)
    with contextlib.suppress(OSError):  # Linux before 6.6
        ids = libbpf.programs_at(index, libbpf.BPF_TCX_INGRESS)
        if not at_xdp:  # programs before ours have seen the requests that hit
            last = max((at for at, id in enumerate(ids) if id in own), default=-1)
            ids = ids[last + 1 :]
        yield from _named(ids, own, "ingress")
        if at_xdp:
            ids = libbpf.programs_at(index, libbpf.BPF_TCX_INGRESS + 1)
            yield from _named(ids, own, "egress")
    for direction, parents in _PARENTS.items():
        if direction == "ingress" or at_xdp:
            yield from dict.fromkeys(
                f"filter {name} (TC {direction})"
                for parent in parents
                for name in _filters(index, parent)
            )


def _named(ids: Iterable[int], own: set[int], direction: str) -> Iterator[str]:
    for id in ids:
        name = libbpf.program_name(id)
        if id not in own and not name.startswith(_OURS):
            yield f"{name or 'a program'} (id {id}, TC {direction})"


def _filters(index: int, parent: int) -> Iterator[str]:
    """Filters of clsact or ingress, other than a carom's."""
    try:
        found = netlink.filters(index, parent)
    except OSError:
        return
    for kind, priority, name in found:
        if not name.startswith(CLSACT_NAME):
            yield f"{kind}{f' {name}' if name else ''} of priority {priority}"
