# SPDX-License-Identifier: Apache-2.0
"""How measuring goes: what a pair cannot do is left out, and what ends it keeps what was done."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import structlog

from carom.errors import ExperimentError
from carom.xdp.link import REFUSED

_NO_NATIVE = REFUSED.format(mode="native")

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

log = structlog.get_logger()


class Course:
    """How measuring goes: to its end, or until something `stopped` it; neither after Ctrl-C.

    `left_out` is what this pair cannot do, because a driver takes no XDP in native mode, with what
    it said.
    """

    def __init__(self) -> None:
        self.complete = False
        self.stopped: str | None = None
        self.left_out: dict[str, str] = {}

    @contextlib.contextmanager
    def unless_refused(self, name: str) -> Iterator[None]:
        """Start inside what a driver may refuse: then it is left out, which is said."""
        try:
            yield
        except ExperimentError as error:
            if _NO_NATIVE not in str(error):
                raise
            self.left_out[name] = str(error)
            log.warning("left out on this pair", series=name, reason=str(error))


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """SIGTERM and a terminal that closes (SIGHUP) end what is measured inside as Ctrl-C does.

    But not what was forked from this process. What is yielded raises KeyboardInterrupt again if one
    came before: in a callback that runs at a fork, Python drops it.
    """
    owner, came = os.getpid(), threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            came.set()
        elif number != signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        signal.default_int_handler(number, frame)

    def dropped(what: sys.UnraisableHookArgs) -> None:
        if not came.is_set():  # what it came upon half-made cannot always be unmade
            sys.__unraisablehook__(what)

    def again() -> None:
        if came.is_set():
            raise KeyboardInterrupt

    heard = [one for one in _ENDING if signal.getsignal(one) is not signal.SIG_IGN]  # as by nohup
    saved = {one: signal.signal(one, end) for one in heard}
    sys.unraisablehook = dropped
    try:
        yield again
    finally:
        if not came.is_set():
            sys.unraisablehook = sys.__unraisablehook__
        for one, handler in saved.items():
            signal.signal(one, handler)


@contextlib.contextmanager
def course() -> Iterator[Course]:
    """Measure inside: Ctrl-C, a host that is lost, or counts that disagree end it.

    What was measured until then stays.
    """
    one = Course()
    try:
        yield one
        one.complete = True
    except KeyboardInterrupt:
        pass
    except ExperimentError as error:
        one.stopped = f"{error} ({error.hint})" if error.hint else str(error)
