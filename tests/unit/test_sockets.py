# SPDX-License-Identifier: Apache-2.0
"""Processes and sockets whose owners gave them names that are no text."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from carom.daemon import sockets
from carom.protocols.dns import access


def test_a_process_of_any_name() -> None:
    comm = Path("/proc/self/comm")
    before = comm.read_bytes()
    comm.write_bytes(b"\xff)\xfe")
    try:
        assert list(access.access_lists([os.getpid()])) == []
        assert sockets.name(os.getpid()) == f"pid {os.getpid()}, \\xff)\\xfe"
        assert sockets.parent(os.getpid()) == os.getppid()
        assert not sockets.runs(os.getpid(), "memcached")
    finally:
        comm.write_bytes(before)


def test_a_unix_socket_of_any_name(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as listener:
        other.bind(os.fsencode(tmp_path) + b"/\xff\nb")
        listener.bind(str(tmp_path / "a"))
        listener.listen()
        assert sockets.unix_listener(os.getpid()) == str(tmp_path / "a")
