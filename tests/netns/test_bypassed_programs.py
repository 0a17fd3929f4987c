# SPDX-License-Identifier: Apache-2.0
"""Others' programs where a request passes and a hit does not are named."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
import subprocess
from collections.abc import Iterator

import pytest
from pyroute2 import IPRoute

from carom.daemon import firewall
from carom.daemon.bypassed_programs import cgroup_programs
from carom.daemon.firewall import Ruleset, Way
from carom.kernel import libbpf
from carom.kernel.cgroups import open_root
from netns.line import Line
from netns.process import INTERFACE, Carom, until
from netns.services import PORT
from netns.test_firewall import put, table

CGROUP_SKB = 8  # enum bpf_prog_type


@pytest.fixture
def confined() -> Iterator[int]:
    """A process in a control group that has a program of its own."""
    root, name = open_root(), f"carom-test-{secrets.token_hex(3)}"
    try:
        os.mkdir(name, dir_fd=root)
    except OSError as error:
        os.close(root)
        pytest.skip(f"no control group can be made here: {error}")
    group = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=root)
    program = libbpf.load_constant(CGROUP_SKB, b"sd_fw_ingress", 1)
    link = libbpf.link_cgroup(program, group, libbpf.CGROUP["ingress"])
    process = subprocess.Popen(["sleep", "600"])
    try:
        procs = os.open("cgroup.procs", os.O_WRONLY, dir_fd=group)
        os.write(procs, b"%d" % process.pid)
        os.close(procs)
        yield process.pid
    finally:
        process.kill()
        process.wait()
        for descriptor in (link, program, group):
            os.close(descriptor)
        os.rmdir(name, dir_fd=root)
        os.close(root)


def test_programs_of_control_groups(confined: int) -> None:
    (found,) = [one for one in cgroup_programs([confined]) if "sd_fw_ingress" in one]
    assert "ingress" in found
    assert "/carom-test-" in found
    assert not [one for one in cgroup_programs([os.getpid()]) if "sd_fw_ingress" in one]


@pytest.mark.parametrize(("hook", "named"), [("xdp", True), ("tc", False)])
def test_a_program_at_tc(own_line: Line, hook: str, named: bool) -> None:
    """One that was there before a carom at TC sees what is a hit; at XDP it does not."""
    program = libbpf.load_constant(libbpf.PROG_TYPE_SCHED_CLS, b"stranger", -1)

    def attach() -> int:
        return libbpf.link_tcx_ingress(program, socket.if_nametoindex(INTERFACE))

    link = own_line.server.call(attach)
    try:
        with Carom(own_line.server, "--hook", hook, "--mode", "generic") as carom:
            assert any("stranger" in note for note in carom.ready["notes"]) == named
    finally:
        os.close(link)
        os.close(program)


def test_a_filter_of_clsact(own_line: Line) -> None:
    """It comes behind TCX, whoever was first."""
    program = libbpf.load_constant(libbpf.PROG_TYPE_SCHED_CLS, b"stranger", -1)

    def attach() -> None:
        index = socket.if_nametoindex(INTERFACE)
        with IPRoute() as netlink:
            netlink.tc("add", "clsact", index)
            netlink.tc(
                "add-filter",
                "bpf",
                index,
                1,
                fd=program,
                name="old school",
                parent=0xFFFFFFF2,
                prio=7,
                classid=1,
                direct_action=True,
            )

    own_line.server.call(attach)
    os.close(program)
    with Carom(own_line.server, "--hook", "tc") as carom:
        assert any("bpf old school of priority 7" in note for note in carom.ready["notes"])


def test_a_server_in_another_namespace(own_line: Line) -> None:
    """The firewall that its requests pass is looked at as well, and named with its namespace."""
    put(own_line.client, table("tcp dport 22 accept", policy="drop"))
    process = own_line.client.popen(["sleep", "600"])
    try:
        until(lambda: firewall.elsewhere([process.pid]), "the process to be there")
        (pid,) = firewall.elsewhere([os.getpid(), process.pid, process.pid])
        theirs = firewall.inside(pid, Ruleset)
        assert theirs
        way = Way(INTERFACE, ipaddress.ip_address(own_line.address))
        found = firewall.look(theirs, PORT, [way], exact=False)
        assert found.certain
    finally:
        process.kill()
        process.wait()
