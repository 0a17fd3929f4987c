# SPDX-License-Identifier: Apache-2.0
"""What is said of servers to be fronted: on the command line, and in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from carom.cli import app
from carom.cli_serve import known
from carom.configuration import Configuration
from carom.daemon.front import Front
from carom.errors import UsageError


def front_of(values: dict[str, Any]) -> Front:
    """What is fronted if this is said on the command line."""
    said = Configuration(known(), kind="front", given=values, interfaces=["eth0"])
    (planned,) = said.read().services
    front = planned.made()
    assert isinstance(front, Front)
    return front


def test_what_is_not_said() -> None:
    front = front_of({})
    assert (front.options.protocol, front.options.port, front.options.bind) == (
        "memcached",
        11211,
        "::",
    )
    assert (front.options.amplify, front.server_port) == (0, 0)
    assert (front.writes_elsewhere, front.exptime) == ("refuse", "auto")
    names = front_of({"protocol": "DNS", "ttl": "5m"})
    assert (names.options.port, names.options.ttl, names.exptime) == (53, 300, "ttl")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"protocol": "kv"}, "front cannot learn kv"),
        ({"protocol": 5}, "protocol: Expected `str`"),
        ({"writes_elsewhere": "never"}, "writes-elsewhere 'never' is unknown"),
        ({"exptime": 5}, "exptime"),
        ({"server_port": 70_000}, "server-port 70000 is out of range"),
        ({"server_port": "53"}, "server-port"),
        ({"port": 0}, "port 0 is out of range"),
        ({"ttl": 0.5}, "ttl 0.5 is not whole seconds"),
        ({"hook": "none"}, "front is a cache in the kernel"),
    ],
)
def test_wrong(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        front_of(values)


FILES = {
    "[[service]]\nport = 1\n[[service]]\nport = 1": "two services are to answer on port 1",
    '[[service]]\nport = 1\nbind = "198.18.0.2"\n[[service]]\nport = 1': "two services are",
    '[[service]]\nhook = "tc"\n[[service]]\nport = 1': "share hook",
    'ttl = "1h"': "names no service",
    '[[service]]\nprotocol = "http"': "protocol 'http' is unknown",
    "[[service]]\nwait = 5": "front has no option 'wait'",
    '[[service]]\nfilter = "ids"': "front has no option 'filter'",
    '[[service]]\napp = "echo"': "unknown option 'app'",
    "[[service]]\nport = 1": "no interface to answer on",
    "[service": "is not TOML",
}


@pytest.mark.parametrize(("text", "said"), FILES.items())
def test_wrong_files(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "fronts.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=said):
        CliRunner().invoke(app, ["front", "--config", str(file)], catch_exceptions=False)
