# SPDX-License-Identifier: Apache-2.0
"""What SIGINT (Ctrl-C), SIGTERM and SIGHUP do to each kind of process here, all in this file.

    a daemon                raise Stop in the main thread, once; others are ignored (`ending`)
    as it starts; threads   wait for the main thread, which alone hears them (`held`)
    the lab                 KeyboardInterrupt, each time (`interruptible`)
    its agent on a host     SIGINT is ignored: the lab hears it, and says so; SIGTERM: exit (`told`)
    what is forked to work  SIGTERM ends it at once (`fork_to_work`, `ended_at_once`)
    who waits for another   SIGINT is ignored: the terminal tells all; SIGTERM is told the other
                            (`not_yet`, `hand_on`), which takes either for KeyboardInterrupt
                            (`interrupted`)
    a thing half done       they wait until it is done (`waiting`)

SIGHUP stays ignored where it is from the start (nohup); for the lab the others do, too. What is
forked from a daemon or from the lab is ended by signals as any process. Only `vm/tether.py`, which
is sent to hosts as a text, has what it needs of this itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from carom.errors import UsageError
from carom.kernel import forked

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


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


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """SIGTERM and a terminal that closes (SIGHUP) end what is measured inside as Ctrl-C does.

    But not what was forked from this process. What is yielded raises KeyboardInterrupt again if one
    came before: in a callback that runs at a fork, Python drops it.
    """
    owner, stop_asked = os.getpid(), threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            stop_asked.set()
        elif number != signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        signal.default_int_handler(number, frame)

    def dropped(hook_args: sys.UnraisableHookArgs) -> None:
        if not stop_asked.is_set():  # what it came upon half-made cannot always be unmade
            sys.__unraisablehook__(hook_args)

    def again() -> None:
        if stop_asked.is_set():
            raise KeyboardInterrupt

    heard = [
        number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN
    ]  # as by nohup
    saved = {number: signal.signal(number, end) for number in heard}
    sys.unraisablehook = dropped
    try:
        yield again
    finally:
        if not stop_asked.is_set():
            sys.unraisablehook = sys.__unraisablehook__
        for number, handler in saved.items():
            signal.signal(number, handler)


def told() -> None:
    """Leave Ctrl-C to whoever tells this process what to do, and exit at SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def fork_to_work() -> int:
    """os.fork, whose child ends at SIGTERM at once, and when this process ends.

    SIGTERM waits until the child may hear it: one that came between two handlers would be lost.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    end_with_parent(signal.SIGTERM)
    return 0


@contextlib.contextmanager
def ended_at_once() -> Iterator[None]:
    """What multiprocessing forks inside ends at SIGTERM at once."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end_with_parent(number: signal.Signals) -> None:
    """Have this process get a signal when its parent ends, whatever ended that."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def not_yet() -> None:
    """Have SIGINT and SIGTERM wait until `hand_on` or `interrupted` says what they do."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))


def hand_on(pid: int) -> None:
    """Tell a child of SIGTERM, and ignore Ctrl-C: the terminal tells all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))


def interrupted() -> None:
    """Have SIGTERM raise KeyboardInterrupt, as Ctrl-C does: perhaps at once, if one waits."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """What is done inside is done before a signal that may end this process is heard."""
    pending: list[int] = []
    saved: dict[signal.Signals, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():  # which alone hears them
            for number in _ENDING:
                saved[number] = signal.signal(number, lambda number, _: pending.append(number))
        yield
    finally:
        for number, handler in saved.items():
            signal.signal(number, handler)
        if pending:
            signal.raise_signal(pending[0])
