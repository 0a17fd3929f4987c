# SPDX-License-Identifier: Apache-2.0
"""Run a program on a host far away, and end it once nobody listens to it any more.

`python3 -c TEXT PROGRAM...`, where TEXT is this file: it needs nothing but Python. It watches
stdout, whose far end closes with the connection. What the program has started and left in its
session's process group goes with it.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time

PATIENCE = 15.0  # seconds to end when told to; an agent gives its servers ten
_PR_SET_PDEATHSIG = 1
_STDOUT = 1


def main(argv: list[str]) -> int:
    """Run it to its end or to that of the connection; its exit status as a shell tells it."""
    try:
        child = subprocess.Popen(argv, start_new_session=True, preexec_fn=_end_with_us)
    except OSError as error:
        print(f"{argv[0]}: {error.strerror}", file=sys.stderr)
        return 127
    _wait(child)
    _end(child)
    status = child.wait()
    return 128 - status if status < 0 else status


def _end_with_us() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait(child: subprocess.Popen[bytes]) -> None:
    """Until it ends, or the far end of stdout closes: errors and hang-ups are told unasked."""
    poll = select.poll()
    poll.register(os.pidfd_open(child.pid), select.POLLIN)
    poll.register(_STDOUT, 0)
    poll.poll()


def _end(child: subprocess.Popen[bytes]) -> None:
    """End what is left of it and of its group, politely first."""
    for number, patience in ((signal.SIGTERM, PATIENCE), (signal.SIGKILL, 1.0)):
        end = time.monotonic() + patience
        told = False
        while time.monotonic() < end:
            child.poll()  # as a zombie it would still be of the group
            try:
                os.killpg(child.pid, 0 if told else number)
            except ProcessLookupError:
                return
            told = True
            time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
