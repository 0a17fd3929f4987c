# SPDX-License-Identifier: Apache-2.0
"""The few calls of libbpf that BCC's Python lacks, on plain file descriptors.

libbpf comes with BCC (Debian's libbpfcc depends on libbpf1). Its functions return -errno; here
they raise OSError, except that a missing key is an answer and no error.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import struct
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from carom.errors import BPFError
from carom.kernel import forked

BPF_XDP = 37  # enum bpf_attach_type
BPF_SK_LOOKUP = 36
BPF_TCX_INGRESS, BPF_TCX_EGRESS = 46, 47
_SOCKETS = {"bind4": 12, "bind6": 13, "create": 2, "release": 34}
_ADDRESSES = {
    "connect4": 10,
    "connect6": 11,
    "sendmsg4": 14,
    "sendmsg6": 15,
    "recvmsg4": 19,
    "recvmsg6": 20,
    "getpeername4": 29,
    "getpeername6": 30,
}
CGROUP = {"ingress": 0, "egress": 1, **_SOCKETS, **_ADDRESSES}
"""The attach types of a control group's hooks."""
EXPECTED = {"lookup": BPF_SK_LOOKUP, **_SOCKETS, **_ADDRESSES}
"""The attach type that a program is loaded for, where its kind alone is not enough."""
PROG_TYPE_SOCKET_FILTER, PROG_TYPE_SCHED_CLS, PROG_TYPE_XDP = 1, 3, 6
PROG_TYPE_CGROUP_SKB, PROG_TYPE_CGROUP_SOCK, PROG_TYPE_SK_LOOKUP = 8, 9, 30
PROG_TYPE_CGROUP_SOCK_ADDR = 18
PROG_TYPE_SK_SKB, PROG_TYPE_SK_MSG = 14, 16
MAP_TYPE_ARRAY_OF_MAPS = 12
XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT = range(5)  # enum xdp_action
XDP_FLAGS_SKB_MODE = 1 << 1
XDP_FLAGS_DRV_MODE = 1 << 2
_LIVE_FRAMES = 1 << 1  # BPF_F_TEST_XDP_LIVE_FRAMES


class _MapCreateOpts(ctypes.Structure):
    _fields_ = [
        ("sz", ctypes.c_size_t),
        ("btf_fd", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
        ("btf_vmlinux_value_type_id", ctypes.c_uint32),
        ("inner_map_fd", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
    ]


class _ProgLoadOpts(ctypes.Structure):
    _fields_ = [
        ("sz", ctypes.c_size_t),
        ("attempts", ctypes.c_int),
        ("expected_attach_type", ctypes.c_int),
        ("prog_btf_fd", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_ifindex", ctypes.c_uint32),
        ("kern_version", ctypes.c_uint32),
        ("attach_btf_id", ctypes.c_uint32),
        ("attach_prog_fd", ctypes.c_uint32),
        ("attach_btf_obj_fd", ctypes.c_uint32),
        ("fd_array", ctypes.c_void_p),
        ("func_info", ctypes.c_void_p),
        ("func_info_cnt", ctypes.c_uint32),
        ("func_info_rec_size", ctypes.c_uint32),
        ("line_info", ctypes.c_void_p),
        ("line_info_cnt", ctypes.c_uint32),
        ("line_info_rec_size", ctypes.c_uint32),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_void_p),
    ]


class _LinkCreateOpts(ctypes.Structure):
    _fields_ = [
        ("sz", ctypes.c_size_t),
        ("flags", ctypes.c_uint32),
        ("iter_info", ctypes.c_void_p),
        ("iter_info_len", ctypes.c_uint32),
        ("target_btf_id", ctypes.c_uint32),
    ]


class _TestRunOpts(ctypes.Structure):
    _fields_ = [
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_void_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    ]


class _MapBatchOpts(ctypes.Structure):
    _fields_ = [
        ("sz", ctypes.c_size_t),
        ("elem_flags", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    ]


class TestRun:
    """The result of BPF_PROG_TEST_RUN.

    `retval` is what the program returned, `data` the frame afterwards, `nanoseconds` the mean of
    one run.
    """

    __test__ = False  # pytest: not a test class

    def __init__(self, retval: int, data: bytes, nanoseconds: int):
        self.retval = retval
        self.data = data
        self.nanoseconds = nanoseconds


_SAMPLE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
"""ring_buffer_sample_fn"""


@functools.cache
def library() -> ctypes.CDLL:
    """libbpf, loaded. Raises BPFError where it is not installed, or lacks a function."""
    try:
        return _typed(ctypes.CDLL("libbpf.so.1"))
    except (OSError, AttributeError) as error:
        raise BPFError(
            f"libbpf cannot be loaded: {error}",
            hint="it comes with Debian's python3-bpfcc: run vm/provision.sh as root",
        ) from error


def _typed(libbpf: ctypes.CDLL) -> ctypes.CDLL:
    pointer, fd, u64, u32 = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64, ctypes.c_uint32
    for name, arguments in {
        "bpf_btf_load": [pointer, ctypes.c_size_t, pointer],
        "bpf_map_create": [ctypes.c_int, pointer, u32, u32, u32, pointer],
        "ring_buffer__consume": [pointer],
        "ring_buffer__poll": [pointer, ctypes.c_int],
        "ring_buffer__free": [pointer],
        "bpf_map_update_elem": [fd, pointer, pointer, u64],
        "bpf_map_lookup_elem": [fd, pointer, pointer],
        "bpf_map_lookup_and_delete_elem": [fd, pointer, pointer],
        "bpf_map_delete_elem": [fd, pointer],
        "bpf_map_lookup_batch": [fd, pointer, pointer, pointer, pointer, pointer, pointer],
        "bpf_link_create": [fd, fd, ctypes.c_int, pointer],
        "bpf_link_update": [fd, fd, pointer],
        "bpf_prog_attach": [fd, fd, ctypes.c_int, u32],
        "bpf_map_get_fd_by_id": [u32],
        "bpf_link_detach": [fd],
        "bpf_prog_test_run_opts": [fd, pointer],
        "bpf_prog_load": [ctypes.c_int, pointer, pointer, pointer, ctypes.c_size_t, pointer],
        "bpf_obj_get_info_by_fd": [fd, pointer, pointer],
        "bpf_prog_get_fd_by_id": [u32],
        "bpf_prog_get_next_id": [u32, pointer],
        "bpf_enable_stats": [ctypes.c_int],
        "bpf_obj_pin": [fd, ctypes.c_char_p],
        "bpf_obj_get": [ctypes.c_char_p],
        "libbpf_num_possible_cpus": [],
        "bpf_prog_query": [fd, ctypes.c_int, u32, pointer, pointer, pointer],
        "bpf_xdp_query_id": [ctypes.c_int, ctypes.c_int, ctypes.POINTER(u32)],
    }.items():
        getattr(libbpf, name).argtypes = arguments
    libbpf.ring_buffer__new.argtypes = [fd, _SAMPLE, pointer, pointer]
    libbpf.ring_buffer__new.restype = pointer
    libbpf.libbpf_set_print.argtypes = [pointer]
    libbpf.libbpf_set_print(None)  # what fails is told by its error, and never on stderr
    return libbpf


def _check(result: int) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def _buffer(data: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(data, len(data))


def update(map_fd: int, key: bytes, value: bytes) -> None:
    """Put `value` under `key`."""
    _check(library().bpf_map_update_elem(map_fd, key, value, 0))


def lookup(map_fd: int, key: bytes, value_size: int) -> bytes | None:
    """The value under `key`, of `value_size` bytes, or None."""
    value = ctypes.create_string_buffer(value_size)
    result = library().bpf_map_lookup_elem(map_fd, key, value)
    if result == -errno.ENOENT:
        return None
    _check(result)
    return value.raw


def counters(map_fd: int, count: int) -> list[int]:
    """The `count` cells of a per-CPU array of u64, each as its sum over all CPUs."""
    cpus = possible_cpus()
    sums: list[int] = []
    for _, _, values in batches(map_fd, 4, 8 * cpus, count + 1):  # one more: it is the last batch
        words = values.cast("Q")
        sums += map(sum, zip(*(words[cpu::cpus] for cpu in range(cpus)), strict=True))
    return sums


def delete(map_fd: int, key: bytes) -> bool:
    """Remove `key`; False when it was not there."""
    result = library().bpf_map_delete_elem(map_fd, key)
    if result == -errno.ENOENT:
        return False
    _check(result)
    return True


def pop(map_fd: int, value_size: int) -> bytes | None:
    """Take the first value out of a queue; None when it is empty."""
    value = ctypes.create_string_buffer(value_size)
    result = library().bpf_map_lookup_and_delete_elem(map_fd, None, value)
    if result == -errno.ENOENT:
        return None
    _check(result)
    return value.raw


def replace(map_fd: int, now: dict[bytes, bytes], wanted: Mapping[bytes, bytes]) -> None:
    """Make a map that holds `now` hold `wanted`; `now` always says what the map holds.

    First elements are removed, then values change: neither needs room. New elements come last.
    Raises OSError when there is no room for a new one; everything before is done then.
    """
    withdraw(map_fd, now, wanted)
    for new in (False, True):
        for key, value in wanted.items():
            if (key not in now) == new and now.get(key) != value:
                update(map_fd, key, value)
                now[key] = value


def withdraw(map_fd: int, now: dict[bytes, bytes], wanted: Container[bytes]) -> None:
    """Remove from a map that holds `now`, and from `now`, every key that is not `wanted`."""
    for key in [key for key in now if key not in wanted]:
        delete(map_fd, key)
        del now[key]


def batches(
    map_fd: int, key_size: int, value_size: int, size: int = 512
) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Walk a hash map in batches of up to `size`: (number of elements, their keys, their values).

    The buffers are reused for the next batch.
    """
    keys = bytearray(key_size * size)
    values = bytearray(value_size * size)
    keys_pointer = (ctypes.c_char * len(keys)).from_buffer(keys)
    values_pointer = (ctypes.c_char * len(values)).from_buffer(values)
    position = ctypes.create_string_buffer(max(key_size, 8))
    options = _MapBatchOpts(sz=ctypes.sizeof(_MapBatchOpts))
    started = False
    while True:
        count = ctypes.c_uint32(size)
        result = library().bpf_map_lookup_batch(
            map_fd,
            position if started else None,
            position,
            keys_pointer,
            values_pointer,
            ctypes.byref(count),
            ctypes.byref(options),
        )
        if result not in (0, -errno.ENOENT):
            _check(result)
        yield (
            count.value,
            memoryview(keys)[: count.value * key_size],
            memoryview(values)[: count.value * value_size],
        )
        if result:
            return
        started = True


def link_xdp(program_fd: int, ifindex: int, flags: int) -> int:
    """Attach an XDP program by a link; its descriptor. XDP detaches when its last copy closes."""
    options = _LinkCreateOpts(sz=ctypes.sizeof(_LinkCreateOpts), flags=flags)
    return _check(library().bpf_link_create(program_fd, ifindex, BPF_XDP, ctypes.byref(options)))


def link_tcx_ingress(program_fd: int, ifindex: int) -> int:
    """The same for a TC program at ingress, after those already there (Linux 6.6 and newer)."""
    return _check(library().bpf_link_create(program_fd, ifindex, BPF_TCX_INGRESS, None))


def link_tcx_egress(program_fd: int, ifindex: int) -> int:
    """The same at egress."""
    return _check(library().bpf_link_create(program_fd, ifindex, BPF_TCX_EGRESS, None))


def link_cgroup(program_fd: int, cgroup_fd: int, attach_type: int) -> int:
    """The same for a program at a control group, beside those already there."""
    return _check(library().bpf_link_create(program_fd, cgroup_fd, attach_type, None))


_ALLOW_MULTI = 2  # BPF_F_ALLOW_MULTI


def attach_cgroup(program_fd: int, cgroup_fd: int, attach_type: int) -> None:
    """Attach a program at a control group, beside others, for as long as the group is there and the
    last socket that was made in it. Raises OSError."""
    _check(library().bpf_prog_attach(program_fd, cgroup_fd, attach_type, _ALLOW_MULTI))


def link_sk_lookup(program_fd: int, netns_fd: int) -> int:
    """The same for a program that chooses the socket of a packet, in a network namespace."""
    return _check(library().bpf_link_create(program_fd, netns_fd, BPF_SK_LOOKUP, None))


_LINK_INFO_BYTES, _LINK_IFINDEX = 64, 16  # struct bpf_link_info, linux/bpf.h


def update_link(link_fd: int, program_fd: int) -> None:
    """Put another program in a link's place, between two packets."""
    _check(library().bpf_link_update(link_fd, program_fd, None))


def link_ifindex(link_fd: int) -> int:
    """The ifindex of an XDP or TCX link's interface; 0 if it is gone, or the link was detached.

    Of a control group's link it is that group's number instead.
    """
    info = ctypes.create_string_buffer(_LINK_INFO_BYTES)
    size = ctypes.c_uint32(_LINK_INFO_BYTES)
    _check(library().bpf_obj_get_info_by_fd(link_fd, info, ctypes.byref(size)))
    (ifindex,) = struct.unpack_from("=I", info.raw, _LINK_IFINDEX)
    return int(ifindex)


def close_link(link_fd: int) -> None:
    """Detach a link's program, and close the link, which was kept from forked processes.

    A process that C code forked, which `forked` does not see, may hold the link too: the program is
    detached all the same.
    """
    with contextlib.suppress(OSError):  # gone with its interface
        _check(library().bpf_link_detach(link_fd))
    forked.close(link_fd)


def pin(descriptor: int, path: Path) -> None:
    """Give a map, program or link a name in a BPF file system: it lives as long as that."""
    _check(library().bpf_obj_pin(descriptor, os.fsencode(path)))


def pinned(path: Path) -> int:
    """A descriptor of what has this name in a BPF file system. Raises OSError."""
    return _check(library().bpf_obj_get(os.fsencode(path)))


def attached_xdp(ifindex: int) -> int | None:
    """The id of the XDP program on an interface, or None."""
    program_id = ctypes.c_uint32()
    if library().bpf_xdp_query_id(ifindex, 0, ctypes.byref(program_id)) < 0:
        return None
    return program_id.value or None


_SKB_BYTES, _IFINDEX, _GSO_SEGS, _GSO_SIZE = 192, 40, 164, 176  # struct __sk_buff, linux/bpf.h


def test_run(
    program_fd: int,
    frame: bytes,
    repeat: int = 1,
    *,
    metadata: bool = False,
    gso: tuple[int, int] | None = None,
    xdp_ifindex: int = 0,
    tc_ifindex: int = 0,
) -> TestRun:
    """Run a program on one frame, `repeat` times in place.

    With `metadata`, what an XDP program puts before the packet is before the frame in the result.
    With `gso` (number of segments, bytes of each) a TC program sees the frame as a super-packet.
    Either hook's program sees it as if it had come in by the interface `ifindex`, else by the
    namespace's loopback. Raises OSError.
    """
    frame_in = _buffer(frame)
    frame_out = ctypes.create_string_buffer(4096)
    context = b""
    if metadata or xdp_ifindex:
        context = struct.pack("=6I", 0, len(frame), 0, xdp_ifindex, 0, 0)
    elif gso or tc_ifindex:
        skb = bytearray(_SKB_BYTES)
        struct.pack_into("=I", skb, _IFINDEX, tc_ifindex)
        struct.pack_into("=I", skb, _GSO_SEGS, gso[0] if gso else 0)
        struct.pack_into("=I", skb, _GSO_SIZE, gso[1] if gso else 0)
        context = bytes(skb)
    context_in, context_out = _buffer(context or b"\0"), _buffer(context or b"\0")
    options = _TestRunOpts(
        sz=ctypes.sizeof(_TestRunOpts),
        data_in=ctypes.addressof(frame_in),
        data_size_in=len(frame),
        data_out=ctypes.addressof(frame_out),
        data_size_out=len(frame_out),
        repeat=repeat,
        ctx_in=ctypes.addressof(context_in) if context else None,
        ctx_size_in=len(context),
        ctx_out=ctypes.addressof(context_out) if context else None,
        ctx_size_out=len(context),
    )
    _check(library().bpf_prog_test_run_opts(program_fd, ctypes.byref(options)))
    return TestRun(options.retval, frame_out.raw[: options.data_size_out], options.duration)


class Order:
    """A program that is run again and again on one frame: a call makes nothing but its result.

    For one thread at a time.
    """

    def __init__(self, program_fd: int, size: int):
        """The frame has `size` bytes, all zero at first."""
        self._program = program_fd
        self._frame = bytearray(size)
        self._options = _TestRunOpts(
            sz=ctypes.sizeof(_TestRunOpts),
            data_in=ctypes.addressof(ctypes.c_char.from_buffer(self._frame)),
            data_size_in=size,
            repeat=1,
        )
        self._reference = ctypes.byref(self._options)
        self._run = library().bpf_prog_test_run_opts

    def __call__(self, packed: struct.Struct, *words: int) -> int:
        """Run it on words, packed at the frame's beginning; what it returns. Raises OSError."""
        packed.pack_into(self._frame, 0, *words)
        _check(self._run(self._program, self._reference))
        return int(self._options.retval)


def run_live(program_fd: int, frame: bytes, ifindex: int, repeat: int) -> None:
    """Run an XDP program on `repeat` copies of a frame, as if they had come in by an interface.

    Its verdicts take effect. Raises OSError (before Linux 5.18).
    """
    frame_in = _buffer(frame)
    context = _buffer(struct.pack("=6I", 0, len(frame), 0, ifindex, 0, 0))
    options = _TestRunOpts(
        sz=ctypes.sizeof(_TestRunOpts),
        data_in=ctypes.addressof(frame_in),
        data_size_in=len(frame),
        repeat=repeat,
        ctx_in=ctypes.addressof(context),
        ctx_size_in=ctypes.sizeof(context),
        flags=_LIVE_FRAMES,
    )
    _check(library().bpf_prog_test_run_opts(program_fd, ctypes.byref(options)))


test_run.__test__ = False  # type: ignore[attr-defined]  # pytest: not a test


def send_frames(program_fd: int, frame: bytes, count: int, batch: int) -> None:
    """Run an XDP program on `count` live copies of a frame, `batch` (at most 256) at a time.

    Its verdicts take effect: redirected copies leave by an interface of this network namespace. A
    copy is used again in a later run, with its headers as they were left. Raises InterruptedError
    when a signal came; by then some of the copies are sent.
    """
    options = _TestRunOpts(
        sz=ctypes.sizeof(_TestRunOpts),
        data_in=ctypes.addressof(frame_in := _buffer(frame)),
        data_size_in=len(frame_in),
        repeat=count,
        flags=_LIVE_FRAMES,
        batch_size=batch,
    )
    _check(library().bpf_prog_test_run_opts(program_fd, ctypes.byref(options)))


_INFO_BYTES, _INFO_ID, _INFO_RUNS, _INFO_VERIFIED = (
    256,
    4,
    192,
    216,
)  # struct bpf_prog_info, linux/bpf.h


_INFO_NAME = 64
_PROGRAMS_MAX = 256  # at one place; the kernel takes 64


class Runs(NamedTuple):
    """How often and how long in all a program ran while `enable_stats` was in force."""

    nanoseconds: int
    times: int


def _info(descriptor: int) -> bytes:
    """What the kernel tells of a program or a map. Raises OSError."""
    info, length = ctypes.create_string_buffer(_INFO_BYTES), ctypes.c_uint32(_INFO_BYTES)
    _check(library().bpf_obj_get_info_by_fd(descriptor, info, ctypes.byref(length)))
    return info.raw


def program_id(program_fd: int) -> int:
    """The number by which the kernel knows a program."""
    number: int = struct.unpack_from("=I", _info(program_fd), _INFO_ID)[0]
    return number


_INFO_MAPS = struct.Struct("=IQ")  # nr_map_ids and map_ids of struct bpf_prog_info, linux/bpf.h
_INFO_MAPS_AT, _MAPS_MAX = 52, 64


def maps_of(program_fd: int) -> dict[str, int]:
    """Descriptors of the maps that a program uses, by name. Raises OSError."""
    ids = (ctypes.c_uint32 * _MAPS_MAX)()
    info, length = ctypes.create_string_buffer(_INFO_BYTES), ctypes.c_uint32(_INFO_BYTES)
    _INFO_MAPS.pack_into(info, _INFO_MAPS_AT, _MAPS_MAX, ctypes.addressof(ids))
    _check(library().bpf_obj_get_info_by_fd(program_fd, info, ctypes.byref(length)))
    count, _ = _INFO_MAPS.unpack_from(info, _INFO_MAPS_AT)
    found: dict[str, int] = {}
    try:
        for number in ids[:count]:
            descriptor = forked.made(lambda: _check(library().bpf_map_get_fd_by_id(number)))  # noqa: B023
            found[map_name(descriptor)] = descriptor
    except OSError:
        for descriptor in found.values():
            forked.close(descriptor)
        raise
    return found


def program_by_id(program_id: int) -> int:
    """A descriptor of the program with this number. Raises OSError where there is none."""
    return _check(library().bpf_prog_get_fd_by_id(program_id))


def programs_of(*kinds: int) -> int:
    """How many programs of some kinds (enum bpf_prog_type) this host has loaded.

    Raises PermissionError without CAP_SYS_ADMIN.
    """
    count, next_id = 0, ctypes.c_uint32()
    while (told := library().bpf_prog_get_next_id(next_id.value, ctypes.byref(next_id))) == 0:
        with contextlib.suppress(OSError):  # it is gone
            fd = program_by_id(next_id.value)
            try:
                count += struct.unpack_from("=I", _info(fd))[0] in kinds
            finally:
                os.close(fd)
    if told == -errno.EPERM:
        raise PermissionError(errno.EPERM, "programs are listed with CAP_SYS_ADMIN alone")
    return count


def program_name(program_id: int) -> str:
    """The name of a program; empty if it is gone."""
    try:
        descriptor = program_by_id(program_id)
    except OSError:
        return ""
    try:
        name = _info(descriptor)[_INFO_NAME : _INFO_NAME + 16]
    finally:
        os.close(descriptor)
    return name.split(b"\0")[0].decode(errors="replace")


def programs_at(where: int, attach_type: int, flags: int = 0) -> list[int]:
    """The ids of the programs attached to a control group's descriptor or an interface, in order.

    Raises OSError.
    """
    ids, count = (ctypes.c_uint32 * _PROGRAMS_MAX)(), ctypes.c_uint32(_PROGRAMS_MAX)
    attached = ctypes.c_uint32()
    _check(
        library().bpf_prog_query(
            where, attach_type, flags, ctypes.byref(attached), ids, ctypes.byref(count)
        )
    )
    return list(ids[: count.value])


def runs(program_fd: int) -> Runs:
    """run_time_ns and run_cnt of a program."""
    return Runs(*struct.unpack_from("=QQ", _info(program_fd), _INFO_RUNS))


def is_compiled(program_fd: int) -> bool:
    """Whether a program is run as machine code, and not by the interpreter. Raises OSError."""
    (length,) = struct.unpack_from("=I", _info(program_fd), 16)  # jited_prog_len, linux/bpf.h
    return bool(length)


def verified_instructions(program_fd: int) -> int:
    """How many instructions the verifier followed: those of a loop count in every round."""
    count: int = struct.unpack_from("=I", _info(program_fd), _INFO_VERIFIED)[0]
    return count


def enable_stats() -> int:
    """Have the kernel time all programs' runs until the returned descriptor is closed."""
    return _check(library().bpf_enable_stats(0))


def possible_cpus() -> int:
    """How many values a per-CPU map holds. Raises BPFError where sysfs does not say."""
    count: int = library().libbpf_num_possible_cpus()
    if count < 0:
        raise BPFError(
            f"how many CPUs there may be cannot be read: {os.strerror(-count)}",
            hint="mount sysfs: /sys/devices/system/cpu/possible says it",
        )
    return count


class MapShape(NamedTuple):
    """How to create a map; the last two are the types of key and value in its BTF (0: none)."""

    kind: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    key_type: int
    value_type: int


_MAP_INFO = struct.Struct("=I4xIIII16s4x4x16xIII")  # struct bpf_map_info, linux/bpf.h


def map_shape(map_fd: int) -> tuple[MapShape, int]:
    """The shape of a map, and the id of its BTF (0: none)."""
    kind, key, value, entries, flags, _, btf, *types = _MAP_INFO.unpack_from(_info(map_fd))
    return MapShape(kind, key, value, entries, flags, *types), btf


def map_name(map_fd: int) -> str:
    """A map's name, as far as the kernel keeps it: 15 bytes. Raises OSError."""
    name: bytes = _MAP_INFO.unpack_from(_info(map_fd))[5]
    return name.rstrip(b"\0").decode(errors="replace")


def create_map(name: str, shape: MapShape, btf_fd: int | None, inner_fd: int = 0) -> int:
    """Create a map; its descriptor. A map of maps holds such as the inner one. Raises OSError."""
    options = _MapCreateOpts(sz=ctypes.sizeof(_MapCreateOpts), map_flags=shape.flags)
    options.inner_map_fd = inner_fd
    if btf_fd is not None and shape.value_type:
        options.btf_fd = btf_fd
        options.btf_key_type_id, options.btf_value_type_id = shape[-2:]
    words = shape.kind, name.encode()[:15], shape.key_size, shape.value_size, shape.max_entries
    return _check(library().bpf_map_create(*words, ctypes.byref(options)))


def btf(btf_id: int) -> bytes:
    """The BTF with this id, which this process has open. Raises OSError where it has not.

    By the id alone only CAP_SYS_ADMIN could open it.
    """
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the folder itself is closed again
            if str(link.readlink()) == "anon_inode:btf" and _btf_info(int(link.name))[2] == btf_id:
                return _btf_data(int(link.name))
    raise OSError(errno.ENOENT, f"this process has no BTF {btf_id}")


_BTF_INFO = struct.Struct("=QII")  # struct bpf_btf_info's first fields: data, its size, id


def _btf_info(descriptor: int, address: int = 0, size: int = 0) -> tuple[int, int, int]:
    info = ctypes.create_string_buffer(_BTF_INFO.pack(address, size, 0), _BTF_INFO.size)
    length = ctypes.c_uint32(_BTF_INFO.size)
    _check(library().bpf_obj_get_info_by_fd(descriptor, info, ctypes.byref(length)))
    address, size, number = _BTF_INFO.unpack(info.raw)
    return address, size, number


def _btf_data(descriptor: int) -> bytes:
    _, size, _ = _btf_info(descriptor)
    data = ctypes.create_string_buffer(size)
    _btf_info(descriptor, ctypes.addressof(data), size)
    return data.raw


def load_btf(data: bytes) -> int:
    """Load BTF; its descriptor. Raises OSError."""
    return _check(library().bpf_btf_load(data, len(data), None))


class Loadable(NamedTuple):
    """What the kernel is given to load a program."""

    kind: int
    name: str
    code: bytes
    license: str
    expected: int
    """The attach type (0: any)."""
    btf: int = 0
    """The descriptor of types, if what follows is known: the function's, and lines of C."""
    function: int = 0
    lines: bytes = b""


def load_program(program: Loadable) -> int:
    """Load a program; its descriptor. Raises OSError."""
    return _check(_loaded(program, _ProgLoadOpts()))


def why_not(program: Loadable) -> str:
    """The verifier's log of refusing a program; empty if it takes it after all."""
    log = ctypes.create_string_buffer(_LOG_BYTES)
    options = _ProgLoadOpts(log_level=1, log_size=_LOG_BYTES, log_buf=ctypes.addressof(log))
    descriptor = _loaded(program, options)
    if descriptor >= 0:
        os.close(descriptor)
        return ""
    return log.value.decode(errors="replace")


FUNCTION_INFO, LINE_INFO = struct.Struct("<II"), struct.Struct("<IIII")  # linux/bpf.h
"""An instruction and a type; an instruction, the names of file and line, and where it is there."""

_LOG_BYTES = 16 << 20
"""Room for the longest log: before Linux 6.4 the kernel gives none of a log that does not fit."""


def _loaded(program: Loadable, options: _ProgLoadOpts) -> int:
    options.sz = ctypes.sizeof(_ProgLoadOpts)
    options.expected_attach_type = program.expected
    function = _buffer(FUNCTION_INFO.pack(0, program.function))
    lines = _buffer(program.lines)
    if program.btf:
        options.prog_btf_fd = program.btf
        options.func_info, options.func_info_cnt = ctypes.addressof(function), 1
        options.func_info_rec_size = FUNCTION_INFO.size
        options.line_info = ctypes.addressof(lines)
        options.line_info_cnt = len(program.lines) // LINE_INFO.size
        options.line_info_rec_size = LINE_INFO.size
    code = _buffer(program.code), len(program.code) // 8
    words = program.kind, program.name.encode()[:15], program.license.encode(), *code
    result: int = library().bpf_prog_load(*words, ctypes.byref(options))
    return result


class Ring:
    """Passes a ring buffer's records to `take` until that returns False."""

    def __init__(self, map_fd: int, take: Callable[[bytes], bool | None]):
        """Raises OSError."""

        def called(_context: int, data: int, size: int) -> int:
            return -1 if take(ctypes.string_at(data, size)) is False else 0

        self._called = _SAMPLE(called)  # C code has no reference to it
        self._ring = library().ring_buffer__new(map_fd, self._called, None, None)
        if not self._ring:
            raise OSError(errno.ENOMEM, "a ring buffer cannot be read")

    def drain(self) -> None:
        """Take all records that it holds now."""
        library().ring_buffer__consume(self._ring)

    def wait(self, milliseconds: int) -> None:
        """As `drain`; if it is empty, first wait up to `milliseconds` for a record."""
        library().ring_buffer__poll(self._ring, milliseconds)

    def close(self) -> None:
        """Stop reading it."""
        library().ring_buffer__free(self._ring)


_MOVE, _CALL, _EXIT = 0xB7, 0x85, 0x95  # linux/bpf.h: BPF_ALU64 | BPF_MOV | BPF_K, and BPF_JMP
_REDIRECT = 23  # bpf_redirect


def _load(kind: int, name: bytes, *code: tuple[int, int, int]) -> int:
    """Load instructions (code, register, immediate) and `exit` without a compiler; a descriptor."""
    packed = b"".join(
        struct.pack("<BBhi", *step[:2], 0, step[2]) for step in (*code, (_EXIT, 0, 0))
    )
    return _check(
        library().bpf_prog_load(kind, name, b"GPL", _buffer(packed), len(packed) // 8, None)
    )


def load_constant(kind: int, name: bytes, result: int) -> int:
    """Load a program that only returns `result`; its descriptor."""
    return _load(kind, name, (_MOVE, 0, result))


def load_xdp_pass() -> int:
    """Load an XDP program that passes everything; its descriptor."""
    return load_constant(PROG_TYPE_XDP, b"xdp_pass", XDP_PASS)


def load_xdp_redirect(ifindex: int) -> int:
    """Load an XDP program that sends everything out by an interface; its descriptor."""
    to = (_MOVE, 1, ifindex), (_MOVE, 2, 0), (_CALL, 0, _REDIRECT)
    return _load(PROG_TYPE_XDP, b"xdp_redirect", *to)
