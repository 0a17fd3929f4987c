# SPDX-License-Identifier: Apache-2.0
"""Runs a program under a unit's own terms, as systemd would, where no systemd runs.

    python confined.py UNIT USER PROGRAM [ARGUMENT...]

As root, in namespaces of its own (`unshare --mount`): file systems become read-only but for the
runtime directory, capabilities and the user are the unit's, and its filters of system calls are
made by libseccomp, as systemd's are. What it knows of is in KNOWN: a directive that is new there
fails, so that none is taken for tested that is not.
"""

from __future__ import annotations

import configparser
import ctypes
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

KNOWN = {
    *("AmbientCapabilities", "CapabilityBoundingSet", "NoNewPrivileges"),  # _user
    *("ProtectSystem", "ProtectKernelTunables", "ProtectControlGroups"),  # _files
    *("SystemCallFilter", "SystemCallErrorNumber", "MemoryDenyWriteExecute"),  # _calls
    "RestrictAddressFamilies",
}
"""What is done here."""

UNTRIED = {
    *("PrivateDevices", "PrivateTmp", "ProtectClock", "ProtectHome", "ProtectHostname"),
    *("ProtectKernelLogs", "ProtectKernelModules", "RestrictNamespaces", "RestrictRealtime"),
    *("RestrictSUIDSGID", "LockPersonality", "SystemCallArchitectures"),
}
"""What is left out."""

MANAGED = {
    *("Type", "ExecStart", "ExecReload", "TimeoutStartSec", "WatchdogSec", "Restart", "RestartSec"),
    *("RestartPreventExitStatus", "DynamicUser", "RuntimeDirectory", "RuntimeDirectoryMode"),
    *("RuntimeDirectoryPreserve", "Environment", "UMask"),
}
"""What the manager itself does, or the test."""

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000  # SCMP_ACT_ of seccomp.h
_EQUAL, _MASKED = 4, 7  # SCMP_CMP_
_WRITE, _EXECUTE = 2, 4  # PROT_, of sys/mman.h


class _Compared(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("how", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def service_of(unit: Path) -> dict[str, list[str]]:
    """The directives of a unit's service, each with its values."""

    class Many(dict[str, str]):
        def __setitem__(self, key: str, value: object) -> None:
            if key in self and isinstance(value, list):
                self[key].extend(value)  # type: ignore[attr-defined]
            else:
                super().__setitem__(key, value)  # type: ignore[assignment]

    parser = configparser.RawConfigParser(strict=False, dict_type=Many, delimiters="=")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(unit)
    return {name: value.split("\n") for name, value in parser["Service"].items()}


def calls_of(name: str) -> Iterator[str]:
    """The system calls that a name of SystemCallFilter= stands for."""
    if not name.startswith("@"):
        yield name
        return
    told = subprocess.run(
        ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True
    )
    for line in told.stdout.splitlines()[1:]:
        word = line.strip()
        if word and not word.startswith("#"):
            yield from calls_of(word)


def _files() -> None:
    def mount(*words: str) -> None:
        subprocess.run(["mount", *words], check=True)

    mount("--make-rprivate", "/")
    mount("-t", "cgroup2", "none", "/sys/fs/cgroup")
    run = os.environ["CAROM_RUN"]
    mount("--bind", run, run)
    mount("-o", "remount,bind,ro", "/")
    for one in ("/proc/sys", "/sys"):
        mount("--rbind", one, one)
        mount("-o", "remount,bind,ro", one)
    mount("-o", "remount,bind,ro", "/sys/fs/cgroup")


def _capabilities(text: str) -> str:
    return ",".join(["-all", *(f"+{name.lower().removeprefix('cap_')}" for name in text.split())])


def _user(service: dict[str, list[str]], user: str) -> list[str]:
    (bounding,), (ambient,) = service["CapabilityBoundingSet"], service["AmbientCapabilities"]
    return [
        *("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs"),
        f"--bounding-set={_capabilities(bounding)}",
        f"--inh-caps={_capabilities(ambient)}",
        f"--ambient-caps={_capabilities(ambient)}",
    ]


class _Filter:
    def __init__(self, otherwise: int):
        self._seccomp = ctypes.CDLL("libseccomp.so.2")
        self._seccomp.seccomp_init.restype = ctypes.c_void_p
        self._made = ctypes.c_void_p(self._seccomp.seccomp_init(otherwise))

    def rule(self, action: int, call: str, *compared: _Compared) -> None:
        number = self._seccomp.seccomp_syscall_resolve_name(call.encode())
        if number < 0:  # not of this architecture
            return
        array = (_Compared * len(compared))(*compared)
        result = self._seccomp.seccomp_rule_add_array(
            self._made, action, number, len(compared), array
        )
        assert result == 0, f"{call}: {os.strerror(-result)}"

    def load(self) -> None:
        result = self._seccomp.seccomp_load(self._made)
        assert result == 0, os.strerror(-result)


def _calls(service: dict[str, list[str]]) -> list[_Filter]:
    denied = _ERRNO | getattr(errno, service["SystemCallErrorNumber"][0])
    allowed = set(calls_of("@default"))
    for text in service["SystemCallFilter"]:
        named = {call for name in text.lstrip("~").split() for call in calls_of(name)}
        allowed = allowed - named if text.startswith("~") else allowed | named
    # systemd keeps what starts the program.
    calls = _Filter(denied)
    for call in sorted(allowed | {"execve"}):
        calls.rule(_ALLOW, call)
    memory = _Filter(_ALLOW)
    both = _WRITE | _EXECUTE
    memory.rule(_ERRNO | errno.EPERM, "mmap", _Compared(2, _MASKED, both, both))
    for call in ("mprotect", "pkey_mprotect"):
        memory.rule(_ERRNO | errno.EPERM, call, _Compared(2, _MASKED, _EXECUTE, _EXECUTE))
    families = _Filter(_ALLOW)
    may = {int(getattr(socket, name)) for name in service["RestrictAddressFamilies"][0].split()}
    for family in set(range(46)) - may:
        rule = _Compared(0, _EQUAL, family, 0)
        families.rule(_ERRNO | errno.EAFNOSUPPORT, "socket", rule)
    return [memory, families, calls]


def main() -> None:
    """Become the user, then filter, then the program."""
    unit, user, *program = sys.argv[1:]
    service = service_of(Path(unit))
    assert not service.keys() - KNOWN - UNTRIED - MANAGED, service.keys()
    if user != "-":
        _files()
        again = [sys.executable, "-P", __file__, unit, "-", *program]
        words = [*_user(service, user), *again]
        os.execvp(words[0], words)
    for one in _calls(service):
        one.load()
    os.execvp(program[0], program)


if __name__ == "__main__":
    main()
