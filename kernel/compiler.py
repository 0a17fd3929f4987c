# SPDX-License-Identifier: Apache-2.0
"""The one module that talks to BCC: C in, programs and maps out.

BCC and LLVM take a hundred megabytes and never give them back, so they run in a process of their
own: `python -m carom.kernel.compiler`.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import resource
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from carom.errors import CompileError
from carom.kernel import btf, forked, libbpf
from carom.kernel.compiled import Compiled, Hook, Refused, hook_of, parse
from carom.kernel.signals import end_with_parent, stop_if_asked

MERGED_HEADERS = Path("/usr/local/lib/carom/kernel-headers")
"""Where vm/provision.sh puts headers for a kernel that has no headers package of its own."""

COMPILER = 72 << 20
"""Bytes of memory that clang needs, and a little more: 62 MiB for the lab's shortest program with
Debian 12's LLVM, 66 for everything that is fronted. clang aborts where it gets less."""

_MEMORY_LIMITS = (
    (resource.RLIMIT_DATA, "VmData", "ulimit -d", "LimitDATA="),
    (resource.RLIMIT_AS, "VmSize", "ulimit -v", "LimitAS="),
)
"""Limits of a process' memory; for each what counts against it (/proc/PID/status), the shell
command and the unit's setting that change it."""

PROVISION = "run vm/provision.sh as root (sudo ./run setup does)"


def _find_headers() -> None:
    """Make BCC use the merged headers if the kernel has none of its own and the user chose none.

    Raises CompileError if the chosen tree has no headers: BCC would crash on some programs.
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
            hint=f"unset it, or {PROVISION}",
        )


def import_bcc() -> Any:
    """BCC's package. Raises CompileError."""
    try:
        with warnings.catch_warnings(action="ignore"):  # its own, which -W error would raise
            import bcc
    except (ImportError, OSError, AttributeError) as error:  # the latter: of its library
        raise CompileError(
            f"BCC's Python package cannot be imported: {error}",
            hint=f"it is Debian's python3-bpfcc (bcc on PyPI is another package): {PROVISION}",
        ) from error
    if not hasattr(bcc, "BPF"):
        raise CompileError(
            f"the bcc package at {bcc.__file__} is not the BPF Compiler Collection",
            hint="uninstall it from this environment; Debian's python3-bpfcc is the right one",
        )
    return bcc


def _stand_somewhere() -> None:
    """Change to / if the current folder is gone: clang refuses to work in such a folder."""
    try:
        os.getcwd()
    except OSError:
        os.chdir("/")


def _check_memory() -> None:
    """Raises CompileError if clang would run into a memory limit, which it does not survive."""
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
    """Collect the lines that clang writes to descriptors 1 and 2, for an error's details."""
    lines: list[str] = []
    sys.stdout.flush()
    with open(os.memfd_create("said"), "w+b") as capture:  # there may be no folder to write in
        saved = [(fd, os.dup(fd)) for fd in (1, 2)]
        for fd, _ in saved:
            os.dup2(capture.fileno(), fd)
        try:
            yield lines
        finally:
            ctypes.CDLL(None).fflush(None)  # C code may still have it in a buffer
            for fd, copy in saved:
                os.dup2(copy, fd)
                os.close(copy)
            capture.seek(0)
            lines.extend(capture.read().decode(errors="replace").splitlines())


FLAGS = ("-fno-unroll-loops", "-Werror=implicit-function-declaration")
"""Unrolled loops would take clang 1.7 of the 4 s that `carom front` compiles for, and save nothing.
BCC takes an undeclared function for one of the kernel's, and does not show the warning."""


class _Answer(msgspec.Struct):
    """What the compiling process says: the result, or why there is none."""

    compiled: Compiled | None = None
    refused: str = ""
    said: list[str] = []
    missing: tuple[str, str] = ("", "")


BCC = "bcc"


class Source(msgspec.Struct):
    """C as one text, with clang's flags, and the hooks of programs (compiled.hook_of).

    `compiler` is BCC, or the name of a clang, whose text begins with clang.h.
    """

    text: str
    flags: list[str]
    hooks: dict[str, Hook]
    compiler: str = BCC

    @property
    def name(self) -> str:
        """What the result is kept under: the digest, and whose result it is, if not BCC's."""
        return self.digest() + ("" if self.compiler == BCC else f".{Path(self.compiler).name}")

    def digest(self) -> str:
        """A digest of all that it is made of, in hexadecimal digits."""
        hooks = (f"{name} {hook}" for name, hook in sorted(self.hooks.items()))
        hashed = hashlib.sha256()
        for part in (self.text, *self._all_flags(), *hooks):
            hashed.update(hashlib.sha256(part.encode()).digest())
        return hashed.hexdigest()

    def _all_flags(self) -> list[str]:
        if self.compiler == BCC:
            return [*FLAGS, *self.flags]
        from carom.kernel import clang  # most starts compile nothing

        return [*clang.FLAGS, *FLAGS, *self.flags]

    def parameters(self) -> list[str]:
        """The names of the parameters (parameter.h), in the order of their cells."""
        found = re.findall(r"^PARAMETER\((\w+), (\w+)\)", self.text, re.MULTILINE)
        cells = {int(cell, 16): name for cell, name in found}
        return [cells[number] for number in range(len(found))]

    def compile(self) -> Compiled:
        """Have it compiled. Raises CompileError, Refused."""
        if self.compiler != BCC:
            from carom.kernel import clang

            told = self._all_flags(), self.hooks, self.parameters()
            return clang.compiled(self.compiler, self.text, *told)
        command = [sys.executable, "-P", "-m", __name__]
        try:
            given = msgspec.msgpack.encode(self)
            said = forked.run(
                command, timeout=forked.COMPILING, given=given, meanwhile=stop_if_asked
            )
        except subprocess.CalledProcessError as error:
            raise CompileError(
                f"the compiler ended with {_ending(error.returncode)}",
                hint="is there memory enough? -v shows what it said",
                details=error.stderr.decode(errors="replace"),
            ) from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CompileError(f"the compiler did not run to its end: {error}") from error
        answer = msgspec.msgpack.decode(said, type=_Answer)
        if answer.missing[0]:
            message, hint = answer.missing
            raise CompileError(message, hint=hint or None)
        if not answer.compiled:
            raise Refused(answer.refused, answer.said)
        return answer.compiled


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"


def made_by_bcc(source: Source) -> Any:
    """What BCC makes of it, in this process. Raises CompileError, Refused."""
    _find_headers()
    bcc = import_bcc()
    _stand_somewhere()
    _check_memory()
    messages: list[str] = []
    try:
        with _captured() as messages:
            return bcc.BPF(text=source.text.encode(), cflags=[*FLAGS, *source.flags])
    except Exception as error:  # BCC raises bare Exceptions
        raise Refused(str(error), messages) from error


def _taken(made: Any, source: Source) -> Compiled:
    """The programs and maps that BCC holds."""
    library, module = _typed(import_bcc().lib), made.module
    names = {
        library.bpf_table_fd_id(module, n): library.bpf_table_name(module, n).decode()
        for n in range(library.bpf_num_tables(module))
    }
    parameters = source.parameters()
    functions = [
        library.bpf_function_name(module, n).decode()
        for n in range(library.bpf_num_functions(module))
    ]
    shapes = {name: libbpf.map_shape(fd) for fd, name in names.items()}
    maps = {name: shape for name, (shape, _) in shapes.items()}
    types = _types({number for _, number in shapes.values() if number})
    return Compiled(
        _libraries(),
        library.bpf_module_license(module).decode(),
        btf.complete(types, maps, parameters),
        maps,
        {
            name: parse(
                hook_of(source.hooks, name), made.dump_func(name.encode()), names, parameters
            )
            for name in functions
        },
    )


def _libraries() -> str:
    """The names of BCC's and LLVM's, which tell their versions."""
    maps = Path("/proc/self/maps").read_text()
    return " ".join(sorted(set(re.findall(r"/(lib(?:bcc|LLVM)[^/\s]*)$", maps, re.MULTILINE))))


def _types(numbers: set[int]) -> bytes:
    """The BTF with this number, which BCC has loaded; empty without a number."""
    if len(numbers) > 1:
        raise ValueError("maps have types of several kinds")
    return libbpf.btf(numbers.pop()) if numbers else b""


def _typed(library: Any) -> Any:
    """BCC's library, with the types of functions that its Python package does not declare."""
    for name, result, arguments in (
        ("bpf_num_tables", ctypes.c_size_t, []),
        ("bpf_table_name", ctypes.c_char_p, [ctypes.c_size_t]),
        ("bpf_table_fd_id", ctypes.c_int, [ctypes.c_size_t]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, [ctypes.c_void_p, *arguments]
    return library


def main() -> None:
    """Compile the Source on stdin; an _Answer goes to stdout."""
    end_with_parent(signal.SIGKILL)
    source = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Source)
    try:
        answer = _Answer(_taken(made_by_bcc(source), source))
    except CompileError as error:
        answer = _Answer(missing=(str(error), error.hint or ""))
    except Refused as error:
        answer = _Answer(refused=str(error), said=error.said)
    sys.stdout.buffer.write(msgspec.msgpack.encode(answer))
    sys.stdout.flush()
    os._exit(0)  # what LLVM has to tidy up takes a while


if __name__ == "__main__":
    main()
