# SPDX-License-Identifier: Apache-2.0
"""`carom doctor` where a fault was planted: it finds that one, and where none was, none.

What the test machine itself is like (its CPUs, its kernel) is left out here, but where that is what
is tested: tests/unit/test_doctor.py plants such things in files.
"""

from __future__ import annotations

import ipaddress
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from carom.daemon.doctor.examine import CHECKS, Report, Result
from carom.frames import request_frame
from carom.kernel import ethtool, libbpf
from carom.kernel.abi import VIEWS_MAX
from carom.kernel.cgroups import open_root
from netns import line as lines
from netns import test_bypassed_programs
from netns.container import any_port
from netns.cookies import CookieServer
from netns.diagnosis import OURS_ALONE, doctor, found, healthy, names
from netns.line import Line
from netns.memcache import Memcached
from netns.nameserver import NSD
from netns.process import INTERFACE, Carom, Ended, run, until
from netns.puppet import NOBODY, ROOT_OF_NOTHING, Puppet
from netns.services import PORT, sized_request
from netns.test_access import Server
from netns.test_notes import needs
from netns.test_silence import silence_of
from netns.wire import Client

confined = test_bypassed_programs.confined
SECOND = "198.18.0.3"


def only(line: Line, name: str, *arguments: str, severity: str = "useless") -> Result:
    """The one finding on the pair's server; what is found may not depend on the form."""
    asked = ("-i", INTERFACE, *OURS_ALONE, *arguments)
    code, report = doctor(line.server, *asked)
    (result,) = found(report)
    assert (result.name, result.severity) == (name, severity), result
    assert result.what and result.remedy
    assert (code, report.wrong) == ((0, 0) if severity == "note" else (1, 1))
    ended = run(line.server, "doctor", *asked)
    (said,) = (one for one in ended.stdout.splitlines()[:-1] if not one.startswith("?"))
    assert said.startswith(f"{severity:8} {name}: ") and result.remedy in said
    assert ended.code == code
    return result


@pytest.fixture(scope="module")
def bare() -> Iterator[Line]:
    with lines.bare() as line:
        line.client.run("ethtool", "-K", INTERFACE, "gro", "off")
        yield line


ON = ("-i", INTERFACE)


@pytest.mark.parametrize("how", ["", "--hook tc", "--mode native", "--mode generic"])
def test_a_healthy_pair(straight: Line, how: str) -> None:
    healthy(straight.server, *ON, *how.split())


def test_healthy_before_a_service(straight: Line) -> None:
    healthy(straight.server, *ON, "--protocol", "raw", "-p", str(any_port()))


def test_healthy_before_servers(own_line: Line, tmp_path: Path) -> None:
    """A memcached, and a name server without cookies."""
    port = any_port()
    with Memcached(own_line.server, port):
        healthy(own_line.server, *ON, "--protocol", "memcached", "-p", str(port))
    with NSD(own_line.server, tmp_path, port=port):
        healthy(own_line.server, *ON, "--protocol", "dns", "-p", str(port))


def test_every_check_says_something(straight: Line) -> None:
    """Of this very machine: what it cannot know has a reason."""
    _, report = doctor(straight.server, *ON, "--protocol", "memcached", "-p", str(any_port()))
    ours = [check.name for check in CHECKS.values() if check.group != "carom"]
    assert list(dict.fromkeys(result.name for result in report.results)) == ours
    for result in report.results:
        assert (result.state == "fine") == (not result.what), result


# On the interface.


def test_a_veth_whose_peer_has_no_program(bare: Line) -> None:
    assert "--mode generic" in only(bare, "veth-peer", severity="slow").remedy
    only(bare, "veth-peer", "--mode", "native")
    healthy(bare.server, *ON, "--mode", "generic")


def test_xdp_is_taken(straight: Line) -> None:
    """By this process; one that stands beside it does not mind."""
    program = straight.server.call(lambda: attached_generic(INTERFACE))
    try:
        result = only(straight, "xdp-taken")
        assert "xdp_pass" in result.what and f"(pid {os.getpid()})" in result.what
        assert "--hook tc" in result.remedy
        healthy(straight.server, *ON, "--hook", "tc")
    finally:
        libbpf.close_link(program)


def attached_generic(interface: str) -> int:
    program = libbpf.load_xdp_pass()
    try:
        return libbpf.link_xdp(program, socket.if_nametoindex(interface), libbpf.XDP_FLAGS_SKB_MODE)
    finally:
        os.close(program)


PIN = """
import os, sys
from carom.kernel import libbpf
path, *command = sys.argv[1:]
program = libbpf.load_xdp_pass()
link = libbpf.link_xdp(program, __import__("socket").if_nametoindex("carom0"), 2)
assert not libbpf.library().bpf_obj_pin(link, path.encode())
os.close(link)
os.execvp(command[0], command)
"""


def test_xdp_is_taken_by_nobody_that_runs(straight: Line) -> None:
    """A link that a file keeps: bpffs is mounted for the doctor alone."""
    script = f"mount -t bpf bpf /sys/fs/bpf && exec {sys.executable} -P -c '{PIN}' /sys/fs/bpf/it"
    command = (sys.executable, "-P", "-m", "carom", "doctor", *ON, *OURS_ALONE, "--json")
    done = subprocess.run(
        straight.server.argv(["sh", "-c", f'{script} "$@"', "sh", *command]),
        capture_output=True,
        text=True,
        check=False,
    )
    (result,) = found(msgspec.json.decode(done.stdout, type=Report))
    assert result.name == "xdp-taken"
    assert "of the file /sys/fs/bpf/it" in result.what


TC = (*ON, *OURS_ALONE, "--hook", "tc")


@pytest.mark.parametrize("feature", ["rx-gro-list", "rx-udp-gro-forwarding"])
def test_merged_datagrams_and_their_cure(own_line: Line, feature: str) -> None:
    """--fix turns it off; again, it has nothing to do; and it can be taken back."""
    server = own_line.server
    server.run("ethtool", "-K", INTERFACE, "gro", "on", feature, "on")
    assert only(own_line, "merged", "--hook", "tc").change is not None
    healthy(server, *ON)  # at XDP nothing is merged
    code, report = doctor(server, *TC, "--fix")
    (result,) = found(report)
    assert (code, report.wrong) == (0, 0)
    assert result.change and result.change.made
    assert result.change.command == f"ethtool -K {INTERFACE} {feature} off"
    assert not server.call(lambda: ethtool.features(INTERFACE))[feature].on
    code, report = doctor(server, *TC, "--fix")
    assert (code, found(report)) == (0, [])
    server.run(*result.change.undo.split())
    only(own_line, "merged", "--hook", "tc")
    ended = run(server, "doctor", *TC, "--fix")
    assert f"mended by `{result.change.command}`" in ended.stdout
    assert ended.stdout.splitlines()[-1].startswith("nothing wrong")


@pytest.mark.parametrize("hook", ["tc", "xdp"])
def test_what_is_merged_is_not_answered(own_line: Line, hook: str) -> None:
    """The trap is one: until it is mended TC sees what it has to pass on."""
    own_line.server.run("ethtool", "-K", INTERFACE, "gro", "on", "rx-gro-list", "on")
    more = ("--fast", "bounce", "--echoes", "0")
    with Carom(own_line.server, "--hook", hook, "--mode", "generic", *more) as carom:
        before = carom.counters()
        at_once(own_line, 64)
        until(lambda: carom.since(before), "the datagrams")
        assert ("pass_length" in carom.since(before)) == (hook == "tc")
        doctor(own_line.server, *OURS_ALONE, "--fix")
        before = carom.counters()
        at_once(own_line, 64)
        carom.expect(before, bounce=64)


def at_once(line: Line, count: int) -> None:
    """The client sends so many equal requests in one go, as a card takes them in."""

    def send() -> None:
        program = libbpf.load_xdp_redirect(socket.if_nametoindex(INTERFACE))
        try:
            libbpf.send_frames(program, frame, count, count)
        finally:
            os.close(program)

    ends = (line.client_address, 40_000), (line.address, PORT)
    asks, own = ((ipaddress.ip_address(address), port) for address, port in ends)
    macs = line.client.mac(INTERFACE), line.server.mac(INTERFACE)
    frame = request_frame(bytes(40), asks, own, macs, [])
    line.client.call(send)


def test_merged_is_said_at_the_start_too(own_line: Line) -> None:
    own_line.server.run("ethtool", "-K", INTERFACE, "gro", "on", "rx-gro-list", "on")
    with Carom(own_line.server, "--hook", "tc") as carom:
        (note,) = carom.ready["notes"]
        assert note in carom.stderr()
    assert "rx-gro-list" in note and "ethtool -K" in note


def test_nothing_is_merged_without_gro(own_line: Line) -> None:
    own_line.server.run("ethtool", "-K", INTERFACE, "gro", "off", "rx-gro-list", "on")
    healthy(own_line.server, *ON, "--hook", "tc")


def test_a_large_mtu() -> None:
    """With GRO at the other end, which takes frames in then."""
    with lines.bare() as line:
        line.client.run("ethtool", "-K", INTERFACE, "gro", "on")
        for end in (line.client, line.server):
            end.run("ip", "link", "set", INTERFACE, "mtu", "9000")
        result = only(line, "mtu-large", "--mode", "native")
        assert "9000" in result.what
        ended = run(line.server, "serve", *ON, "--mode", "native")
        assert ended.code == 1, "it is right that it would not start"


def test_a_small_mtu(own_line: Line) -> None:
    own_line.server.run("ip", "link", "set", INTERFACE, "mtu", "1000")
    assert "972" in only(own_line, "mtu-small", severity="slow").what
    with Carom(own_line.server, "--hook", "tc") as carom:
        assert any("an MTU of 1000" in note for note in carom.ready["notes"])


def test_down(own_line: Line) -> None:
    own_line.server.run("ip", "link", "set", INTERFACE, "down")
    assert only(own_line, "down").remedy == f"ip link set {INTERFACE} up"


def test_without_a_carrier(own_line: Line) -> None:
    own_line.client.run("ip", "link", "set", INTERFACE, "down")
    only(own_line, "no-carrier")


def test_without_an_address(own_line: Line) -> None:
    server = own_line.server
    server.run("ip", "address", "del", f"{own_line.address}/29", "dev", INTERFACE)
    service = ("--protocol", "raw", "-p", str(any_port()))
    assert "--bind ::" in only(own_line, "no-address", *service).remedy
    healthy(server, *ON, *service, "--bind", "::")
    server.run("ip", "address", "flush", "dev", INTERFACE)
    only(own_line, "no-address")


def test_a_port_of_a_bridge(own_line: Line) -> None:
    """Its bridge is no port, but has no native XDP."""
    server = own_line.server
    for words in (
        "link add br0 type bridge",
        f"link set {INTERFACE} master br0",
        "link set br0 up",
        f"address flush dev {INTERFACE}",
        f"address add {own_line.address}/29 dev br0",
    ):
        server.run("ip", *words.split())
    assert only(own_line, "port").remedy == "-i br0"
    bridge = ("-i", "br0", *OURS_ALONE)

    def connected() -> bool:  # it listens for a while first
        return "no-carrier" not in names(doctor(server, *bridge)[1])

    until(connected, "the bridge to have a carrier")
    for mode, severity in (("auto", "slow"), ("native", "useless")):
        (result,) = found(doctor(server, *bridge, "--mode", mode)[1])
        assert (result.name, result.severity) == ("native", severity)
    healthy(server, "-i", "br0", "--mode", "generic")
    healthy(server, "-i", "br0", "--hook", "tc")


def test_a_source_that_is_not_routed_back(own_line: Line) -> None:
    strict = Path(f"/proc/sys/net/ipv4/conf/{INTERFACE}/rp_filter")
    own_line.server.call(lambda: strict.write_text("1"))
    assert "--allow" in only(own_line, "rp-filter", severity="note").remedy


def test_a_program_at_tc(own_line: Line) -> None:
    program = libbpf.load_constant(libbpf.PROG_TYPE_SCHED_CLS, b"stranger", -1)
    link = own_line.server.call(
        lambda: libbpf.link_tcx_ingress(program, socket.if_nametoindex(INTERFACE))
    )
    try:
        assert "stranger" in only(own_line, "tc-programs", severity="note").what
    finally:
        os.close(link)
        os.close(program)


def test_a_large_prefix_by_a_local_route(own_line: Line) -> None:
    own_line.server.run("ip", "route", "add", "local", "198.19.0.0/16", "dev", "lo")
    assert "198.19.0.0/16" in only(own_line, "local-routes", severity="note").what


@pytest.mark.parametrize(("mode", "severity"), [("native", "slow"), ("generic", "note")])
def test_room_is_tried(straight: Line, mode: str, severity: str) -> None:
    """Only if that is said; nothing of it stays."""
    asked = (*ON, *OURS_ALONE, "--mode", mode)
    assert "room" in {
        result.name
        for result in doctor(straight.server, *asked)[1].results
        if result.state == "not known"
    }
    result = only(straight, "room", "--mode", mode, "--try", severity=severity)
    assert mode in result.what
    healthy(straight.server, *asked)


def test_room_cannot_be_tried_where_nothing_comes_in(own_line: Line) -> None:
    own_line.server.run("ip", "neighbour", "flush", "dev", INTERFACE, "nud", "permanent")
    # Of its own accord IPv6 sends for some seconds after a link is there.
    own_line.client.run("sysctl", "-qw", f"net.ipv6.conf.{INTERFACE}.disable_ipv6=1")
    _, report = doctor(own_line.server, *ON, *OURS_ALONE, "--try")
    (result,) = (one for one in report.results if one.name == "room")
    assert result.state == "not known" and "no frame came in" in result.what


# The service.


def fronting(port: int, *more: str) -> tuple[str, ...]:
    return ("--protocol", "memcached", "-p", str(port), *more)


@pytest.fixture
def puppet(own_line: Line) -> Iterator[Callable[..., Puppet]]:
    """Servers of the pair's that do what they are told."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Puppet(own_line.server, **options))


def test_no_server(straight: Line) -> None:
    port = any_port()
    assert f"-U {port}" in only(straight, "no-server", *fronting(port)).remedy


def test_over_tcp_alone(own_line: Line) -> None:
    """A real memcached as it is without -U."""
    port = any_port()
    with Memcached(own_line.server, port, options=("-U", "0")):
        assert f"-U {port}" in only(own_line, "no-udp", *fronting(port)).remedy


def test_on_loopback_alone(own_line: Line) -> None:
    port = any_port()
    with Memcached(own_line.server, port, addresses="127.0.0.1"):
        result = only(own_line, "not-received", *fronting(port))
    assert f"127.0.0.1:{port}" in result.what
    assert own_line.address in result.remedy


def test_several_users(own_line: Line, puppet: Callable[..., Puppet]) -> None:
    port = any_port()
    own_line.server.address(INTERFACE, SECOND, 29)
    puppet().udp(own_line.address, port)
    puppet(prefix=NOBODY).udp(SECOND, port)
    assert "--bind" in only(own_line, "several-servers", *fronting(port)).remedy
    healthy(own_line.server, *ON, *fronting(port, "--bind", SECOND))


def test_a_unix_socket_beside(own_line: Line, puppet: Callable[..., Puppet]) -> None:
    port, server = any_port(), puppet()
    server.udp("0.0.0.0", port)
    server.call("unix", f"of-a-server-{port}")
    assert "--writes-elsewhere ttl" in only(own_line, "unix-socket", *fronting(port)).remedy


def test_processes_that_are_not_seen(own_line: Line) -> None:
    """From a PID namespace of the doctor's own."""
    port = any_port()
    apart = ("unshare", "--pid", "--fork", "--mount-proc")
    with Memcached(own_line.server, port):
        code, report = doctor(own_line.server, *ON, *OURS_ALONE, *fronting(port), prefix=apart)
    assert (code, names(report)) == (1, ["unseen-processes"])


def test_more_addresses_than_carom_takes(own_line: Line, puppet: Callable[..., Puppet]) -> None:
    """Any other reason for which it does not start."""
    port, server = any_port(), puppet()
    server.udp(own_line.address, port)
    for number in range(1, VIEWS_MAX + 1):
        server.udp(f"127.0.{number // 200}.{1 + number % 200}", port)
    assert "too many addresses" in only(own_line, "refused", *fronting(port)).what


def test_a_program_of_its_control_group(own_line: Line, confined: int) -> None:
    """The server is in a group that has one, as systemd's IPAddressDeny= makes."""
    (path,) = re.findall(r"^0::/(.+)$", Path(f"/proc/{confined}/cgroup").read_text(), re.MULTILINE)
    port = any_port()
    with Memcached(own_line.server, port) as memcached:
        root = open_root()
        try:
            procs = os.open(f"{path}/cgroup.procs", os.O_WRONLY, dir_fd=root)
            os.write(procs, b"%d" % memcached.process.pid)
            os.close(procs)
        finally:
            os.close(root)
        result = only(own_line, "cgroup-programs", *fronting(port), severity="note")
    assert "sd_fw_ingress" in result.what


def test_a_name_server_that_refuses_some(own_line: Line, tmp_path: Path) -> None:
    with Server(own_line, tmp_path, "unbound", "access-control: 0.0.0.0/0 allow"):
        asked = ("--protocol", "dns", "--bind", own_line.address)
        assert "::/0" in only(own_line, "access-lists", *asked, severity="note").what


def test_a_foreign_address(own_line: Line) -> None:
    port = any_port()
    with Memcached(own_line.server, port):
        only(own_line, "address", *fronting(port, "--bind", "198.18.9.9"))


def test_a_port_that_is_held(own_line: Line) -> None:
    port = any_port()
    with Memcached(own_line.server, port) as memcached:
        result = only(own_line, "port-held", "--protocol", "raw", "-p", str(port))
    assert f"pid {memcached.process.pid}, memcached" in result.what


def test_requests_that_a_server_drops(own_line: Line, puppet: Callable[..., Puppet]) -> None:
    """Its socket's buffer is full."""
    port = any_port()
    puppet().udp("0.0.0.0", port)
    with own_line.client.call(lambda: socket.socket(type=socket.SOCK_DGRAM)) as client:
        for _ in range(2_000):
            client.sendto(bytes(1_000), (own_line.address, port))
    assert "have dropped" in only(own_line, "dropped", *fronting(port), severity="slow").what


def test_a_name_server_with_cookies(own_line: Line, tmp_path: Path) -> None:
    with CookieServer(own_line.server, tmp_path, "nsd"):
        result = only(own_line, "cookies", "--protocol", "dns", severity="slow")
        assert "--cookie-secret-file" in result.remedy


DROPPING = "table inet t { chain i { type filter hook input priority 0; policy %s;\n%s\n}\n}\n"
REDIRECTING = "table ip t { chain i { type nat hook prerouting priority dstnat;\n%s\n}\n}\n"


def ruled(line: Line, rules: str) -> None:
    needs("nft")
    subprocess.run(line.server.argv(["nft", "-f", "-"]), input=rules, text=True, check=True)


def test_a_firewall_that_drops_by_default(own_line: Line) -> None:
    port = any_port()
    with Memcached(own_line.server, port):
        ruled(own_line, DROPPING % ("drop", ""))
        only(own_line, "firewall", *fronting(port))


def test_a_rule_that_drops_some(own_line: Line) -> None:
    port = any_port()
    ruled(own_line, DROPPING % ("accept", f"ip saddr 198.18.0.5 udp dport {port} drop"))
    with Memcached(own_line.server, port):
        result = only(own_line, "firewall-rules", *fronting(port), severity="note")
    assert "handle" in result.what


def test_a_rule_that_redirects(own_line: Line) -> None:
    """What comes to a Python service goes to another port, as all of UDP does."""
    port = any_port()
    ruled(own_line, REDIRECTING % f"meta l4proto udp redirect to :{port + 1}")
    result = only(own_line, "redirected", "--protocol", "raw", "-p", str(port))
    assert str(port + 1) in result.what


def test_a_firewall_that_cannot_be_read(own_line: Line, tmp_path: Path) -> None:
    """nft fails: that is said, and is no finding."""
    port = any_port()
    (tmp_path / "nft").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "nft").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    code, report = doctor(
        own_line.server, *ON, *OURS_ALONE, "--protocol", "raw", "-p", str(port), PATH=path
    )
    unknown = {one.name: one.what for one in report.results if one.state == "not known"}
    assert (code, found(report)) == (0, [])
    assert "nft" in unknown["firewall-rules"]
    assert "firewall" in unknown


# A carom that runs.


def test_a_healthy_carom(own_line: Line) -> None:
    """It is found by itself, with its interface and service; its own program is no stranger's."""
    port = any_port()
    with (
        Memcached(own_line.server, port),
        Carom(own_line.server, "-p", str(port), "--mode", "generic", command="front") as carom,
    ):
        code, report = doctor(own_line.server, *OURS_ALONE)
        assert (report.pid, report.interfaces) == (carom.pid, [INTERFACE])
        assert (code, found(report)) == (0, [])
        assert "carom" in {result.group for result in report.results}
        healthy(own_line.client, "--pid", str(carom.pid))  # in its namespace, not in this one
        _, report = doctor(own_line.client, "-i", INTERFACE, *OURS_ALONE)
        assert report.pid is None, "it is in another network namespace"


@pytest.mark.parametrize("hook", ["xdp", "tc"])
def test_a_filter_of_its_own(own_line: Line, hook: str) -> None:
    """It is no stranger's, neither to its carom nor to the doctor."""
    how = ("--hook", hook, "--filter", "simple", "--filter-at", hook)
    with Carom(own_line.server, "--app", "kv", "-p", str(any_port()), *how) as carom:
        assert not [one for one in carom.ready["notes"] if "does not see" in one]
        _, report = doctor(own_line.server, *OURS_ALONE)
        assert "tc-programs" not in names(report)


def test_two_caroms(own_line: Line) -> None:
    """One at XDP and one at TC: each is looked at by its pid, and is no trap for the other."""
    at_tc = (*ON, "--hook", "tc", "-p", str(PORT + 1))
    with (
        Carom(own_line.server, "--mode", "generic", "-p", str(PORT)) as first,
        Carom(own_line.server, *at_tc, interface=None) as second,  # the first stays on it
    ):
        told = ended(own_line, *OURS_ALONE)
        assert told.code == 1 and "2 caroms are running" in told.stderr
        assert f"--pid: {min(first.pid, second.pid)}, " in told.stderr
        for carom, port in ((first, PORT), (second, PORT + 1)):
            code, report = doctor(own_line.server, "--pid", str(carom.pid), *OURS_ALONE)
            assert (code, found(report), report.pid) == (0, [], carom.pid)
            assert f"port {port}" in {result.at for result in report.results}
            told = ended(own_line, "--pid", str(carom.pid), "-p", "9")
            assert told.code == 2 and f"services run on {port}" in told.stderr


def test_a_carom_that_is_stopped(own_line: Line) -> None:
    with Carom(own_line.server, "--mode", "generic") as carom:
        carom.signal(signal.SIGSTOP)
        try:
            result = only(own_line, "silent-daemon")
        finally:
            carom.signal(signal.SIGCONT)
        assert str(carom.pid) in result.what and "kill -CONT" in result.remedy


def test_a_service_that_is_not_answered(own_line: Line) -> None:
    """It has lost its address, which the interface does not lack otherwise."""
    with Carom(own_line.server, "--bind", own_line.address, "--mode", "generic") as carom:
        own_line.server.address(INTERFACE, SECOND, 29)
        own_line.server.run("ip", "address", "del", f"{own_line.address}/29", "dev", INTERFACE)
        own_line.server.address(INTERFACE, SECOND, 29)

        def unanswered() -> bool:
            return not carom.status()["services"][0]["reach"][0]["answered"]

        until(unanswered, "the address to be missed")
        assert "unanswered" in names(doctor(own_line.server, *OURS_ALONE)[1])


def test_an_interface_that_is_gone(own_line: Line) -> None:
    """The carom says so: there is nothing else to look at."""
    server = own_line.server
    for words in (
        "link add gone0 type veth peer name gone1",
        "address add 198.19.7.1/24 dev gone0",
        "link set gone0 up",
        "link set gone1 up",
    ):
        server.run("ip", *words.split())
    with Carom(server, "-i", "gone0", "--mode", "generic", interface=None) as carom:
        server.run("ip", "link", "del", "gone0")

        def gone() -> bool:
            return "gone0 is gone" in carom.status()["services"][0]["reach"][0]["why"]

        until(gone, "it to be missed")
        code, report = doctor(server, *OURS_ALONE)
        assert (code, names(report), report.interfaces) == (1, ["unanswered"], [])


def test_a_service_without_hits(own_line: Line) -> None:
    """Its clients ask by the host itself."""
    with (
        Carom(own_line.server, "--mode", "generic") as carom,
        Client(own_line.server, own_line.address) as local,
    ):
        silence_of(carom, lambda: local.ask(b"local"))
        assert "from this host itself" in only(own_line, "no-hits").what


def test_room_is_counted(own_line: Line) -> None:
    """TC answers what XDP has no room for."""
    with (
        Carom(own_line.server, "--mode", "native", "--app", "services:sized", "--amplify", "0"),
        Client(own_line.client, own_line.address) as client,
    ):
        for _ in range(20):
            client.ask(sized_request(1_100, 20))
        assert "TC answers" in only(own_line, "room", severity="slow").what


# Who asks, and how.


def ended(line: Line, *arguments: str, **options: Any) -> Ended:
    return run(line.server, "doctor", *arguments, **options)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("-i", "nope0"), 1, "there is no interface 'nope0'"),
        (("-i", "lo"), 1, "lo is not an Ethernet interface"),
        ((*ON, "--skip", "nothing"), 2, "there is no check 'nothing'"),
        ((*ON, "--hook", "none"), 2, "--hook none"),
        ((*ON, "--mode", "fast"), 2, "--mode fast"),
        ((*ON, "--protocol", "smtp"), 2, "protocol 'smtp' is unknown"),
        ((*ON, "--protocol", "raw"), 2, "no port is named"),
        ((*ON, "--protocol", "raw", "-p", "70000"), 2, "port 70000"),
        ((*ON, "--protocol", "memcached", "--bind", "here"), 2, "'here' is not an IP address"),
        ((*ON, "-p", "9"), 2, "nothing is known of port 9"),
        ((*ON, "--bind", "198.18.0.2"), 2, "--protocol says"),
        (("--pid", "1"), 1, "carom 1 does not answer"),
    ],
)
def test_what_cannot_be_asked(
    straight: Line, arguments: tuple[str, ...], code: int, said: str
) -> None:
    told = ended(straight, *arguments)
    assert (told.code, told.stdout) == (code, ""), told
    assert said in told.stderr and "hint: " in told.stderr and "Traceback" not in told.stderr


def test_the_host_alone(straight: Line) -> None:
    told = ended(straight, "--skip", "machine", "--skip", "kernel")
    assert told.code == 0 and "-i names an interface" in told.stderr
    _, report = doctor(straight.server)
    assert {result.group for result in report.results} == {"kernel", "machine"}


def test_who_is_not_root(own_line: Line) -> None:
    """Finds what anybody may look at, and says what it cannot know."""
    port = any_port()
    own_line.server.run("ethtool", "-K", INTERFACE, "gro", "on", "rx-gro-list", "on")
    service = ("--protocol", "memcached", "-p", str(port), "--hook", "tc")
    arguments = (*ON, "--skip", "machine", *service, "--fix")
    with Memcached(own_line.server, port):
        code, report = doctor(own_line.server, *arguments, prefix=NOBODY)
    assert code == 1
    (result,) = (one for one in found(report) if one.group != "kernel")
    assert result.name == "merged" and result.change
    assert not result.change.made and "not permitted" in result.change.why
    assert own_line.server.call(lambda: ethtool.features(INTERFACE))["rx-gro-list"].on
    unknown = {one.name: one.what for one in report.results if one.state == "not known"}
    for name in ("bpf", "no-server", "firewall", "control-groups"):
        assert name in unknown, report
    assert "as root" in unknown["bpf"]
    asked = ("--protocol", "raw", "-p", str(port))
    _, report = doctor(own_line.server, *ON, *OURS_ALONE, *asked, prefix=NOBODY)
    unknown = {one.name: one.what for one in report.results if one.state == "not known"}
    assert {"veth-peer", "firewall", "firewall-rules", "cgroup-programs"} <= unknown.keys()


def test_where_the_kernel_takes_no_programs(straight: Line) -> None:
    """Of root of a user namespace: it has all capabilities, and may load nothing."""
    code, report = doctor(straight.server, "--skip", "machine", prefix=ROOT_OF_NOTHING)
    assert code == 1 and "bpf" in names(report)


def test_too_few_files(straight: Line) -> None:
    limited = ("prlimit", "--nofile=100:100")
    code, report = doctor(straight.server, *ON, "--skip", "machine", prefix=limited)
    assert code == 1 and "files" in names(report)


HOLDS = """
import socket, sys
udp = socket.socket(type=socket.SOCK_DGRAM)
udp.bind(("0.0.0.0", int(sys.argv[1])))
print("ready", flush=True)
input()
"""


def test_names_that_command_a_terminal(own_line: Line, tmp_path: Path) -> None:
    """A program of that name holds the port."""
    port, program = any_port(), tmp_path / "\x1b[31mred"
    program.symlink_to(os.path.realpath(sys.executable))
    command = own_line.server.argv([str(program), "-I", "-c", HOLDS, str(port)])
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True) as process:
        assert process.stdout and process.stdout.readline()
        told = ended(own_line, *ON, *OURS_ALONE, "--protocol", "raw", "-p", str(port))
        process.kill()
    assert "red" in told.stdout
    assert all(letter.isprintable() or letter == "\n" for letter in told.stdout)
