# SPDX-License-Identifier: Apache-2.0
"""Services whose replies change, written through a port of their own: `--app changing:NAME`."""

from __future__ import annotations

import functools
import random
import socket
import struct
import threading
import time
from collections.abc import Callable

from carom import Service

PORT = 51141
WRITE_PORT = 51142
KEYS = 48
REQUEST_SIZES = (4, 60, 61, 200)
REPLY_SIZES = (16, 64, 65, 400, 513, 1400)

_REPLY = struct.Struct("!HQ")
_WRITE = struct.Struct("!H")
_states = [0] * KEYS

changing = Service(PORT)
"""Takes back what it said before it acknowledges a write."""

forgetful = Service(PORT)
"""Does not: what it said stays in the cache until it expires."""


def request_of(key: int) -> bytes:
    """What asks for a key."""
    return _WRITE.pack(key).ljust(REQUEST_SIZES[key % len(REQUEST_SIZES)], b"?")


def write_of(key: int) -> bytes:
    """What changes it, sent to WRITE_PORT and answered with its new number."""
    return _WRITE.pack(key)


def number_of(reply: bytes) -> int:
    """The number in an acknowledgement or in a reply."""
    return int.from_bytes(reply[2:10], "big")


@functools.cache
def _filling(key: int) -> bytes:
    return random.Random(key).randbytes(max(REPLY_SIZES))


def reply_of(key: int, number: int) -> bytes:
    """The one reply to a key with its state at a number, of any class: every part tells both."""
    size = REPLY_SIZES[(key + number) % len(REPLY_SIZES)]
    shift = number % 251
    return (_REPLY.pack(key, number) + _filling(key)[shift:] + _filling(key)[:shift])[:size]


def _write(udp: socket.socket, invalidate: Callable[[bytes], None]) -> None:
    while True:
        request, client = udp.recvfrom(64)
        (key,) = _WRITE.unpack(request)
        _states[key] += 1
        invalidate(request_of(key))
        udp.sendto(_REPLY.pack(key, _states[key]), client)


@functools.cache
def _start_writing(invalidate: Callable[[bytes], None]) -> None:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("0.0.0.0", WRITE_PORT))
    threading.Thread(target=_write, args=(udp, invalidate), daemon=True).start()


def _answer(request: bytes) -> bytes:
    (key,) = _WRITE.unpack(request[:2])
    number = _states[key]
    if random.random() < 0.2:
        time.sleep(0.001)  # a slow reply: the writer comes in between
    return reply_of(key, number)


def _ignore(request: bytes) -> None:
    """Take nothing back."""


@changing.reply
def _changing(request: bytes) -> bytes:
    _start_writing(changing.invalidate)
    return _answer(request)


@forgetful.reply
def _forgetful(request: bytes) -> bytes:
    _start_writing(_ignore)
    return _answer(request)
