# SPDX-License-Identifier: Apache-2.0
"""A configuration that is read again: which service is which, and what may change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from carom.cli_serve import known
from carom.configuration import Configuration
from carom.errors import ConfigurationError
from carom.reread import Reread

ON = 'interfaces = ["eth0"]\n'
ECHO, MEMCACHED, DNS = (
    '[[service]]\napp = "echo"\n',
    '[[service]]\nprotocol = "memcached"\n',
    '[[service]]\nprotocol = "dns"\n',
)

Read = Callable[[str], tuple[list[float], list[str]]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads texts one after the other: TTLs in the order of the first, and what was said."""
    file, rereads = tmp_path / "carom.toml", list[Reread]()
    configuration = Configuration(known(), file)

    def read(text: str) -> tuple[list[float], list[str]]:
        file.write_text(text)
        if not rereads:
            plan = configuration.read()
            rereads.append(Reread(configuration, plan))
            return [one.options.ttl for one in plan.services], []
        change = rereads[0]()
        change.accepted()
        return [options.ttl for options in change.options], change.said

    return read


def refused(read: Read, text: str) -> list[str]:
    """What a text is refused for, without its path."""
    with pytest.raises(ConfigurationError) as raised:
        read(text)
    lines = str(raised.value).splitlines()
    return [line.partition("carom.toml")[2] for line in (lines[1:] or lines)]


def test_what_may_change(read: Read) -> None:
    assert read(ON + ECHO + MEMCACHED) == ([60, 60], [])
    assert read("ttl = 5\n" + ON + ECHO + MEMCACHED) == ([5, 5], ["ttl: 60.0 -> 5.0"] * 2)
    assert read(ON + MEMCACHED + "ttl = 7\n" + ECHO) == (
        [60, 7],
        ["service[1].ttl: 5.0 -> 60.0", "service[0].ttl: 5.0 -> 7.0"],
    )
    assert read(ON + MEMCACHED + "ttl = 7\n" + ECHO) == ([60, 7], [])


def test_what_needs_a_restart(read: Read) -> None:
    """All of it is named, and what may change beside it does not."""
    read(ON + ECHO + MEMCACHED)
    text = 'interfaces = ["eth1"]\nttl = 5\nhook = "tc"\n' + ECHO + "port = 9\n" + DNS
    assert refused(read, text) == [
        ":1: interfaces: needs a restart: ['eth1'], and ['eth0'] is in force"
        " (nothing has changed: start carom again for this, or take it back)",
        *(
            f"{where}: needs a restart: {now!r}, and {before!r} is in force"
            " (nothing has changed: start carom again for this, or take it back)"
            for where, now, before in (
                (":3: hook", "tc", "xdp"),
                (":6: service[0].port", 9, 51141),
                (":8: service[1].protocol", "dns", "memcached"),
                (": service[1].port", 53, 11211),
            )
        ),
    ]
    assert read(ON + ECHO + MEMCACHED) == ([60, 60], [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ON + ECHO + MEMCACHED + DNS, ":6: service[2]: needs a restart: a service on port 53 has"),
        (ON + ECHO, ": needs a restart: the service on port 11211 has gone"),
        (ON + MEMCACHED + ECHO.replace("echo", "kept"), "service[1].app: needs a restart: 'kept'"),
        (ON + ECHO + MEMCACHED + "exptime = 'ttl'", ":6: service[1].exptime: needs a restart"),
        (ON + ECHO + MEMCACHED + "ttl = 0.5", ":6: service[1].ttl: ttl 0.5 is not whole seconds"),
    ],
)
def test_one_thing(read: Read, text: str, said: str) -> None:
    read(ON + ECHO + MEMCACHED)
    (found,) = refused(read, text)
    assert said in found
