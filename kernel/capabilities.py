# SPDX-License-Identifier: Apache-2.0
"""What this process may do beyond what any may, and giving up what it does not need any more.

capabilities(7): each thread has its own, and gives them to the threads and programs that it starts.
So `settle` says what is to stay before a daemon starts its threads, and each calls `shed` first of
all; the main thread does when it has done what takes more.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from carom.errors import UsageError

NAMES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"),
    *("SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW"),
    *("IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT"),
    *("SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD"),
    *("LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG"),
    *("WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE"),
)
"""By their numbers, without CAP_ (linux/capability.h)."""

_VERSION_3 = 0x20080522
_HEAD, _SETS = (
    struct.Struct("=Ii"),
    struct.Struct("=6I"),
)  # effective, permitted, inheritable; twice
_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 23, 24, 38  # linux/prctl.h
_SETPCAP = NAMES.index("SETPCAP")

_libc = ctypes.CDLL(None, use_errno=True)
_stay: int | None = None


def check(name: str) -> None:
    """Raises UsageError for what is no capability's name: CAP_BPF, bpf."""
    if _plain(name) not in NAMES:
        raise UsageError(f"there is no capability {name!r}", hint="for example CAP_DAC_OVERRIDE")


def _plain(name: str) -> str:
    return name.upper().removeprefix("CAP_")


def bits(names: Iterable[str]) -> int:
    """A set of capabilities, as the kernel has it."""
    return sum(1 << number for number in {NAMES.index(_plain(name)) for name in names})


def effective() -> int:
    """This thread's."""
    lines = Path("/proc/thread-self/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff"))


def missing(*names: str) -> list[str]:
    """Those of these that this thread does not have, in full: CAP_BPF."""
    mine = effective()
    return [f"CAP_{name}" for name in names if not mine & bits([name])]


def gain_no_more() -> None:
    """No program that this process starts from now on has more than this process has."""
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def settle(names: Iterable[str]) -> None:
    """Say which `shed` keeps from now on."""
    global _stay
    _stay = bits(names)


def shed() -> None:
    """Give up what is not to stay, for this thread and all that it starts. Raises OSError."""
    if _stay is None:
        return
    if _sets()[0] >> _SETPCAP & 1:
        _drop_for_programs(~_stay)
    _keep(_stay)


def give_up(names: Iterable[str]) -> None:
    """Give up some, for this thread and all programs that it starts. Raises OSError."""
    gone = bits(names)
    _drop_for_programs(gone)
    _keep(~gone)


def _drop_for_programs(gone: int) -> None:
    """Let no program that is executed from now on get these. Raises OSError."""
    for number in range(len(NAMES)):
        if gone >> number & 1 and _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1:
            _check(_libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0))


def _keep(stay: int) -> None:
    """Keep of this thread's no others. Raises OSError."""
    words = (stay & 0xFFFFFFFF,) * 3 + (stay >> 32 & 0xFFFFFFFF,) * 3
    kept = (mine & word for mine, word in zip(_sets(), words, strict=True))
    _check(_libc.capset(_HEAD.pack(_VERSION_3, 0), _SETS.pack(*kept)))


def _sets() -> tuple[int, ...]:
    """This thread's, as capget(2) has them. Raises OSError."""
    sets = ctypes.create_string_buffer(_SETS.size)
    _check(_libc.capget(_HEAD.pack(_VERSION_3, 0), sets))
    return _SETS.unpack(sets)


def _check(result: int) -> None:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
