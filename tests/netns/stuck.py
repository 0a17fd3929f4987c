# SPDX-License-Identifier: Apache-2.0
"""A page of memory that is not there until it is told: a system call that reads it waits meanwhile.

By userfaultfd (ioctl_userfaultfd(2)): a `send` of it holds its socket's lock for as long.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import platform
import struct

import pytest

from carom.kernel.resource import Resource

_CALLS = {"x86_64": 323, "aarch64": 282}
_API, _REGISTER, _COPY = 0xC018AA3F, 0xC020AA00, 0xC028AA03  # UFFDIO_*, linux/userfaultfd.h
_VERSION, _MISSING = 0xAA, 1


class Stuck(Resource):
    """One page, as `memory`. Skips the test where there is none to be had."""

    def __init__(self) -> None:
        number = _CALLS.get(platform.machine())
        libc = ctypes.CDLL(None, use_errno=True)
        self._faults = libc.syscall(number, os.O_CLOEXEC) if number else -1
        if self._faults < 0:
            pytest.skip(f"no userfaultfd: {os.strerror(ctypes.get_errno())}")
        fcntl.ioctl(self._faults, _API, bytearray(struct.pack("QQQ", _VERSION, 0, 0)))
        self.memory = mmap.mmap(-1, mmap.PAGESIZE)
        self._at = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        told = struct.pack("QQQQ", self._at, mmap.PAGESIZE, _MISSING, 0)
        fcntl.ioctl(self._faults, _REGISTER, bytearray(told))

    def release(self, data: bytes) -> None:
        """The page is there, with this in it."""
        page = ctypes.create_string_buffer(data, mmap.PAGESIZE)
        told = struct.pack("QQQQq", self._at, ctypes.addressof(page), mmap.PAGESIZE, 0, 0)
        fcntl.ioctl(self._faults, _COPY, bytearray(told))

    def close(self) -> None:
        """Let it go, if nobody waits for it any more."""
        os.close(self._faults)
