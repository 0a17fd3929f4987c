# SPDX-License-Identifier: Apache-2.0
"""A service whose handler forks, by each way that there is: `--app forks:service`."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import subprocess
import sys
import time

from carom import Service
from carom.errors import CaromError

PORT = 51141
LIVES = 600.0
"""Seconds that a child lives on, unless a test ends it."""

service = Service(PORT)

_pools: dict[bytes, concurrent.futures.ProcessPoolExecutor] = {}


def quiet() -> None:
    """In a child: let the test's pipe go, which it reads to the end."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)


def double(request: bytes) -> bytes:
    """What a worker does; runs in another process."""
    return request * 2


def _pool(method: bytes) -> concurrent.futures.ProcessPoolExecutor:
    if method not in _pools:
        context = multiprocessing.get_context(method.decode())
        _pools[method] = concurrent.futures.ProcessPoolExecutor(
            2, mp_context=context, initializer=quiet
        )
    return _pools[method]


def _sleeper() -> subprocess.Popen[bytes]:
    nothing = subprocess.DEVNULL
    return subprocess.Popen(
        ["sleep", str(LIVES)], close_fds=False, stdin=nothing, stdout=nothing, stderr=nothing
    )


def _invalidated() -> bytes:
    try:
        service.invalidate(b"anything")
    except CaromError as error:
        return type(error).__name__.encode()
    return b"done"


def _asked_in_child() -> bytes:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, _invalidated())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with open(reader, "rb") as answer:
        return answer.read()


@service.reply
def answer(request: bytes) -> bytes:
    """As the request's first word says; the reply to one that leaves a child is its number."""
    word, _, rest = request.partition(b" ")
    if word == b"pool":
        method, _, work = rest.partition(b" ")
        return _pool(method).submit(double, work).result()
    if word == b"fork":
        child = os.fork()
        if child == 0:
            quiet()
            time.sleep(LIVES)
            os._exit(0)
        return b"%d" % child
    if word == b"exec":
        return b"%d" % _sleeper().pid
    if word == b"exit":
        child = os.fork()
        if child == 0:
            sys.exit(0)
        os.waitpid(child, 0)
        return b"ended"
    if word == b"return":
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        return b"returned"
    if word == b"invalidate":
        return _asked_in_child()
    return request
