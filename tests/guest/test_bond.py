# SPDX-License-Identifier: Apache-2.0
"""A bond and a team: named themselves, answered by whichever port a request comes."""

from __future__ import annotations

import subprocess

import pytest

from guest.ends import SERVER, Ends, check_hits
from netns.process import Carom, until
from netns.wire import Client

BOND = "bond0"


def bonded(ends: Ends, mode: str) -> None:
    """Both ends have a bond of their veths, with an address."""
    ends.link(f"add {BOND} type bond mode {mode} miimon 50")
    for port in ("eth0", "eth1"):
        ends.link(f"set {port} down")
        ends.link(f"set {port} master {BOND}")
    ends.addresses(BOND)


def bonded_client(ends: Ends) -> Client:
    client = Client(ends.client, SERVER)
    until(lambda: client.answered(b"there?", 1), "the bonds to agree")
    return client


def change_active(ends: Ends, port: str) -> None:
    ends.link(f"set {BOND} type bond active_slave {port}")


def test_native_fails_over(ends: Ends) -> None:
    bonded(ends, "active-backup")
    change_active(ends, "eth0")
    with Carom(ends.server, "--mode", "native", interface=BOND) as carom:
        assert carom.mode == "native"
        with bonded_client(ends) as client:
            check_hits(carom, client)
            change_active(ends, "eth1")
            check_hits(carom, client)
            ends.link("set eth0 nomaster")
            check_hits(carom, client)
            ends.link("set eth0 down")
            ends.link(f"set eth0 master {BOND}")
            change_active(ends, "eth0")
            check_hits(carom, client)


@pytest.mark.parametrize("mode", ["802.3ad", "balance-xor xmit_hash_policy layer3+4"])
def test_native_by_both_ports(ends: Ends, mode: str) -> None:
    """Flows take either port: each is answered."""
    bonded(ends, mode)
    with Carom(ends.server, "--mode", "native", interface=BOND) as carom:
        with bonded_client(ends):
            pass
        for _ in range(6):
            with Client(ends.client, SERVER) as client:
                check_hits(carom, client, 1)


def test_auto_is_generic_on_veths(ends: Ends) -> None:
    """For native XDP's replies may vanish there, as on a veth alone."""
    bonded(ends, "balance-rr")
    with Carom(ends.server, interface=BOND) as carom, bonded_client(ends) as client:
        assert carom.mode == "generic"
        check_hits(carom, client)


def test_tc(ends: Ends) -> None:
    bonded(ends, "active-backup")
    with (
        Carom(ends.server, "--hook", "tc", interface=BOND) as carom,
        bonded_client(ends) as client,
    ):
        check_hits(carom, client)


def test_team(ends: Ends) -> None:
    """A team's driver has no native XDP."""
    runner = '{"runner": {"name": "roundrobin"}, "ports": {"eth0": {}, "eth1": {}}}'
    for port in ("eth0", "eth1"):
        ends.link(f"set {port} down")
    teams = [
        subprocess.Popen(end.argv(["teamd", "-t", name, "-c", runner]))
        for end, name in ((ends.server, "team0"), (ends.client, "team1"))
    ]
    try:
        for end, name, address in (
            (ends.server, "team0", SERVER),
            (ends.client, "team1", "198.18.0.1"),
        ):
            until(lambda: name in end.run("ip", "-br", "link"), name)  # noqa: B023 - called here
            end.up(name)
            end.address(name, address, 24)
        with Carom(ends.server, interface="team0") as carom, bonded_client(ends) as client:
            assert carom.mode == "generic"
            check_hits(carom, client)
    finally:
        for one in teams:
            one.terminate()
            one.wait()
