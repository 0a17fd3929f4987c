# SPDX-License-Identifier: Apache-2.0
"""A signal that ends a daemon is never missed, whenever it comes."""

import subprocess
import sys

ROUNDS = 2000
DEADLINE = 120.0

STOPPED_AT_ANY_MOMENT = """
import contextlib, os, random, signal, sys
from carom.kernel.signals import Stop, ending, until_stopped

def pause():
    while True:
        signal.pause()

wait = {"until_stopped": until_stopped, "pause": pause}[sys.argv[1]]
asked, ask = os.pipe()
waiting = os.getpid()
if not os.fork():
    os.close(ask)
    while os.read(asked, 1):
        for _ in range(random.randrange(3000)):
            pass
        os.kill(waiting, signal.SIGTERM)
    os._exit(0)

missed = 0
def late(*_):  # any signal's handler wakes a wait that has missed another
    global missed
    missed += 1

signal.signal(signal.SIGALRM, late)
for _ in range(int(sys.argv[2])):
    with contextlib.suppress(Stop), ending():
        os.write(ask, b"x")
        signal.setitimer(signal.ITIMER_REAL, 1, 1)
        for _ in range(random.randrange(3000)):
            pass
        wait()
    signal.setitimer(signal.ITIMER_REAL, 0)
print(missed)
"""


def missed(wait: str, rounds: int) -> int:
    """How many signals, of one in each round, a wait that other signals wake has missed."""
    command = [sys.executable, "-P", "-c", STOPPED_AT_ANY_MOMENT, wait, str(rounds)]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, timeout=DEADLINE)
    return int(ended.stdout)


class TestUntilStopped:
    def test_misses_no_signal(self) -> None:
        """It would never end: other signals do not wake it."""
        missed("until_stopped", ROUNDS)

    def test_what_pause_would_do(self) -> None:
        """The rounds above find it out."""
        assert any(missed("pause", ROUNDS) for _ in range(200))


STOPPED_IN_A_DESTRUCTOR = """
import os, signal
from carom.kernel.signals import Stop, ending

class Ending:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            pass

try:
    with ending():
        Ending()
        while True:
            signal.pause()
except Stop:
    print("stopped")
"""


def test_a_signal_while_an_object_is_destroyed() -> None:
    """What is raised there goes no further, and nothing is said of it."""
    assert said_by(STOPPED_IN_A_DESTRUCTOR) == ("stopped\n", "")


def said_by(script: str) -> tuple[str, str]:
    """What a process of its own says that runs this: on stdout, and on stderr."""
    ended = subprocess.run(
        [sys.executable, "-P", "-c", script],
        check=True,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    return ended.stdout, ended.stderr


HUNG_UP = """
import os, queue, signal, threading
from carom.kernel.signals import Stop, ending, held, until_stopped

told, main, wait = queue.SimpleQueue(), os.getpid(), signal.sigwaitinfo
waited_for = []

def watched(heard):
    waited_for.append(signal.SIGHUP in heard)
    return wait(heard)

def send():
    for _ in range(100):
        os.kill(main, signal.SIGHUP)
        told.get()
    os.kill(main, signal.SIGTERM)

signal.sigwaitinfo = watched
try:
    with ending(lambda: told.put(True)):
        with held():
            threading.Thread(target=send, daemon=True).start()
        until_stopped()
except Stop:
    print(all(waited_for))
"""


def test_a_hangup_that_ends_nothing() -> None:
    """It is waited for like those that end: else it is missed where pause(2) would miss one."""
    assert said_by(HUNG_UP) == ("True\n", "")
