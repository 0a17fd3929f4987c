# SPDX-License-Identifier: Apache-2.0
"""Run a program on a host far away, and end it once nobody listens to it any more.

`python3 -c TEXT SILENCE PROGRAM...`, where TEXT is this file: it needs nothing but Python. It
watches stdout, whose far end closes with the connection. A connection that is cut does not close:
so where SILENCE is not 0, the program also ends after as many seconds without a word on stdin.
What it has started and left in its process group goes with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

PATIENCE = 15.0  # seconds to end when told to; an agent gives its servers ten
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36
_STDIN, _STDOUT = 0, 1


def main(silence: float, argv: list[str]) -> int:
    """Run it to its end or to that of the connection; its exit status as a shell tells it."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)  # no zombie of its is another's to reap
    try:
        child = subprocess.Popen(
            argv,
            bufsize=0,
            stdin=subprocess.PIPE if silence else None,
            start_new_session=True,
            preexec_fn=_end_with_us,
        )
    except OSError as error:
        print(f"{argv[0]}: {error.strerror}", file=sys.stderr)
        return 127
    _wait(child, silence)
    _end(child)
    status = child.wait()
    return 128 - status if status < 0 else status


def _end_with_us() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait(child: subprocess.Popen[bytes], silence: float) -> None:
    """Until it ends, or the far end of stdout closes, or that of stdin falls silent.

    Errors and hang-ups are told unasked. Once stdin has ended there is nothing more to hear.
    """
    poll = select.poll()
    poll.register(os.pidfd_open(child.pid), select.POLLIN)
    poll.register(_STDOUT, 0)
    if silence:
        poll.register(_STDIN, select.POLLIN)
    while [fd for fd, _ in poll.poll(silence * 1000 or None)] == [_STDIN]:
        words = os.read(_STDIN, 65_536)
        assert child.stdin
        with contextlib.suppress(BrokenPipeError):  # it listens no more, or is about to end
            child.stdin.write(words)
        if not words:
            child.stdin.close()
            poll.unregister(_STDIN)
            silence = 0


def _end(child: subprocess.Popen[bytes]) -> None:
    """End what is left of it and of its group, politely first."""
    for number, patience in ((signal.SIGTERM, PATIENCE), (signal.SIGKILL, 1.0)):
        end = time.monotonic() + patience
        told = False
        while time.monotonic() < end:
            _reap(child)
            try:
                os.killpg(child.pid, 0 if told else number)
            except ProcessLookupError:
                return
            told = True
            time.sleep(0.02)


def _reap(child: subprocess.Popen[bytes]) -> None:
    """Zombies would still be of the group."""
    child.poll()
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-child.pid, os.WNOHANG)[0]:
            pass


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
