# SPDX-License-Identifier: Apache-2.0
"""The environment of a run: the machine, the kernel, the versions."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
from pathlib import Path

from carom.errors import CompileError
from carom.kernel.compiler import import_bcc
from carom.lab.record import Environment

PACKAGES = ("bcc", "pyroute2", "scapy", "numpy", "scipy")


def environment(pair: str, driver: str, mode: str | None, offloads: dict[str, bool]) -> Environment:
    """The environment of this machine, completed by what the caller knows of the pair.

    `mode` is how XDP was attached; `offloads` are the device's, by their ethtool names.
    """
    return Environment(
        carom=_version("carom") or "unknown",
        kernel=platform.release(),
        distribution=_distribution(),
        cpu=_cpu(),
        cpus=os.cpu_count() or 0,
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        pair=pair,
        driver=driver,
        mode=mode,
        offloads=offloads,
        versions=versions(),
        load_average=os.getloadavg(),
    )


def versions() -> dict[str, str]:
    """The versions of Python, of `PACKAGES` and of BCC's clang, where known."""
    known = {name: _version(name) for name in PACKAGES}
    known["python"] = platform.python_version()
    known["clang"] = _clang()
    return {name: version for name, version in known.items() if version}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _clang() -> str | None:
    """The version of the LLVM that BCC maps into this process; None if it is not mapped."""
    with contextlib.suppress(CompileError):
        import_bcc()
    match = re.search(r"libLLVM(?:-|\.so\.)(\d+[\d.]*\d|\d)", _read("/proc/self/maps"))
    return match[1] if match else None


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return "unknown"


def _cpu() -> str:
    """The CPU's name; the architecture where /proc/cpuinfo has none (arm64)."""
    match = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return match[1].strip() if match else platform.machine()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
