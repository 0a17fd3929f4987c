# SPDX-License-Identifier: Apache-2.0
"""A memcached to measure: filled with numbered keys, and its right replies to gets of them."""

from __future__ import annotations

import re
import socket
import struct
import time

from carom import Service
from carom.errors import ExperimentError
from carom.lab.clients.requests import Plan
from carom.protocols.memcached import PORT

VALUE_SIZE = 32
_HEADER = struct.Struct("!HHHH")
_GET = re.compile(rb"get (\S+)\r\n")
_PATIENCE = 5.0  # seconds until it listens

values = Service(PORT)
"""Replies to the requests of a `Plan` as a memcached does that `fill` has filled."""


def value_of(key: bytes) -> bytes:
    """The value of a key."""
    return (key * VALUE_SIZE)[:VALUE_SIZE]


@values.reply
def _values(request: bytes) -> bytes | None:
    match = _GET.fullmatch(request[_HEADER.size :])
    if not match:
        return None
    key = match[1]
    return request[: _HEADER.size] + b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (
        key,
        VALUE_SIZE,
        value_of(key),
    )


def fill(address: str, port: int, plan: Plan) -> None:
    """Set the value of every key of a plan, over TCP. Raises ExperimentError."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            with socket.create_connection((address, port), _PATIENCE) as tcp:
                for number in range(plan.first, plan.first + plan.keys):
                    key = plan.payload(number)[_HEADER.size :].split()[1]
                    tcp.sendall(b"set %b 0 0 %d\r\n%b\r\n" % (key, VALUE_SIZE, value_of(key)))
                    if tcp.recv(64) != b"STORED\r\n":
                        raise ExperimentError(f"memcached did not store {key.decode()}")
                return
        except ConnectionRefusedError as error:
            if time.monotonic() > end:
                raise ExperimentError(
                    f"memcached does not listen on {address} port {port}"
                ) from error
            time.sleep(0.02)
