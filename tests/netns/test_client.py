# SPDX-License-Identifier: Apache-2.0
"""`carom client` from one namespace to `carom serve` in another, behind its cache and without."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from carom.protocols.kv import PORT
from netns.line import Line
from netns.process import Carom, Ended, run


def client(line: Line, *argv: str) -> Ended:
    return run(line.client, "client", line.address, *argv, "--json")


def result_of(ended: Ended) -> dict[str, Any]:
    assert (ended.code, ended.stderr) == (0, ""), ended
    result: dict[str, Any] = json.loads(ended.stdout)
    assert (result["refused"], result["late"], result["complete"]) == (0, 0, True)
    return result


@pytest.fixture(params=["cache", "none"])
def where(request: pytest.FixtureRequest) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Arguments and options of a Carom: behind its cache, and in userspace alone."""
    if request.param == "cache":
        return (), {}
    return ("--hook", "none"), {"interface": None}


def test_every_behaviour_in_turn(
    straight: Line,
    serve: Callable[..., Carom],
    where: tuple[tuple[str, ...], dict[str, Any]],
) -> None:
    """One server through all of them, which STOP does not end; what it holds goes on adding up."""
    arguments, options = where
    carom = serve("--app", "kv", *arguments, **options)
    for argv, values, valid, invalid in (
        (["-b", "thor"], [], 9, 0),  # 14
        (["-b", "odin"], [14 + 7, 14 + 14], 11, 0),  # 28
        (["-b", "loki", "-n", "30"], [28 + 7, 28 + 14], 11, 30),  # 42
        (["-b", "sylvie", "-n", "40"], [], 41, 0),  # 82
        (["-b", "frey", "-n", "50", "-p", "20"], [82 + 40], 42, 10),
        (["-b", "frigg", "-n", "110", "-p", "50", "--equal-length"], [122 + 55], 56, 55),
        (["-b", "getstop"], [177], 2, 0),
        (["-b", "getstop"], [177], 2, 0),
        (["-b", "njord"], [177 + 7, 7], 17, 0),  # and none of key 10
        (["-b", "thor"], [], 9, 0),  # 14
        (["-b", "stop"], [], 1, 0),
        (["-b", "getstop"], [14], 2, 0),
    ):
        result = result_of(client(straight, *argv, "--patience", "60s"))
        assert result["behaviour"] == argv[1]
        assert result["values"] == values, argv
        assert (result["sent_valid"], result["sent_invalid"]) == (valid, invalid)
    # Its last GET has no reply, so this one waits for no more than it must.
    sif = result_of(client(straight, "-b", "sif", "--patience", "5s"))
    assert sif["values"] == [14, 24, 10, 10, None]
    assert carom.process.poll() is None


def test_a_get_that_the_kernel_answers(straight: Line, serve: Callable[..., Carom]) -> None:
    carom = serve("--app", "kv")
    result_of(client(straight, "-b", "thor"))
    argv = ("-b", "getstop", "--patience", "60s")
    # Replies that come soon after a PUT, which nobody acknowledges, are not kept.
    for _ in range(20):
        assert result_of(client(straight, *argv))["values"] == [14]
        if carom.counters()["fills"]:
            break
    before = carom.counters()
    assert result_of(client(straight, *argv))["values"] == [14]
    rise = carom.since(before)
    assert rise.get("hit") == 1, rise


@pytest.mark.parametrize("behaviour", ["stop", "thor", "getstop"])
def test_stop_ends_a_server_that_obeys(
    straight: Line,
    serve: Callable[..., Carom],
    where: tuple[tuple[str, ...], dict[str, Any]],
    behaviour: str,
) -> None:
    arguments, options = where
    carom = serve("--app", "kv_stops", *arguments, **options)
    result_of(client(straight, "-b", behaviour))
    carom.check_clean(carom.wait())


def test_a_server_that_is_gone(straight: Line) -> None:
    # Hosts bound how many refusals they send a second, so this waits for one.
    ended = client(straight, "-b", "odin", "--patience", "2s")
    assert ended.code == 1
    assert f"nothing listens on {straight.address} port {PORT}" in ended.stderr
    result = json.loads(ended.stdout)
    assert result["refused"] > 0
    assert result["values"] == [None, None]
