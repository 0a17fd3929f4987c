# SPDX-License-Identifier: Apache-2.0
"""The one module that talks to BCC: compile C files, give out their programs and maps."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import resource
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from carom.errors import BPFError, CompileError, PrivilegeError, VerifierError
from carom.kernel import forked, libbpf
from carom.kernel.resource import Resource

INCLUDE = Path(__file__).resolve().parent.parent / "include"
MERGED_HEADERS = Path("/usr/local/lib/carom/kernel-headers")
"""Where vm/provision.sh puts headers for a kernel that has no headers package of its own."""

Hook = Literal["xdp", "tc", "cgroup", "bind4", "bind6", "release", "socket", "lookup"]
"""Where a program runs."""

FILES = 1024
"""Files that may be open at once, where there may be: far more than programs and maps are."""

COMPILER = 72 << 20
"""Bytes that clang takes on top of what there is, and a little more: 62 MiB for the lab's shortest
program with Debian 12's LLVM, 66 for everything that is fronted. It aborts where it has not."""

_MEMORY_LIMITS = (
    (resource.RLIMIT_DATA, "VmData", "ulimit -d", "LimitDATA="),
    (resource.RLIMIT_AS, "VmSize", "ulimit -v", "LimitAS="),
)
"""Limits of a process' memory, what counts against each (/proc/PID/status), and who sets them."""

_PROVISION = "run vm/provision.sh as root (sudo ./run setup does)"


def _find_headers() -> None:
    """Point BCC at the merged headers, if the kernel has none of its own and none are chosen.

    Raises CompileError for a chosen tree without headers: BCC crashes on some programs there.
    """
    running = Path("/lib/modules") / os.uname().release
    if (
        "BCC_KERNEL_SOURCE" not in os.environ
        and not (running / "build").exists()
        and MERGED_HEADERS.exists()
    ):
        os.environ["BCC_KERNEL_SOURCE"] = str(MERGED_HEADERS)
    chosen = os.environ.get("BCC_KERNEL_SOURCE")
    if chosen and not (Path(chosen) / "include/linux/kconfig.h").exists():
        raise CompileError(
            f"there are no kernel headers in {chosen}, which BCC_KERNEL_SOURCE names",
            hint=f"unset it, or {_PROVISION}",
        )


def import_bcc() -> Any:
    """BCC's package. Raises CompileError."""
    try:
        with warnings.catch_warnings(action="ignore"):  # its own, which -W error would raise
            import bcc
    except (ImportError, OSError, AttributeError) as error:  # the latter: of its library
        raise CompileError(
            f"BCC's Python package cannot be imported: {error}",
            hint=f"it is Debian's python3-bpfcc (bcc on PyPI is another package): {_PROVISION}",
        ) from error
    if not hasattr(bcc, "BPF"):
        raise CompileError(
            f"the bcc package at {bcc.__file__} is not the BPF Compiler Collection",
            hint="uninstall it from this environment; Debian's python3-bpfcc is the right one",
        )
    return bcc


def _stand_somewhere() -> None:
    """clang refuses to work in a folder that is gone."""
    try:
        os.getcwd()
    except OSError:
        os.chdir("/")


def _raise_file_limit() -> None:
    """Some shells and supervisors allow few open files, where the limit may be raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES:
        most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _check_memory() -> None:
    """clang does not survive a limit that it runs into. Raises CompileError before."""
    taken = dict(re.findall(r"(\w+):\s+(\d+) kB", Path("/proc/self/status").read_text()))
    for limit, counted, shell, unit in _MEMORY_LIMITS:
        soft, _ = resource.getrlimit(limit)
        left = soft - int(taken[counted]) * 1024
        if soft != resource.RLIM_INFINITY and left < COMPILER:
            raise CompileError(
                f"this process may take {max(0, left) >> 20} MiB of memory more, and the compiler "
                f"needs {COMPILER >> 20}",
                hint=f"raise its limit of {soft >> 20} MiB: `{shell}`, or {unit} of its unit",
            )


@contextlib.contextmanager
def _captured() -> Iterator[list[str]]:
    """Collect what clang and the verifier write to descriptors 1 and 2, for an error's details."""
    lines: list[str] = []
    sys.stdout.flush()
    with open(os.memfd_create("said"), "w+b") as capture:  # there may be no folder to write in
        saved = [(fd, os.dup(fd)) for fd in (1, 2)]
        for fd, _ in saved:
            os.dup2(capture.fileno(), fd)
        try:
            yield lines
        finally:
            ctypes.CDLL(None).fflush(None)  # what C code still holds back was said here
            for fd, copy in saved:
                os.dup2(copy, fd)
                os.close(copy)
            capture.seek(0)
            lines.extend(capture.read().decode(errors="replace").splitlines())


def expand(
    source: Path,
    include: Sequence[Path],
    seen: set[Path] | None = None,
    written: Mapping[str, str] | None = None,
) -> str:
    """A C file with its own `#include "..."` lines replaced by those files, each once.

    BCC knows its maps in the main file only, so what is shared has to be part of that. Lines keep
    their file and number for clang's messages. `written` are headers that are no files, by name.
    """
    seen = set() if seen is None else seen
    written = written or {}
    if source in seen:
        return ""
    seen.add(source)
    text = written[source.name] if source.name in written else source.read_text()
    lines = [f'#line 1 "{source.name}"']
    for number, line in enumerate(text.splitlines(), 1):
        quoted = re.match(r'#include "(.+)"', line)
        if not quoted:
            lines.append(line)
            continue
        found = (folder / quoted[1] for folder in include if (folder / quoted[1]).exists())
        path = Path(quoted[1]) if quoted[1] in written else next(found, None)
        if path is None:
            raise CompileError(f"{source.name} includes {quoted[1]}, which is not there")
        lines += [expand(path, include, seen, written), f'#line {number + 1} "{source.name}"']
    return "\n".join(lines)


def check_privileges() -> None:
    """Loading needs root, or CAP_BPF with CAP_NET_ADMIN and CAP_PERFMON.

    Raises PrivilegeError.
    """
    with open("/proc/self/status") as status:
        effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff"))
    net_admin, sys_admin, perfmon, bpf = (bool(effective >> bit & 1) for bit in (12, 21, 38, 39))
    if not (net_admin and (sys_admin or (bpf and perfmon))):
        raise PrivilegeError(
            "this process may not load BPF programs",
            hint="run it as root, or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN",
        )


_FLAGS = ("-fno-unroll-loops", "-Werror=implicit-function-declaration")
"""Unrolled loops take clang 1.7 of the 4 s that `carom front` compiles for, and save nothing. A
function that is not declared is one of the kernel's to BCC, which does not show the warning."""


_OLDEST = (5, 18)
"""The first kernel that has all that is called."""

_TOO_LARGE = "insns), at most"


def _version(release: str) -> tuple[int, ...]:
    """The numbers of `6.1.0-18-amd64` that order kernels: (6, 1)."""
    return tuple(int(one) for one in re.findall(r"\d+", release)[:2])


def _too_few_files(error: Exception, details: str) -> bool:
    why = os.strerror(errno.EMFILE)
    return why in details or why in str(error)


_STATISTICS = re.compile(r"processed \d+ insns|verification time|stack depth").match
"""What the verifier says behind its reason."""


class Module(Resource):
    """C files compiled as one: their programs and maps live until it closes.

    Raises PrivilegeError, CompileError (clang's words in `details`) or VerifierError (its log).
    """

    def __init__(
        self,
        *sources: Path,
        include: tuple[Path, ...] = (),
        defines: Mapping[str, str | int | None] | None = None,
        written: Mapping[str, str] | None = None,
    ):
        """`written` are headers that are no files, by name."""
        check_privileges()
        _find_headers()
        _stand_somewhere()
        _raise_file_limit()
        self._bcc = import_bcc()
        _check_memory()
        self._name = ", ".join("/".join(source.parts[-2:]) for source in sources)
        seen: set[Path] = set()
        folders = (INCLUDE, *include)
        text = "\n".join(expand(source, folders, seen, written) for source in sources)
        cflags = [
            *_FLAGS,
            *(
                f"-D{name}" if value is None else f"-D{name}={value}"
                for name, value in (defines or {}).items()
            ),
        ]
        said: list[str] = []
        try:
            with _captured() as said:
                self._module = self._bcc.BPF(text=text.encode(), cflags=cflags)
        except Exception as error:  # BCC raises bare Exceptions
            raise self._explained(error, said) from error
        library, module = self._bcc.lib, self._module.module
        self._descriptors = {
            forked.keep(int(library.bpf_table_fd_id(module, table)))
            for table in range(library.bpf_num_tables(module))
        }

    def _explained(self, error: Exception, said: list[str]) -> BPFError:
        details = "\n".join(said)
        if "kernel headers" in details or "kernel/arch" in details:
            return CompileError(
                "BCC found no kernel headers for this kernel", hint=_PROVISION, details=details
            )
        first = next((line for line in said if "error:" in line), str(error))
        if _too_few_files(error, details):
            return self._need_files(details)
        if "could not open bpf map" in details:
            return BPFError(
                f"the kernel refused a map of {self._name}: {first.strip()}",
                hint="a smaller --capacity needs less memory; -v shows more",
                details=details,
            )
        return CompileError(
            f"clang refused {self._name}: {first.strip()}",
            hint="-v shows all that it said",
            details=details,
        )

    def _need_files(self, details: str) -> BPFError:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return BPFError(
            f"this process may have {limit} files open, too few for the programs and maps of "
            f"{self._name}",
            hint=f"ulimit -n {FILES}, or LimitNOFILE={FILES} in its unit",
            details=details,
        )

    def _refused(self, name: str, error: Exception, said: list[str]) -> BPFError:
        details = "\n".join(said)
        if _too_few_files(error, details):
            return self._need_files(details)
        release = os.uname().release
        if _version(release) < _OLDEST:
            hint = f"this kernel is {release}, and {_OLDEST[0]}.{_OLDEST[1]} or newer is needed"
        else:
            hint = f"-v shows all that was said; kernel {release}"
        if _TOO_LARGE in details:  # what BCC says of it is another limit, of old kernels
            reason = "it takes the verifier more than the 1,000,000 instructions it looks at"
        else:
            lines = (line for line in reversed(said) if line.strip() and not _STATISTICS(line))
            reason = next(lines, str(error))
        return VerifierError(
            f"the kernel's verifier refused {name} of {self._name}: {reason}",
            hint=hint,
            details=details,
        )

    def program(self, name: str, hook: Hook = "xdp") -> int:
        """Load a program, once, and return its descriptor."""
        kind = {
            "xdp": self._bcc.BPF.XDP,
            "tc": self._bcc.BPF.SCHED_CLS,
            "cgroup": self._bcc.BPF.CGROUP_SKB,
            "bind4": libbpf.PROG_TYPE_CGROUP_SOCK,
            "bind6": libbpf.PROG_TYPE_CGROUP_SOCK,
            "release": libbpf.PROG_TYPE_CGROUP_SOCK,
            "socket": self._bcc.BPF.SOCKET_FILTER,
            "lookup": libbpf.PROG_TYPE_SK_LOOKUP,
        }[hook]
        expected = libbpf.EXPECTED.get(hook, -1)
        said: list[str] = []
        try:
            with _captured() as said:
                loaded = self._module.load_func(name.encode(), kind, attach_type=expected)
        except Exception as error:  # BCC raises bare Exceptions
            raise self._refused(name, error, said) from error
        descriptor = forked.keep(int(loaded.fd))
        self._descriptors.add(descriptor)
        return descriptor

    def map(self, name: str) -> int:
        """The descriptor of a map."""
        fd = int(self._bcc.lib.bpf_table_fd(self._module.module, name.encode()))
        if fd < 0:
            raise BPFError(f"{self._name} has no map {name}")
        return fd

    def cells(self, name: str, count: int) -> memoryview:
        """The u64 cells of a mmapable array: reads and writes need no system call."""
        return forked.shared(self.map(name), count * 8).cast("Q")

    def ring(self, name: str, take: Callable[[bytes], bool | None]) -> None:
        """Have `drain` and `wait` give records of a ring buffer to `take`, until it says False."""

        def called(_cpu: Any, data: int, size: int) -> int:
            return -1 if take(ctypes.string_at(data, size)) is False else 0

        self._module[name.encode()].open_ring_buffer(called)

    def drain(self) -> None:
        """Take what the ring buffers hold."""
        self._module.ring_buffer_consume()

    def wait(self, seconds: float) -> None:
        """As `drain`; where they hold nothing, wait for the first record, no longer than told."""
        self._module.ring_buffer_poll(round(seconds * 1000))

    def close(self) -> None:
        """Free programs and maps."""
        for descriptor in self._descriptors:
            forked.forget(descriptor)
        self._module.cleanup()
