# SPDX-License-Identifier: Apache-2.0
"""VLAN devices on top of the interface, with tags in the frames and with tags taken off before XDP;
and an anycast address on a dummy, asked for behind a tag and without."""

from __future__ import annotations

import pytest

from guest.ends import Ends, check_hits, check_no_hits
from netns.process import Carom
from netns.wire import Client

BEHIND, ANYCAST = "198.18.5.2", "198.18.77.1"


@pytest.fixture
def tagged(ends: Ends) -> Ends:
    """VLAN 5 on top of eth0, and a dummy with an address that the client reaches through it."""
    ends.addresses("eth0")
    ends.link("add link eth0 name eth0.5 type vlan id 5")
    ends.addresses("eth0.5", BEHIND, "198.18.5.1")
    ends.server.run("ip", "link", "add", "anycast0", "type", "dummy")
    ends.server.up("anycast0")
    ends.server.address("anycast0", ANYCAST, 32)
    ends.client.run("ip", "route", "add", ANYCAST, "via", BEHIND)
    return ends


@pytest.mark.parametrize(
    "arguments", [("--mode", "native"), ("--mode", "generic"), ("--hook", "tc")]
)
def test_tags_in_the_frames(tagged: Ends, arguments: tuple[str, ...]) -> None:
    """Answered behind them, at the VLAN's address and at the host's own."""
    tagged.client.run("ethtool", "-K", "eth0", "txvlan", "off")
    with Carom(tagged.server, *arguments, "--bind", "::", interface="eth0") as carom:
        for address in (BEHIND, ANYCAST):
            with Client(tagged.client, address) as client:
                check_hits(carom, client)


def test_tags_taken_off(tagged: Ends) -> None:
    """The server answers alone, also where the address is the host's; and it is said."""
    with Carom(tagged.server, "--mode", "native", "--bind", "::", interface="eth0") as carom:
        for address in (BEHIND, ANYCAST):
            with Client(tagged.client, address) as client:
                check_no_hits(carom, client)
        with Client(tagged.client, "198.18.0.2") as client:
            check_hits(carom, client)
        (note,) = (one for one in carom.ready["notes"] if "VLAN tags" in one)
        (reach,) = carom.status()["services"][0]["reach"]
        assert reach["answered"]
        assert reach["but"] == note
        assert "(5)" in note
        assert "--hook tc" in note


def test_tc_sees_tags_taken_off(tagged: Ends) -> None:
    with Carom(tagged.server, "--hook", "tc", "--bind", "::", interface="eth0") as carom:
        for address in (BEHIND, ANYCAST, "198.18.0.2"):
            with Client(tagged.client, address) as client:
                check_hits(carom, client)


def test_anycast_on_a_dummy(tagged: Ends) -> None:
    """Without VLANs the host's own addresses are answered at XDP, too."""
    tagged.link("del eth0.5")
    tagged.client.run("ip", "route", "add", ANYCAST, "via", "198.18.0.2")
    with (
        Carom(tagged.server, "--mode", "native", "--bind", ANYCAST, interface="eth0") as carom,
        Client(tagged.client, ANYCAST) as client,
    ):
        check_hits(carom, client)
