# SPDX-License-Identifier: Apache-2.0
"""A hundred thousand requests on their way: no acknowledgement is overlooked, and learning goes on.

Apart from the tests of test_edge.py: requests share their tokens' cells with those that were never
answered, so that for a minute no key is learned that was written since.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from netns.forge import Forge, head
from netns.fronted import Fake
from netns.fronts import fronts
from netns.line import Line
from netns.memcache import UDPClient

PORT = 4100
PENDING = 100_000

FLOODS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "gets": (b"get nobody\r\n", {}),
    "gets of many": (b"get nobody%d\r\n", {}),
    "multi-gets": (b"get a b c%d\r\n", {}),
    "writes": (b"delete nobody%d\r\n", {}),
    "wrong checksums": (b"get nobody%d\r\n", {"checksum": "wrong"}),
}


@pytest.fixture(scope="module")
def fake(line: Line) -> Iterator[Fake]:
    with Fake(line.server, PORT) as fake, fronts(line.server, f"memcached:{PORT}:ttl"):
        yield fake


def flood(forge: Forge, fake: Fake, text: bytes, count: int, **fields: Any) -> None:
    """Requests of many ids and ports, that the server leaves unanswered."""
    for number in range(count):
        sport = 20_000 + (number >> 16)
        payload = head(number) + (text % number if b"%" in text else text)
        forge.udp(payload, sport=sport, dport=PORT, **fields)
        if number % 200 == 0:
            fake.drain()
    fake.drain()


@pytest.mark.parametrize("name", FLOODS)
def test_pending(long_form: bool, line: Line, fake: Fake, name: str) -> None:
    text, fields = FLOODS[name]
    if name != "gets" and not long_form:
        pytest.skip("with --long")
    count = PENDING if name == "gets" else PENDING // 5
    key, fresh = b"key-" + name.split()[0].encode(), b"fresh-" + name.split()[-1].encode()
    with (
        Forge(line) as forge,
        UDPClient(line.client, line.address, PORT) as writer,
        UDPClient(line.client, line.address, PORT) as reader,
    ):
        fake.learned(reader, key, b"old")
        number = writer.send(b"set %b 0 0 3\r\nnew\r\n" % key)
        write = fake.take()
        flood(forge, fake, text, count, **fields)
        fake.learned(reader, key, b"old")
        fake.answer(write, b"STORED\r\n")
        assert writer.receive(number) == b"STORED\r\n"
        assert fake.is_asked(reader, key, b"new")
        assert fake.is_asked(reader, fresh, b"x")
        fake.learned(reader, fresh, b"x")  # by one of those whose cell no flood of before is in
