# SPDX-License-Identifier: Apache-2.0
"""Signals end a service: SIGINT, SIGTERM and SIGHUP raise Stop in the main thread."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from carom.errors import UsageError
from carom.kernel import forked

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop(BaseException):
    """Raised in the main thread by a signal: ends the loop, and no handler's `except` holds it."""


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """Let signals raise Stop in the main thread, once; not a SIGHUP that is ignored (nohup)."""
    if threading.current_thread() is not threading.main_thread():
        raise UsageError("a service runs in the main thread only", hint="signals end it")

    def stop(number: int, frame: object) -> None:
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)
        raise Stop

    saved = {
        number: signal.signal(number, stop)
        for number in _ENDING
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
    }

    def restore() -> None:
        for number, handler in saved.items():
            signal.signal(number, handler)

    def in_child() -> None:  # forked by a thread of whatever mask; signals end it as any process
        restore()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)

    try:
        with forked.in_child(in_child):
            yield
    finally:
        restore()


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Hold signals back; threads started meanwhile never take one.

    One that another thread took would not wake the main thread, which has to act on it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
