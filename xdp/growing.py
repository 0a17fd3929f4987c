# SPDX-License-Identifier: Apache-2.0
"""Try how far a driver lets XDP lengthen a frame: by a program that does so, and undoes it."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator

from carom.kernel import libbpf, ways
from carom.kernel.libbpf import Loadable, MapShape
from carom.kernel.links import Interface
from carom.xdp.link import Link, Mode

STEPS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1200)
"""By how many bytes it is tried to lengthen a frame."""

PAYLOAD = 32
"""The bytes of a request that is as long as the frames that are tried, if neighbours reply."""

_PATIENCE = 3.0  # seconds for a frame to come in
_LOOK = 0.02
_ASKED = 4  # neighbours that are sent an echo request
_ECHO = {4: (socket.IPPROTO_ICMP, 8), 6: (socket.IPPROTO_ICMPV6, 128)}  # RFC 792, RFC 4443
_ARRAY = 2  # BPF_MAP_TYPE_ARRAY
_ADJUST_TAIL, _UPDATE = 65, 2  # BPF_FUNC_xdp_adjust_tail, BPF_FUNC_map_update_elem
_STEP = struct.Struct("<BBhi")  # struct bpf_insn

# linux/bpf.h: opcodes, and registers as struct bpf_insn has them: source << 4 | destination.
_SET, _COPY, _ADD, _STORE, _STORE_REGISTER = 0xB7, 0xBF, 0x07, 0x62, 0x63
_CALL, _UNLESS_ZERO, _LOAD_MAP, _EXIT = 0x85, 0x55, 0x18, 0x95


def _code(map_fd: int) -> bytes:
    """Lengthen each frame by one step after the other; leave the last one that went, plus 1."""
    tries = [_growing(step) for step in STEPS]
    code = [(_COPY, 0x16, 0, 0), (_SET, 7, 0, 1)]
    for number, one in enumerate(tries):
        left = sum(len(other) + 1 for other in tries[number + 1 :])
        code += [*one[:3], (_UNLESS_ZERO, 0, len(one) - 3 + left, 0), *one[3:]]
    code += [
        (_STORE, 10, -4, 0),
        (_STORE_REGISTER, 0x7A, -8, 0),
        (_LOAD_MAP, 0x11, 0, map_fd),
        (0, 0, 0, 0),
        (_COPY, 0xA2, 0, 0),
        (_ADD, 2, 0, -4),
        (_COPY, 0xA3, 0, 0),
        (_ADD, 3, 0, -8),
        (_SET, 4, 0, 0),
        (_CALL, 0, 0, _UPDATE),
        (_SET, 0, 0, libbpf.XDP_PASS),
        (_EXIT, 0, 0, 0),
    ]
    return b"".join(_STEP.pack(*step) for step in code)


def _growing(step: int) -> list[tuple[int, int, int, int]]:
    """Lengthen it, three instructions whose result is 0 if that went; note it, and undo it."""
    there, back = (
        [(_COPY, 0x61, 0, 0), (_SET, 2, 0, by), (_CALL, 0, 0, _ADJUST_TAIL)] for by in (step, -step)
    )
    return [*there, (_SET, 7, 0, step + 1), *back]


def load(seen: int) -> int:
    """Load the program, which notes in that map how far frames grow; its descriptor. OSError."""
    return libbpf.load_program(Loadable(libbpf.PROG_TYPE_XDP, "grows", _code(seen), "GPL", 0))


def noted() -> int:
    """A map for it; its descriptor. Raises OSError."""
    return libbpf.create_map("grown", MapShape(_ARRAY, 4, 4, 1, 0, 0, 0), None)


def grown(seen: int) -> int | None:
    """How many bytes the last frame could grow by; None for none yet."""
    (value,) = struct.unpack("=I", libbpf.lookup(seen, bytes(4), 4) or bytes(4))
    return value - 1 if value else None


def grows(interface: Interface, mode: Mode) -> int | None:
    """How many bytes longer a frame could become, of STEPS; None where no frame came in.

    Every frame passes as it came. Neighbours are sent an echo request, so that one comes. Raises
    BusyError, InterfaceError, PrivilegeError as Link does, and OSError.
    """
    with contextlib.ExitStack() as stack:
        seen = noted()
        stack.callback(os.close, seen)
        program = load(seen)
        stack.callback(os.close, program)
        stack.enter_context(Link(program, interface, mode))
        end = time.monotonic() + _PATIENCE
        _ask_neighbours(interface)
        while time.monotonic() < end:
            if (by := grown(seen)) is not None:
                return by
            time.sleep(_LOOK)
    return None


def _neighbours(interface: Interface) -> Iterator[ways.Neighbour]:
    for neighbour in ways.neighbours():
        if neighbour.link == interface.ifindex and not neighbour.address.is_multicast:
            yield neighbour


def _ask_neighbours(interface: Interface) -> None:
    neighbours = list(_neighbours(interface))
    for neighbour in neighbours[:_ASKED]:
        with contextlib.suppress(OSError):  # no way to it, or not allowed
            _send_echo(interface, neighbour)


def _send_echo(interface: Interface, neighbour: ways.Neighbour) -> None:
    version = neighbour.address.version
    protocol, kind = _ECHO[version]
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_RAW, protocol) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.name.encode())
        zone = interface.ifindex if neighbour.address.is_link_local else 0
        to = (str(neighbour.address), 0) if version == 4 else (str(neighbour.address), 0, 0, zone)
        raw.sendto(_echo(kind), to)


def _echo(kind: int) -> bytes:
    """An echo request whose reply is as long as a request of PAYLOAD bytes over UDP."""
    sum = _sum((kind << 8, os.getpid() & 0xFFFF, 1))  # an ICMPv6 socket makes its own
    return struct.pack("!BBHHH", kind, 0, sum, os.getpid() & 0xFFFF, 1) + bytes(PAYLOAD)


def _sum(words: Iterable[int]) -> int:
    """The internet checksum (RFC 1071)."""
    total = sum(words)
    return ~(total + (total >> 16)) & 0xFFFF
