# SPDX-License-Identifier: Apache-2.0
"""The socket's edge sees this host's sockets when it is told to, and until the fast path closes."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from carom.cgroup.link import EDGES, PROGRAM_KINDS
from carom.daemon.edge import Watch
from carom.daemon.fastpath import FastPath
from carom.kernel import libbpf
from carom.kernel.cgroups import open_root
from carom.protocols import SPECS


def attached(ids: set[int]) -> set[int]:
    """Those of some programs that are attached where every socket is seen."""
    root = open_root()
    try:
        kinds = {libbpf.CGROUP[edge] for edge in EDGES}
        return ids & {id for kind in kinds for id in libbpf.programs_at(root, kind)}
    finally:
        os.close(root)


def edge_programs() -> set[int]:
    """The programs for the edge that this process holds."""
    names = {f"edge_{edge}"[:15] for edge in EDGES}
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the folder's own, closed meanwhile
            if link.readlink().name == "anon_inode:bpf-prog":
                found.add(libbpf.program_id(int(link.name)))
    return {id for id in found if libbpf.program_name(id) in names}


def test_attached_when_told() -> None:
    before = edge_programs()
    with FastPath(capacity=100, languages=[SPECS["dns"]], edge=True) as fastpath:
        edge, ids = fastpath.edge, edge_programs() - before
        assert edge
        assert len(ids) == len(EDGES) == len(PROGRAM_KINDS)
        edge.watch(0, Watch(SPECS["dns"].number, 60, 0))
        assert attached(ids) == set()
        edge.attach()
        assert attached(ids) == ids
    assert attached(ids) == set()
