# SPDX-License-Identifier: Apache-2.0
"""`carom doctor` where bonds, teams, VLANs and ipvlans are on top of the interface, or below it."""

from __future__ import annotations

import os

import pytest

from carom.vm.namespace import join
from carom.vm.netns import attach_pass
from guest.ends import SERVER, Ends, joined
from netns.diagnosis import OURS_ALONE, doctor, found, healthy, names
from netns.process import until


def finds(ends: Ends, name: str, severity: str, interface: str, *arguments: str) -> str:
    """The one finding's remedy."""
    _, report = doctor(ends.server, "-i", interface, *OURS_ALONE, *arguments)
    (result,) = found(report)
    assert (result.name, result.severity) == (name, severity), result
    return result.remedy


def test_a_vlan_whose_tags_are_taken_off(ends: Ends) -> None:
    """Where XDP sees the frames; TC sees the tags."""
    ends.addresses("eth0")
    healthy(ends.server, "-i", "eth0")
    ends.link("add link eth0 name eth0.5 type vlan id 5")
    ends.addresses("eth0.5", "198.18.5.2", "198.18.5.1")
    assert "txvlan off" in finds(ends, "tags", "useless", "eth0")
    healthy(ends.server, "-i", "eth0", "--hook", "tc")


def test_an_ipvlan_on_top(ends: Ends) -> None:
    ends.addresses("eth0")
    ends.server.run(*["ip", "link", "add", "ipvl0", "link", "eth0", "type", "ipvlan", "mode", "l3"])
    finds(ends, "ipvlan", "note", "eth0")


@pytest.mark.parametrize("kind", ["bond", "team"])
def test_a_port_of_a_bond_or_a_team(ends: Ends, kind: str) -> None:
    """Named is what is above it."""
    ends.link(f"add up0 type {kind}")
    for port in ("eth0", "eth1"):
        ends.link(f"set {port} down")
        ends.link(f"set {port} master up0")
    ends.addresses("up0")
    ends.link("set eth0 up")
    assert finds(ends, "port", "useless", "eth0", "--hook", "tc") == "-i up0"


def connected(ends: Ends) -> bool:
    """A bond looks at its ports now and then."""
    return "no-carrier" not in names(doctor(ends.server, "-i", "bond0", *OURS_ALONE)[1])


def test_a_bond_of_veths() -> None:
    """Native XDP's frames have to get to the other end of each of its ports."""
    with joined(2) as ends:
        ends.link("add bond0 type bond mode active-backup miimon 50")
        for port in ("eth0", "eth1"):
            ends.link(f"set {port} down")
            ends.link(f"set {port} master bond0")
        ends.addresses("bond0")
        until(lambda: connected(ends), "the bond to have a carrier")
        healthy(ends.server, "-i", "bond0", "--mode", "native")
    with joined(0) as ends:
        for number in range(2):
            join(ends.client, f"eth{number}", ends.server, f"eth{number}")
        ends.server.run(
            *["ip", "link", "add", "bond0", "type", "bond", "mode", "active-backup", "miimon", "50"]
        )
        for port in ("eth0", "eth1"):
            ends.server.run("ip", "link", "set", port, "down")
            ends.server.run("ip", "link", "set", port, "master", "bond0")
        ends.server.up("bond0")
        ends.server.address("bond0", SERVER, 24)
        until(lambda: connected(ends), "the bond to have a carrier")
        program = attach_pass(ends.client, "eth0")
        try:
            _, report = doctor(ends.server, "-i", "bond0", *OURS_ALONE, "--mode", "native")
        finally:
            os.close(program)
        (result,) = found(report)
        assert result.name == "veth-peer" and "eth1" in result.what


def test_on_this_kernel(ends: Ends) -> None:
    """What an older one does not tell is not known, and no fault."""
    ends.addresses("eth0")
    ends.server.run("ip", "link", "add", "br0", "type", "bridge")
    ends.server.up("br0")
    ends.server.address("br0", "198.18.9.2", 24)
    _, report = doctor(ends.server, "-i", "br0", "--skip", "machine", "--skip", "no-carrier")
    states = {result.name: result.state for result in report.results}
    assert states["native"] in ("found", "not known")
    assert states["bpf"] == states["files"] == "fine"
