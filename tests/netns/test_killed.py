# SPDX-License-Identifier: Apache-2.0
"""carom is killed, or stopped, and starts again, while clients ask and write all the time.

No reply is wrong or stale, there are hits again, and nothing of the killed ones is left. How long
it took is printed. The choice is random; its seed is printed, too.
"""

from __future__ import annotations

import random
import signal
import statistics
import time
from contextlib import ExitStack, nullcontext

import pytest

from netns.held import held, until_gone
from netns.line import Line
from netns.process import INTERFACE, Carom, until
from netns.restless import Asker, Writer
from netns.test_restless import BOUNDS, Fronting, Serving, chance

__all__ = ["chance"]

TIMES, LONG = 5, 100
AGAIN = ("--amplify", "0", "--mode", "generic", *BOUNDS, "--hook")


def _started(host: Serving | Fronting, hook: str) -> Carom:
    if isinstance(host, Serving):
        return Carom(host.line.server, "--app", "changing:changing", *AGAIN, hook)
    port = ("-p", str(host.language.port))
    return Carom(host.line.server, *port, *AGAIN, hook, command="front")


def _until_replied(asker: Asker, before: int) -> None:
    """More than so many replies have come."""
    until(lambda: asker.replies > before or asker.wrong, "a reply")


@pytest.mark.parametrize("hook", ["xdp", "tc"])
@pytest.mark.parametrize("world", [Serving, Fronting])
def test_killed_again_and_again(
    own_line: Line,
    chance: random.Random,
    world: type[Serving | Fronting],
    hook: str,
    long_form: bool,
) -> None:
    served, hit, again = [], [], []
    qdiscs = own_line.server.run("tc", "qdisc")
    with ExitStack() as caroms, ExitStack() as stack:
        host = world(own_line, chance, hook, stack)
        asker = stack.enter_context(
            Asker(own_line.client, host.target, host.language, host.history)
        )
        until(lambda: asker.replies, "the first reply")
        writer = stack.enter_context(Writer(host.write, random.Random(chance.random())))
        until(lambda: asker.hits, "the first hit")
        # A fronted server is written to all the time; a Python server is not there meanwhile.
        pause = writer.paused if isinstance(host, Serving) else nullcontext()
        for _ in range(LONG if long_form else TIMES):
            time.sleep(chance.choice((0, 0.05, 0.3)))
            with pause:
                mine = held(host.carom.pid)
                assert {one.kind for one in mine} == {"prog", "map", "link"}
                host.carom.signal(signal.SIGKILL)
                assert host.carom.wait().code == -signal.SIGKILL
                if isinstance(host, Serving):  # it has forgotten what was written
                    host.history.ended()
                    host.begin_anew()
                began = time.monotonic()
                host.carom = caroms.enter_context(_started(host, hook))
                served.append(time.monotonic() - began)
                asker.changed()
                if isinstance(host, Serving):  # writes are taken from its first reply on
                    _until_replied(asker, asker.replies)
            until(lambda: asker.hit_after < 60 or asker.wrong, "hits again")
            hit.append(asker.hit_after)
            again.append(time.monotonic() - began)
            assert not asker.wrong, "\n".join(asker.wrong[:5])
            until_gone(mine)
        assert not writer.failed, writer.failed
        mine = held(host.carom.pid)
    until_gone(mine)
    assert own_line.server.run("tc", "qdisc") == qdiscs
    assert not asker.wrong, "\n".join(asker.wrong[:5])
    figures = (("ready after", served), ("then a hit after", hit), ("hits again after", again))
    for what, times in figures:
        print(f"{what} {statistics.median(times):.3f} s, at most {max(times):.3f} s")
    print(f"killed {len(hit)} times: {asker}")


@pytest.mark.parametrize("hook", ["xdp", "tc"])
def test_stopped_again_and_again(own_line: Line, chance: random.Random, hook: str) -> None:
    """In front of a server: it answers meanwhile, and what was written then is not given after."""
    with ExitStack() as stack:
        host = Fronting(own_line, chance, hook, stack)
        asker = stack.enter_context(
            Asker(own_line.client, host.target, host.language, host.history)
        )
        until(lambda: asker.replies, "the first reply")
        writer = stack.enter_context(Writer(host.write, random.Random(chance.random())))
        until(lambda: asker.hits, "the first hit")
        for _ in range(3):
            host.carom.signal(signal.SIGSTOP)
            time.sleep(chance.choice((0.5, 2.5)))
            time.sleep(2.5)
            hits, replies = asker.hits, asker.replies
            _until_replied(asker, replies)
            assert asker.hits == hits, "without a lease the kernel answers nothing"
            host.carom.signal(signal.SIGCONT)
            asker.changed()
            until(lambda: asker.hit_after < 60 or asker.wrong, "hits again")
            assert not asker.wrong, "\n".join(asker.wrong[:5])
        host.carom.interface = INTERFACE
        assert not writer.failed, writer.failed
    assert not asker.wrong, "\n".join(asker.wrong[:5])
