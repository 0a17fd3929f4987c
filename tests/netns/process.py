# SPDX-License-Identifier: Apache-2.0
"""carom as a process inside a namespace: started, asked for its counters, ended."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from carom.daemon import control
from carom.kernel import libbpf
from carom.vm.namespace import Namespace

INTERFACE = "carom0"
DEADLINE = 60.0 * float(os.environ.get("CAROM_PATIENCE", "1"))
"""Seconds after which a test gives up on what it waits for, more where the CPU is emulated; nothing
is measured by it."""

HERE = Path(__file__).resolve().parent
CAROM = [sys.executable, "-P", "-m", "carom"]

_CACHE = ("fills", "refused", "not_admitted", "unfit")
_BACKGROUND = {"pass_ethertype", "pass_options", "pass_protocol"}
"""Verdicts on what hosts say without being asked: ARP, and ICMPv6 with and without options."""


def let_in(folder: Path) -> None:
    """Have nobody, too, look into a folder that pytest made."""
    for one in (folder, *folder.parents[:2]):
        one.chmod(0o755)


def until(true: Callable[[], object], what: str) -> None:
    """Wait until `true()` is. Fails after DEADLINE."""
    end = time.monotonic() + DEADLINE
    while not true():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.02)


def attached(namespace: Namespace, interface: str = INTERFACE) -> dict[str, Any] | None:
    """The XDP program on an interface as `ip` shows it, or None."""
    (link,) = json.loads(namespace.run("ip", "-json", "link", "show", interface))
    xdp = link.get("xdp")
    return xdp["prog"] if xdp else None


def at_tc(namespace: Namespace, interface: str = INTERFACE) -> list[int]:
    """The ids of the TC programs linked to an interface's ingress."""

    def query() -> list[int] | None:
        ids, count = (ctypes.c_uint32 * 64)(), ctypes.c_uint32(64)
        result = libbpf.library().bpf_prog_query(
            socket.if_nametoindex(interface),
            libbpf.BPF_TCX_INGRESS,
            0,
            None,
            ctypes.byref(ids),
            ctypes.byref(count),
        )
        if result == -errno.EINVAL:
            return None  # a kernel before 6.6
        assert result == 0, os.strerror(-result)
        return list(ids[: count.value])

    found = namespace.call(query)
    return _at_clsact(namespace, interface) if found is None else found


def _at_clsact(namespace: Namespace, interface: str) -> list[int]:
    shown = json.loads(namespace.run("tc", "-json", "filter", "show", "dev", interface, "ingress"))
    return [one["options"]["prog"]["id"] for one in shown if "prog" in one.get("options", {})]


def control_socket(pid: int) -> Path:
    """The control socket of a carom."""
    return control.directory() / f"{pid}.sock"


def environment(**variables: str) -> dict[str, str]:
    """This process' environment with some variables of one's own, and no colours.

    A Python that is aborted says where each of its threads is.
    """
    return {**os.environ, "NO_COLOR": "1", "PYTHONFAULTHANDLER": "1", **variables}


HASH_MAP, ARRAY_MAP = 1, 2  # linux/bpf.h


def map_of(
    pid: int, key_size: int, value_size: int, *, kind: int = HASH_MAP, entries: int | None = None
) -> int:
    """A descriptor of the one BPF map of a process whose keys and values are so long.

    It has room for so many `entries`; None: for any number.
    """
    wanted = f"map_type:\t{kind}\nkey_size:\t{key_size}\nvalue_size:\t{value_size}\n"
    if entries is not None:
        wanted += f"max_entries:\t{entries}\n"
    found = set()
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since then
            text = info.read_text()
            if wanted in text:
                found.add(int(re.search(r"map_id:\t(\d+)", text)[1]))  # type: ignore[index]
    (map_id,) = found
    descriptor: int = libbpf.library().bpf_map_get_fd_by_id(map_id)
    assert descriptor >= 0
    return descriptor


class Ended:
    """A carom that has ended: its exit code, and what it said."""

    def __init__(self, pid: int, code: int, stdout: str, stderr: str):
        self.pid = pid
        self.code = code
        self.stdout = stdout
        self.stderr = stderr

    def __repr__(self) -> str:
        return f"exit {self.code}\nstdout: {self.stdout}\nstderr: {self.stderr}"


def start(
    namespace: Namespace,
    *arguments: str,
    stderr: Any = subprocess.PIPE,
    cwd: Path = HERE,
    prefix: tuple[str, ...] = (),
    program: Sequence[str] = CAROM,
    **variables: str,
) -> subprocess.Popen[str]:
    """Start `carom ARGUMENT...` in a namespace, behind `prefix`, or another `program` so."""
    return subprocess.Popen(
        namespace.argv([*prefix, *program, *arguments]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        cwd=cwd,
        env=environment(**variables),
    )


def run(namespace: Namespace, *arguments: str, **options: Any) -> Ended:
    """Run `carom ARGUMENT...` in a namespace to its end."""
    return end_of(start(namespace, *arguments, **options), DEADLINE)


def end_of(process: subprocess.Popen[str], deadline: float) -> Ended:
    """What a program of `start` has said at its end; the test fails if that is late."""
    with process:
        try:
            stdout, stderr = process.communicate(timeout=deadline)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # it says where each of its threads is
            stdout, stderr = process.communicate(timeout=DEADLINE)
            raise AssertionError(
                f"{process.args} did not end in {deadline} s:\n{stdout}\n{stderr}"
            ) from None
        finally:
            process.kill()
        return Ended(process.pid, process.returncode, stdout, stderr)


def lab_run(*arguments: str, deadline: float, **variables: str) -> subprocess.CompletedProcess[str]:
    """`carom lab run ARGUMENT...` on a pair of namespaces of its own, to its end."""
    return subprocess.run(
        [*CAROM, "lab", "run", *arguments],
        capture_output=True,
        text=True,
        timeout=deadline,
        check=False,
        env=environment(**variables),
    )


class Carom:
    """`carom serve` (or `front`) in a namespace, ready when this is made; leaving it ends it.

    Leaving by itself checks what holds for every end by a signal: exit code 0, no traceback (but
    for handlers that fail on purpose), no program and no control socket left.
    """

    def __init__(
        self,
        namespace: Namespace,
        *arguments: str,
        interface: str | None = INTERFACE,
        handlers_fail: bool = False,
        command: str = "serve",
        program: Sequence[str] = CAROM,
    ):
        self.namespace = namespace
        self.interface = interface
        self._handlers_fail = handlers_fail
        self._strangers = at_tc(namespace, interface) if interface else []
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in _end
        where = ("-i", interface) if interface else ()
        words = (command, *where, *arguments, "--json")
        self.process = start(namespace, *words, stderr=self._stderr, program=program)
        self.pid = self.process.pid
        self.ended: Ended | None = None
        self.ready: dict[str, Any] = json.loads(self._first_line())

    @property
    def mode(self) -> str | None:
        """XDP's mode, where it is on an interface."""
        found = [one["mode"] for one in self.ready["interfaces"]]
        return found[0] if found else None

    def _first_line(self) -> str:
        assert self.process.stdout
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            selector.select(DEADLINE)
        if not selector:
            self.process.kill()
        line = self.process.stdout.readline()
        if not line:
            self._end()
            raise AssertionError(f"carom did not get ready: {self.ended}")
        return line

    def stderr(self) -> str:
        """What it has logged so far."""
        at = os.lseek(self._stderr.fileno(), 0, os.SEEK_CUR)
        return os.pread(self._stderr.fileno(), at, 0).decode()

    def status(self) -> dict[str, Any]:
        """What `carom status --json` prints."""
        status: dict[str, Any] = control.call("status", self.pid, timeout=DEADLINE)
        return status

    def flush(self) -> None:
        """What `carom cache flush` does."""
        control.call("flush", self.pid, timeout=DEADLINE)

    def counters(self) -> dict[str, int]:
        """Verdicts, and the counters of the server and its cache."""
        status = self.status()
        cache = status["cache"] or {}
        counters = {**status["verdicts"], **(status["server"] or {})}
        counters |= {name: cache[name] for name in _CACHE if cache}
        return {name: n for name, n in counters.items() if name not in _BACKGROUND}

    def since(self, before: dict[str, int]) -> dict[str, int]:
        """The counters that have changed, and by how much."""
        changes = {name: n - before[name] for name, n in self.counters().items()}
        return {name: n for name, n in changes.items() if n}

    def expect(self, before: dict[str, int], **changes: int) -> None:
        """Exactly these counters have changed by so much, those apart that changed by 0.

        A server counts its reply after it has left, so this looks again before it fails.
        """
        wanted = {name: n for name, n in changes.items() if n}
        end = time.monotonic() + 5
        while (found := self.since(before)) != wanted and time.monotonic() < end:
            time.sleep(0.02)
        assert found == wanted, f"changed by {found}, not {wanted}"

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait(self) -> Ended:
        """Wait for its end."""
        try:
            self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(DEADLINE)
            self.process.kill()
            raise AssertionError(f"it does not end: {self._end()}") from None
        return self._end()

    def _end(self) -> Ended:
        if not self.ended:
            assert self.process.stdout
            code = self.process.wait()
            self.ended = Ended(self.pid, code, self.process.stdout.read(), self.stderr())
            self.process.stdout.close()
            self._stderr.close()
            print(self.ended)  # for whoever reads of a failure
        return self.ended

    def stop(self) -> Ended:
        """End it by SIGTERM, and check that it left nothing behind."""
        self.signal(signal.SIGTERM)
        ended = self.wait()
        self.check_clean(ended)
        return ended

    def check_clean(self, ended: Ended) -> None:
        """It went by itself and left nothing behind."""
        assert ended.code == 0, ended
        assert self._handlers_fail or "Traceback" not in ended.stderr, ended
        assert not control_socket(self.pid).exists()
        if self.interface:
            assert attached(self.namespace, self.interface) is None
            assert at_tc(self.namespace, self.interface) == self._strangers

    def __enter__(self) -> Carom:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.ended:
            return
        if error:
            self.process.kill()
            self._end()
        else:
            self.stop()
