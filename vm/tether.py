# SPDX-License-Identifier: Apache-2.0
"""Run a program on a remote host, and end it once nobody listens to it any more.

`python3 -c TEXT SILENCE PROGRAM...`, where TEXT is this file: it needs nothing but Python. It
watches stdout, whose far end closes with the connection. A connection that is cut does not close:
so if SILENCE is not 0, the program also ends after that many seconds without input on stdin.
Processes that it has started and left in its process group are ended with it.
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
    """Run a program until it or the connection ends; its exit status as a shell's."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)  # so that we reap all of its processes
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
    """Wait until the program ends, the far end of stdout closes, or stdin is silent for too long.

    poll(2) reports errors and hang-ups without being asked. Once stdin has ended it is not watched.
    """
    poll = select.poll()
    poll.register(os.pidfd_open(child.pid), select.POLLIN)
    poll.register(_STDOUT, 0)
    if silence:
        poll.register(_STDIN, select.POLLIN)
    while [fd for fd, _ in poll.poll(silence * 1000 or None)] == [_STDIN]:
        words = os.read(_STDIN, 65_536)
        assert child.stdin
        with contextlib.suppress(BrokenPipeError):  # it does not read any more, or is about to end
            child.stdin.write(words)
        if not words:
            child.stdin.close()
            poll.unregister(_STDIN)
            silence = 0


def _end(child: subprocess.Popen[bytes]) -> None:
    """End what is left of the program and its process group, first by SIGTERM."""
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
    """Reap the group's zombies, which would still count as its members."""
    child.poll()
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-child.pid, os.WNOHANG)[0]:
            pass


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
