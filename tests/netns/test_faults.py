# SPDX-License-Identifier: Apache-2.0
"""Each step of a start fails in turn: it says so in words, and leaves nothing behind."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from carom.kernel.resource import Resource
from netns.fault_process import ERRORS
from netns.line import Line
from netns.process import DEADLINE, INTERFACE, at_tc, attached, control_socket, environment

DRIVER = Path(__file__).with_name("fault_process.py")
SEED = 20
"""Of what the short form tries; the long form tries all."""

STARTS = {
    "serve, XDP": ("serve", "--mode", "native", "--shadow", "2"),
    "serve, TC": ("serve", "--hook", "tc", "--protocol", "kv", "--filter", "simple"),
    "front, XDP": ("front", "--mode", "generic", "--exptime", "ask"),
    "front, TC": ("front", "--hook", "tc", "--allow", "198.18.0.0/15"),
}
SOME = 8
"""Steps on files, and others, of each start in the short form."""


class Starts(Resource):
    """Starts of carom in a namespace, each with one step refused."""

    def __init__(self, line: Line, errors: str, *words: str):
        self._process = subprocess.Popen(
            line.server.argv([sys.executable, "-P", str(DRIVER), errors, *words]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        self.plain = self._answer()
        self.steps: list[str] = self.plain.get("steps", [])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def without(self, step: int) -> dict[str, Any]:
        """What became of a start that was refused this step, the first of which is 1."""
        assert self._process.stdin
        print(step, file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        """Start none any more."""
        self._process.communicate(timeout=DEADLINE)


def kind(step: str) -> str:
    """Steps with the same one do the same to different things."""
    return re.sub(r"\d+", "N", re.sub(r"(/\w+/).*", r"\1", step))


def chosen(steps: list[str], *, all: bool) -> list[int]:
    """Numbers of steps: all; or some, half of them on files, each of another kind."""
    numbers = range(1, len(steps) + 1)
    if all:
        return list(numbers)
    chance = random.Random(SEED)
    files = {kind(step): number for number, step in enumerate(steps, 1) if "/" in step}
    others = [number for number in numbers if "/" not in steps[number - 1]]
    return sorted([*chance.sample(sorted(files.values()), SOME), *chance.sample(others, SOME)])


def check(done: dict[str, Any]) -> None:
    """It is ready, for the step was none that it needs; or it ended with one message in words."""
    said = done["stderr"].splitlines()
    assert "Traceback" not in done["stderr"], done
    if done["code"] == 0:
        assert done["stdout"].startswith("ready "), done
    else:
        assert (done["code"], done["stdout"]) == (1, ""), done
        (message,) = (line for line in said if line.startswith("carom: "))
        assert said[said.index(message) + 1 :] == [
            line for line in said if line.startswith("  hint: ")
        ], done
        assert "[Errno" not in message, done
    assert not done["threads"], done
    assert not done["left"], done
    assert not control_socket(done["pid"]).exists(), done


@pytest.mark.parametrize("start", STARTS)
def test_each_step(
    straight: Line, start: str, long_form: bool, request: pytest.FixtureRequest
) -> None:
    command, *options = STARTS[start]
    if command == "front":
        request.getfixturevalue("memcached")
    before = at_tc(straight.server)
    for errors in ERRORS if long_form else [random.Random(f"{SEED} {start}").choice([*ERRORS])]:
        with Starts(straight, errors, command, "-i", INTERFACE, *options) as starts:
            check(starts.plain)
            assert starts.plain["code"] == 0, starts.plain
            numbers = chosen(starts.steps, all=long_form)
            print(f"{errors}: {len(numbers)} of {len(starts.steps)} steps; seed {SEED}")
            ended = 0
            for number in numbers:
                done = starts.without(number)
                check(done)
                ended += done["code"] == 1
                assert attached(straight.server) is None, done
            assert ended, "many steps are needed"
        assert at_tc(straight.server) == before
