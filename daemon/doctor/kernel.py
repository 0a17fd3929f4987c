# SPDX-License-Identifier: Apache-2.0
"""Checks of the kernel: what it lets programs do, and how fast it runs them."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

from carom.daemon.doctor.check import Found, NotKnown, check, read, setting
from carom.daemon.doctor.look import Look
from carom.errors import PrivilegeError
from carom.kernel import libbpf
from carom.kernel.bpf import OLDEST, check_privileges, version

_LINKS_AT_TC = (6, 6)  # the first version with TCX
_FILES_LEAST = 256
MEMORY_LEAST = 96 * 2**20
"""Bytes that a carom takes without its cache: a front's process and maps take 67 MiB."""

_ENTRY_MOST = 1_952
"""Bytes of the longest entry, with what finds it (docs/operating.md)."""

CONNTRACK_FULL = 0.9


@check(
    "linux",
    "kernel",
    "useless",
    means=f"the kernel is older than Linux {OLDEST[0]}.{OLDEST[1]}, so programs are refused (a "
    f"note before {_LINKS_AT_TC[0]}.{_LINKS_AT_TC[1]}: at TC a filter outlives `kill -9`)",
    remedy="a newer kernel",
)
def linux(look: Look) -> Iterator[Found]:
    """Is it new enough?"""
    release = read(look.root / "proc/sys/kernel/osrelease")
    if version(release) < OLDEST:
        yield Found(
            f"this kernel is {release}: programs are refused",
            f"Linux {OLDEST[0]}.{OLDEST[1]} or newer",
        )
    elif version(release) < _LINKS_AT_TC:
        yield Found(
            f"this kernel ({release}) has no links at TC: a filter there stays after kill -9, "
            "until the next start",
            "Linux 6.6 or newer",
            severity="note",
        )


@check(
    "bpf",
    "kernel",
    "useless",
    means="the kernel refuses a program that does nothing: a security module, a filter of system "
    "calls (seccomp), or a kernel without BPF",
    remedy="let this service call bpf(2) (`SystemCallFilter=`, a container's seccomp profile)",
)
def bpf(_: Look) -> Iterator[Found]:
    """Does it take programs at all? One that is never attached is loaded."""
    try:
        check_privileges()
    except PrivilegeError as error:
        raise NotKnown(f"{error}: {error.hint}") from error
    try:
        os.close(libbpf.load_xdp_pass())
    except OSError as error:
        yield Found(
            f"the kernel refuses XDP programs: {error.strerror}",
            "let it call bpf(2): a container's seccomp profile, SystemCallFilter=, lockdown",
        )


@check(
    "jit",
    "kernel",
    "slow",
    means="the kernel interprets BPF programs",
    remedy="`sysctl net.core.bpf_jit_enable=1`, then start carom anew",
    at_start=True,
)
def jit(look: Look) -> Iterator[Found]:
    """Does it compile programs?"""
    path = look.root / "proc/sys/net/core/bpf_jit_enable"
    if not path.exists():  # it is the host's own network namespace that shows it
        if not _compiles():
            yield Found("the kernel interprets BPF programs", "sysctl net.core.bpf_jit_enable=1")
    elif read(path) == "0":
        yield Found(
            "the kernel interprets BPF programs (net.core.bpf_jit_enable=0)",
            "sysctl net.core.bpf_jit_enable=1; what is loaded already stays as it is",
            setting(path, "0", "1", "sysctl net.core.bpf_jit_enable={}"),
        )


@check(
    "jit-hardening",
    "kernel",
    "slow",
    means="the kernel hides all constants in compiled programs, root's too",
    remedy="`sysctl net.core.bpf_jit_harden=1` hides those of unprivileged programs alone",
    at_start=True,
)
def jit_hardening(look: Look) -> Iterator[Found]:
    """Does it make root's programs slower for safety?"""
    if _of_host(look.root / "proc/sys/net/core/bpf_jit_harden") == "2":
        yield Found(
            "the kernel hardens all compiled programs (net.core.bpf_jit_harden=2): each constant "
            "takes three instructions",
            "sysctl net.core.bpf_jit_harden=1, where only root loads programs, and start carom "
            "anew",
        )


def _compiles() -> bool:
    """Whether a program that is loaded now is compiled. Raises NotKnown."""
    try:
        program = libbpf.load_xdp_pass()
    except OSError as error:
        raise NotKnown(
            f"no program can be loaded to see whether it is compiled: {error}"
        ) from error
    try:
        return libbpf.is_compiled(program)
    finally:
        os.close(program)


def _of_host(path: Path) -> str:
    """A setting that the host's own network namespace alone shows. Raises NotKnown."""
    if not path.exists():
        raise NotKnown(f"{path} is not there: only the host's own network namespace shows it")
    return read(path)


@check(
    "unprivileged-bpf",
    "kernel",
    "note",
    means="any user may load BPF programs, for which processors' mitigations are not enough",
    remedy="`sysctl kernel.unprivileged_bpf_disabled=2`",
)
def unprivileged(look: Look) -> Iterator[Found]:
    """May any user load programs?"""
    if read(look.root / "proc/sys/kernel/unprivileged_bpf_disabled") == "0":
        yield Found(
            "any user may load BPF programs (kernel.unprivileged_bpf_disabled=0)",
            "sysctl kernel.unprivileged_bpf_disabled=2, unless a program of yours needs it",
        )


@check(
    "lockdown",
    "kernel",
    "note",
    means="the kernel is locked down for confidentiality: carom runs, and tools that would trace "
    "it (bpftrace) do not",
    remedy="none needed",
)
def lockdown(look: Look) -> Iterator[Found]:
    """Is it locked down?"""
    if "[confidentiality]" in read(look.root / "sys/kernel/security/lockdown"):
        yield Found(
            "the kernel is locked down (confidentiality): programs that trace kernels are refused, "
            "carom's are not",
            "none needed; look by carom why and carom status",
        )


@check(
    "memory",
    "kernel",
    "useless",
    means="the control group may take less memory than carom does: it is killed (a note where that "
    "is so with a full cache alone)",
    remedy="a larger `memory.max` (`MemoryMax=`), or a smaller `--capacity` or `--memory`",
)
def memory(look: Look) -> Iterator[Found]:
    """Has it enough memory? Looked at is the running carom's group, or else this command's."""
    lowest = min(_limits(look), default=None, key=lambda limit: limit[0])
    options = [asked.options for asked in look.services[:1]]  # they share the cache
    cache = sum(one.memory or one.capacity * _ENTRY_MOST for one in options)
    if lowest and lowest[0] < MEMORY_LEAST + cache:
        yield Found(
            f"the control group {lowest[1]} may take {lowest[0] >> 20} MiB, and carom up to "
            f"{(MEMORY_LEAST + cache) >> 20}",
            "raise memory.max (MemoryMax=), or lower --capacity or --memory",
            severity="useless" if lowest[0] < MEMORY_LEAST else "note",
        )


def _limits(look: Look) -> Iterator[tuple[int, str]]:
    """The limits of memory in bytes that hold for a process, with their groups."""
    of = look.pid or "self"
    lines = read(look.root / f"proc/{of}/cgroup").splitlines()
    seen = False
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, file = look.root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            top, file = look.root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        group = Path(path.lstrip("/"))
        for one in (group, *group.parents):
            limit = top / one / file
            if limit.exists():
                seen = True
                if (text := read(limit)) != "max":
                    yield int(text), f"/{one}" if str(one) != "." else "/"
    if not seen and not any((look.root / "sys/fs/cgroup" / name).exists() for name in _CGROUPS):
        raise NotKnown("control groups are not mounted here")


_CGROUPS = ("cgroup.controllers", "memory")
"""What there is where they are mounted, of version 2 and of version 1."""


@check(
    "files",
    "kernel",
    "useless",
    means="the process may have too few files open for its programs and maps",
    remedy="`ulimit -Hn 1024`, `LimitNOFILE=1024`",
)
def files(_: Look) -> Iterator[Found]:
    """May it have enough files open?"""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < _FILES_LEAST:
        yield Found(
            f"what is started from here may have {hard} files open",
            "ulimit -Hn 1024, or LimitNOFILE=1024 in its unit",
        )


@check(
    "conntrack",
    "kernel",
    "slow",
    means="the table of connections is nearly full: what misses is dropped when it is",
    remedy="a larger `net.netfilter.nf_conntrack_max`; or a rule with `notrack` for the port",
    at_start=True,
)
def conntrack(look: Look) -> Iterator[Found]:
    """Is there room for connections of requests that miss?"""
    folder = look.root / "proc/sys/net/netfilter"
    if not (folder / "nf_conntrack_count").exists():
        return  # nothing is tracked
    count, most = (int(read(folder / f"nf_conntrack_{name}")) for name in ("count", "max"))
    if most and count >= CONNTRACK_FULL * most:
        yield Found(
            f"{count:,} of {most:,} connections are tracked: requests that miss are dropped when "
            "the table is full",
            "raise net.netfilter.nf_conntrack_max, or a rule with notrack for the port",
        )
