# SPDX-License-Identifier: Apache-2.0
"""Keeps our descriptors and mappings out of processes that are forked.

A link, a socket or a map lives for as long as any process holds it. A child that a handler forks
would keep programs attached and the port bound after its parent's end. A child that executes
another program holds nothing anyway: all of it is close-on-exec.

Python's forks are seen here (os.fork, multiprocessing); forks by C code are not.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

_descriptors: set[int] = set()
_mappings: dict[int, int] = {}
_callbacks: list[Callable[[], object]] = []
_lock = threading.RLock()
"""Held during a fork, so that no fork comes between a change of a descriptor and our noting it."""

_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
_MAP_FIXED = 0x10  # asm-generic/mman-common.h
_FAILED = ctypes.c_void_p(-1).value
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def keep(descriptor: int) -> int:
    """Keep a descriptor out of forked processes from now on; returns it."""
    with _lock:
        _descriptors.add(descriptor)
    return descriptor


def made(make: Callable[[], int]) -> int:
    """The descriptor that `make` returns; no forked process ever has it. Raises as `make` does."""
    with _lock:
        return keep(make())


def forget(descriptor: int) -> None:
    """Leave this descriptor to somebody else, who closes it."""
    with _lock:
        _descriptors.discard(descriptor)


def close(descriptor: int) -> None:
    """Close a descriptor that was kept."""
    with _lock:
        _descriptors.discard(descriptor)
        os.close(descriptor)


def shared(descriptor: int, size: int) -> memoryview:
    """`size` bytes of a file as shared memory; a forked process finds zeros in their place.

    It is unmapped when nothing refers to it any more. Python's own mmap holds one more descriptor,
    which could not be kept from a child. Raises OSError.
    """
    with _lock:
        address = _libc.mmap(None, size, _READ_WRITE, mmap.MAP_SHARED, descriptor, 0)
        if address == _FAILED:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        _mappings[address] = size
    memory = (ctypes.c_char * size).from_address(address)
    weakref.finalize(memory, _unmap, address, size).atexit = False
    return memoryview(memory).cast("B")


def _unmap(address: int, size: int) -> None:
    with _lock:
        _mappings.pop(address, None)
        _libc.munmap(address, size)


COMPILING = 1800.0
"""Seconds that a compilation may take: an emulated machine needs minutes."""


_LOOK = 0.1
"""Seconds between two calls of `meanwhile`."""


def run(
    command: Sequence[str],
    *,
    timeout: float,
    given: bytes = b"",
    folder: Path | None = None,
    meanwhile: Callable[[], object] = lambda: None,
) -> bytes:
    """The output of a command that is `given` this, and killed after `timeout` seconds, or when
    `meanwhile`, which is called again and again, raises.

    No forked process gets the command's ends of its pipes: while it lived, they would stay open and
    be read. Raises OSError, and subprocess.SubprocessError where the command fails or takes too
    long.
    """
    with _lock, open(os.memfd_create("given"), "w+b") as stdin:  # a disk may be full
        stdin.write(given)
        stdin.seek(0)
        process = subprocess.Popen(
            command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder
        )
    with process:
        try:
            output, errors = _heard(process, time.monotonic() + timeout, meanwhile)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args, output, errors)
    return output


def _heard(
    process: subprocess.Popen[bytes], end: float, meanwhile: Callable[[], object]
) -> tuple[bytes, bytes]:
    while True:
        meanwhile()
        try:
            return process.communicate(timeout=min(_LOOK, max(0.0, end - time.monotonic())))
        except subprocess.TimeoutExpired:
            if time.monotonic() >= end:
                raise


@contextlib.contextmanager
def in_child(callback: Callable[[], object]) -> Iterator[None]:
    """Inside, a forked process calls this first, once it has dropped everything of ours."""
    with _lock:
        _callbacks.append(callback)
    try:
        yield
    finally:
        with _lock:
            _callbacks.remove(callback)


def _drop() -> None:
    """In the child: let go of what is the parent's, and detach nothing.

    Every descriptor's number stays in use, by /dev/null: who closes it later then closes nothing of
    the child's own.
    """
    _lock.release()
    if _descriptors:
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for descriptor in _descriptors:
            os.dup2(nothing, descriptor, inheritable=False)
        os.close(nothing)
    _descriptors.clear()
    for address, size in _mappings.items():
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
        _libc.mmap(address, size, _READ_WRITE, flags, -1, 0)
    _mappings.clear()
    callbacks = list(reversed(_callbacks))
    _callbacks.clear()
    for callback in callbacks:
        callback()


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_drop)
