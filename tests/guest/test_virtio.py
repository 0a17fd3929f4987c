# SPDX-License-Identifier: Apache-2.0
"""Native XDP on a virtio interface: what its driver counts, also when it drops replies."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from carom.vm.namespace import Namespace
from guest.ends import CLIENT, SERVER, Ends
from netns.process import Carom, until
from netns.wire import Client

FLOOD = 20_000


@pytest.fixture
def ends() -> Iterator[Ends]:
    """A client and a server, with one of the machine's own interfaces each, eth0."""
    drivers = Path("/sys/bus/virtio/drivers/virtio_net")
    names = sorted(path.name for path in drivers.glob("virtio*/net/*"))
    assert len(names) == 2
    with Namespace("client") as client, Namespace("server") as server:
        for end, name in zip((client, server), names, strict=True):
            subprocess.run(["ip", "link", "set", name, "netns", end.name], check=True)
            end.run("ip", "link", "set", name, "name", "nic")
            end.run("ethtool", "-K", "nic", "tx", "off")
        ends = Ends(client, server)
        ends.addresses("nic")
        client.neighbour("nic", SERVER, server.mac("nic"))
        server.neighbour("nic", CLIENT, client.mac("nic"))
        try:
            yield ends
        finally:
            for end, name in zip((client, server), names, strict=True):
                end.run("ip", "link", "set", "nic", "down")
                end.run("ip", "link", "set", "nic", "name", name)
                end.run("ip", "link", "set", name, "netns", "1")


def check_sums(status: dict[str, Any]) -> dict[str, Any]:
    (interface,) = status["interfaces"]
    assert (interface["driver"], interface["unknown"]) == ("virtio_net", "")
    assert interface["received"] == sum(status["packets"].values())
    assert interface["sent"] + interface["lost"] == status["packets"]["answered"]
    return dict(interface)


def test_sent_against_counted(ends: Ends) -> None:
    """Under a flood its ring is full now and then: those replies are lost, and each is known."""
    options = ("--mode", "native", "--fast", "bounce", "--echoes", "0")
    rates = ("--prefix-rate", "0", "--total-rate", "0")
    with (
        Carom(ends.server, *options, *rates, interface="nic") as carom,
        Client(ends.client, SERVER, own=45_678) as client,
    ):
        assert carom.mode == "native"
        for _ in range(20):
            assert client.ask(b"once") == b"once"
        assert check_sums(carom.status())["lost"] == 0

        def flooded() -> bool:
            for _ in range(FLOOD):
                client.send(b"once more")
            return bool(carom.status()["interfaces"][0]["lost"])

        until(flooded, "a reply to be lost")
        until(lambda: is_quiet(carom), "the flood to end")
        interface = check_sums(carom.status())
        assert interface["lost"] > 0 and interface["sent"] > 20


def is_quiet(carom: Carom) -> bool:
    """Whether nothing comes any more."""
    first, second = (json.dumps(carom.status()["packets"]) for _ in range(2))
    return first == second
