# SPDX-License-Identifier: Apache-2.0
"""What SIGINT (Ctrl-C), SIGTERM and SIGHUP do to each kind of process here.

    a daemon                the first raises Stop in the main thread; more are ignored (`ending`,
                            `until_stopped`). With a configuration file SIGHUP has it read again
    its start, its threads  signals wait for the main thread, which alone takes them (`held`), but
                            compiling ends (`stop_if_asked`)
    the lab                 each raises KeyboardInterrupt (`interruptible`)
    its agent on a host     SIGINT is ignored, as the lab gets it too; SIGTERM: exit (`told`)
    a forked worker         SIGTERM ends it at once (`fork_to_work`, `ended_at_once`)
    a parent that waits     SIGINT is ignored, as the terminal sends it to the child too; SIGTERM is
                            passed on (`not_yet`, `hand_on`), and raises KeyboardInterrupt once
                            the child has ended (`nobody_to_hand_on_to`); in the child either raises
                            KeyboardInterrupt (`interrupted`), or a program is to be executed
                            that expects all as usual (`as_usual`)
    work half done          signals wait until it is done (`waiting`)

A SIGHUP that was ignored from the start (nohup) stays ignored; for the lab, so do the others. What
is forked from a daemon or from the lab is ended by signals as any process is. Only `vm/tether.py`,
which is sent to hosts as text, does not use this file and has what it needs itself.
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
from typing import Any, NoReturn

from carom.errors import UsageError
from carom.kernel import forked

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


_AGAIN = 0.01
"""Seconds until Stop is raised once more, where it was dropped."""


class Stop(BaseException):
    """Raised in the main thread by a signal: ends the loop, past every `except Exception`."""


@contextlib.contextmanager
def ending(hung_up: Callable[[], object] | None = None) -> Iterator[None]:
    """Let the first signal raise Stop in the main thread; not a SIGHUP that is ignored (nohup).

    With `hung_up` SIGHUP calls that instead, wherever the main thread is: it may do no more than
    put something into a SimpleQueue. Python drops what is raised while it destroys an object: then
    Stop is raised once more. Raises UsageError in any other thread.
    """
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

    if hung_up and signal.SIGHUP in saved:
        signal.signal(signal.SIGHUP, lambda number, frame: hung_up())

    hook, main = sys.unraisablehook, threading.get_ident()

    def dropped(hook_args: sys.UnraisableHookArgs) -> None:
        if hook_args.exc_type is not Stop:
            hook(hook_args)
            return
        signal.signal(signal.SIGTERM, stop)
        again = threading.Timer(_AGAIN, signal.pthread_kill, (main, signal.SIGTERM))
        again.daemon = True
        again.start()

    def restore() -> None:
        sys.unraisablehook = hook
        for number, handler in saved.items():
            signal.signal(number, handler)

    def in_child() -> (
        None
    ):  # whatever the forking thread's mask: signals end the child as any process
        restore()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)

    sys.unraisablehook = dropped
    try:
        with forked.in_child(in_child):
            yield
    finally:
        restore()


def until_stopped() -> NoReturn:
    """Take signals until one raises Stop, inside `ending`.

    pause(2) would miss one that comes between Python's look for signals and the call.
    """
    heard = {number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN}
    signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    try:
        while True:
            number = signal.sigwaitinfo(heard).si_signo
            handler = signal.getsignal(number)
            assert callable(handler)
            handler(number, None)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, heard)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Hold signals back inside; threads that are started inside never take one.

    A signal that another thread took would not wake the main thread, which has to act on it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


def stop_if_asked() -> None:
    """Raise Stop if a signal that ends this process is held back, for work that takes long."""
    if threading.current_thread() is threading.main_thread():
        asked = signal.sigpending() & {signal.SIGINT, signal.SIGTERM}
        if any(signal.getsignal(number) is not signal.SIG_IGN for number in asked):
            raise Stop


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Inside, SIGTERM and SIGHUP (a closed terminal) raise KeyboardInterrupt, as Ctrl-C does.

    Processes forked from this one end by them as usual. The function that is yielded raises
    KeyboardInterrupt again if one came before: Python drops it in a callback that runs at a fork.
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
        if not stop_asked.is_set():  # after one, what it left half-made may fail again
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
    """Ignore Ctrl-C, which the process that controls this one handles, and exit at SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def fork_to_work() -> int:
    """As os.fork; the child ends at once at SIGTERM, and when this process ends.

    SIGTERM is blocked until the child is ready: one that came between two handlers would be lost.
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
    """Processes that multiprocessing forks inside end at once at SIGTERM."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end_with_parent(number: signal.Signals) -> None:
    """Have this process get a signal when its parent ends, in whatever way."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def not_yet() -> None:
    """Have SIGINT and SIGTERM wait until `hand_on` or `interrupted` is called."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))


def hand_on(pid: int, *others: signal.Signals) -> None:
    """Pass SIGTERM and `others` on to a child, while it lives, and ignore Ctrl-C: the terminal
    sends that to the child too."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, *others):
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))


def nobody_to_hand_on_to() -> None:
    """Have signals raise KeyboardInterrupt from now on: the child has ended."""
    for number in _ENDING:
        signal.signal(number, signal.default_int_handler)


def as_usual() -> None:
    """Have signals do what they do to a program that was just executed."""
    for number in (*_ENDING, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def interrupted() -> None:
    """Have SIGTERM raise KeyboardInterrupt, as Ctrl-C does; at once if one is waiting."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """Signals that may end this process wait until the work inside is done."""
    pending: list[int] = []
    saved: dict[signal.Signals, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():  # the only one that gets them
            for number in _ENDING:
                saved[number] = signal.signal(number, lambda number, _: pending.append(number))
        yield
    finally:
        for number, handler in saved.items():
            signal.signal(number, handler)
        if pending:
            signal.raise_signal(pending[0])
