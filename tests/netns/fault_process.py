# SPDX-License-Identifier: Apache-2.0
"""Starts carom again and again, each time with one step of the start refused by the kernel.

    python -P fault_process.py ERRORS serve -i eth0 ...

A step is a call of bpf(2) or netlink, or one on files, sockets, threads and programs, that the main
thread makes until carom is ready. The first start has nothing refused; its line on stdout says
which `steps` there are. Then each line of stdin is the number of a step, from 1 on, and the next on
stdout says what became of a start without it. All are JSON. Each start is a process of its own,
forked from one that has imported everything.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyroute2

from carom.kernel import libbpf

ERRORS: dict[str, dict[str, int]] = {
    "short": {"bpf": errno.ENOMEM, "netlink": errno.ENOBUFS, "file": errno.EMFILE},
    "refused": {"bpf": errno.EPERM, "netlink": errno.EPERM, "file": errno.EACCES},
}
"""What a step fails with, where the host is short of something, or does not let it."""

AUDITED = {
    "open": "file",
    "os.mkdir": "file",
    "os.listdir": "file",
    "os.scandir": "file",
    "os.chmod": "file",
    "os.remove": "file",
    "mmap.__new__": "file",
    "socket.__new__": "file",
    "socket.bind": "netlink",
    "socket.connect": "netlink",
    "socket.sendto": "netlink",
    "socket.sendmsg": "netlink",
}
"""Python's audit events that stand for system calls: what is raised there is how they fail."""

WRAPPED = {
    "stat": "file",
    "readlink": "file",
    "pipe": "file",
    "pipe2": "file",
    "eventfd": "file",
    "dup": "file",
}
"""Functions of `os` that have no audit event."""

OF_PYTHON = re.compile(r"\.(pyc?|so|pth|zip)(\.\d+)?$|/__pycache__|/dist-info|/lib/python3")
"""What Python reads to import a module, which no program can do without."""


class Faults:
    """Counts the steps, and refuses one."""

    def __init__(self, refused: int, errors: dict[str, int]):
        self._refused = refused
        self._errors = errors
        self.steps: list[str] = []
        self.on = False
        self._inside = False

    def error(self, kind: str, what: str) -> int:
        """Count a step; its errno if this is the one that is refused, or 0."""
        if not self.on or self._inside or threading.current_thread() is not threading.main_thread():
            return 0
        self.steps.append(what)
        return self._errors[kind] if len(self.steps) == self._refused else 0

    def check(self, kind: str, what: str) -> None:
        """The same; raises OSError."""
        number = self.error(kind, what)
        if number:
            raise OSError(number, os.strerror(number))

    def put(self) -> None:
        """Be asked at every step from now on."""
        self._on_bpf(libbpf.library())
        for name, kind in WRAPPED.items():
            setattr(os, name, self._wrapped(getattr(os, name), kind, name))
        self._whole(subprocess.Popen, "file", "a program")
        self._whole(pyroute2.IPRoute, "netlink", "pyroute2's socket")
        self._on_threads()
        self._on_netlink()
        sys.addaudithook(self._audit)

    def _wrapped(self, function: Callable[..., Any], kind: str, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self._check_path(kind, name, arguments)
            return function(*arguments, **named)

        return call

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in AUDITED:
            self._check_path(AUDITED[event], event, arguments)

    def _check_path(self, kind: str, what: str, arguments: tuple[Any, ...]) -> None:
        first = arguments[0] if arguments else ""
        if what == "open" and isinstance(first, int):
            return  # it is open already
        shown = "" if not isinstance(first, str | bytes | Path) else str(first)
        if not OF_PYTHON.search(shown):
            self.check(kind, f"{what} {shown}".rstrip())

    def _on_bpf(self, library: ctypes.CDLL) -> None:
        for name in [name for name in vars(library) if not name.startswith("_")]:
            function = getattr(library, name)
            if name.startswith("bpf_"):
                setattr(library, name, self._bpf(function, name))
        rings = library.ring_buffer__new
        library.ring_buffer__new = lambda *arguments: (
            None if self.error("bpf", "ring_buffer__new") else rings(*arguments)
        )

    def _bpf(self, function: Callable[..., int], name: str) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            return -self.error("bpf", name) or function(*arguments)

        return call

    def _whole(self, made: Any, kind: str, what: str) -> None:
        """What makes one of these is one step: half-way it leaves things open by itself."""
        begin = made.__init__

        def start(*arguments: Any, **named: Any) -> None:
            self.check(kind, what)
            before, self._inside = self._inside, True
            try:
                begin(*arguments, **named)
            finally:
                self._inside = before

        made.__init__ = start

    def _on_threads(self) -> None:
        begin = threading._start_new_thread  # type: ignore[attr-defined]

        def start(*arguments: Any) -> Any:
            if self.error("file", "a thread"):
                raise RuntimeError("can't start new thread")  # as Python says it
            return begin(*arguments)

        threading._start_new_thread = start  # type: ignore[attr-defined]

    def _on_netlink(self) -> None:
        import socket

        receive = socket.socket.recv

        def recv(self_: socket.socket, *arguments: Any) -> bytes:
            if self_.family == socket.AF_NETLINK:
                self.check("netlink", "recv of netlink")
            return receive(self_, *arguments)

        socket.socket.recv = recv  # type: ignore[method-assign]


def descriptors() -> dict[str, str]:
    """What this process has open."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the folder's own
            continue
    return found


def attempt(refused: int, errors: dict[str, int], words: list[str]) -> dict[str, Any]:
    """One start, in this process."""
    from carom import cli
    from carom.daemon.running import Running
    from carom.kernel.signals import Stop

    faults = Faults(refused, errors)

    def ready(running: Running) -> None:
        faults.on = False
        raise Stop

    Running.run = ready  # type: ignore[method-assign]
    faults.put()
    before = descriptors()
    sys.argv = ["carom", *words]
    faults.on = True
    try:
        cli.main()
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        import traceback

        code = f"{type(error).__name__}"
        traceback.print_exc()
    faults.on = False
    threads = [one.name for one in threading.enumerate() if one is not threading.main_thread()]
    now = descriptors()
    return {
        "step": faults.steps[refused - 1] if 0 < refused <= len(faults.steps) else "",
        "code": code,
        "threads": threads,
        "left": [now[name] for name in now if before.get(name) != now[name]],
        **({} if refused else {"steps": faults.steps, "modules": sorted(sys.modules)}),
    }


def forked(refused: int, errors: dict[str, int], words: list[str]) -> dict[str, Any]:
    """One start, in a process of its own."""
    told, stdout, stderr = files = [os.memfd_create(name) for name in ("told", "out", "err")]
    pid = os.fork()
    if not pid:
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        os.write(told, json.dumps(attempt(refused, errors, words)).encode())
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    text, out, err = (os.pread(one, os.fstat(one).st_size, 0).decode() for one in files)
    for one in files:
        os.close(one)
    done: dict[str, Any] = json.loads(text) if text else {"code": f"wait status {status}"}
    return done | {"pid": pid, "stdout": out, "stderr": err}


def main() -> None:
    """See above."""
    errors, words = ERRORS[sys.argv[1]], sys.argv[2:]
    libbpf.library()
    plain = forked(0, errors, words)
    for name in plain.pop("modules", []):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    print(json.dumps(plain), flush=True)
    for line in sys.stdin:
        print(json.dumps(forked(int(line), errors, words)), flush=True)


if __name__ == "__main__":
    main()
