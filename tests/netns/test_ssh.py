# SPDX-License-Identifier: Apache-2.0
"""Experiments on two hosts that ssh reaches: the same as on namespaces, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from carom.errors import HostError, HostKeyError, LoginError, UnreachableError
from carom.lab import results
from carom.lab.hosts.agent import Agent
from carom.vm import deploy, pairs
from carom.vm.namespace import pids
from carom.vm.netns import INTERFACE, SERVER
from carom.vm.ssh import SSHHost
from netns.process import CAROM, DEADLINE, Ended, attached, end_of, environment, start, until
from netns.sshd import ADDRESSES, CONTROL, Far, far

PATIENCE = 240.0  # seconds for a whole run of the lab; nothing is measured by it
SHORT = ("--short", "--repetitions", "1", "--seconds", "0.1")


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    """For all tests but those that deploy."""
    with far(tmp_path_factory.mktemp("ssh")) as made:
        yield made


def host(far: Far, role: str = "server", **changes: Any) -> SSHHost:
    """One of them as a pair's file would have it."""
    machine = getattr(pairs.read(far.file(**{role: changes})), role)
    return SSHHost(role, machine)


def inside(far: Far, function: Callable[[], Any]) -> Any:
    """Call it where the lab is."""
    return far.lab.call(function)


def lab(far: Far, on: str, output: Path, *arguments: str) -> tuple[Ended, Path | None]:
    """`carom lab run ARGUMENT...`, and the folder that it wrote, if it did."""
    options = ("--on", on, "--output", str(output), "--json")
    ended = end_of(start(far.lab, "lab", "run", *arguments, *options), PATIENCE)
    return ended, Path(json.loads(ended.stdout)["folder"]) if ended.stdout else None


def names(folder: Path) -> set[str]:
    """All files of a run."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_the_same_files_and_series_as_on_namespaces(hosts: Far, tmp_path: Path) -> None:
    short = (*SHORT, "--mode", "generic", "--waits")
    ended, there = lab(hosts, str(hosts.file()), tmp_path, "bounce", *short, "spin,one-cpu")
    assert ended.code == 0, ended
    assert "waits=one-cpu" in ended.stderr
    done = subprocess.run(
        [*CAROM, "lab", "run", "bounce", *short, "spin", "--output", str(tmp_path), "--json"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
        env=environment(),
    )
    here = Path(json.loads(done.stdout)["folder"])
    assert there
    assert names(here) == names(there)
    near, far = results.load(here), results.load(there)
    assert {one.cell for one in far.measurements} == {one.cell for one in near.measurements}
    assert all(one.round_trips.count and not one.round_trips.lost for one in far.measurements)
    assert far.complete
    assert (far.environment.pair, far.environment.driver) == ("ssh", "veth")
    # GRO is on where no program waits at the client's end.
    assert far.environment.offloads == {**near.environment.offloads, "gro": True}
    assert far.environment.kernel == os.uname().release
    # What differs between the ends is GRO alone: of one machine twice the same is not written.
    client = far.client_environment
    assert client and client.offloads == {**far.environment.offloads, "gro": False}
    assert client.cpu == far.environment.cpu
    hosts.check_nothing_left()
    assert attached(hosts.server) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "own", "series"),
    [
        ("cache", ("--hit-rates", "0.5", "--mode", "generic"), 3),
        ("clients", ("--clients", "3", "--series", "userspace,xdp_generic"), 2),
        ("knee", ("--rates", "1000", "--series", "userspace,xdp_generic"), 2),
    ],
)
def test_hit_rates_several_clients_and_a_rate(
    hosts: Far, tmp_path: Path, name: str, own: tuple[str, ...], series: int
) -> None:
    short = (*SHORT, "--waits", "blocking", "--keys", "20")
    ended, folder = lab(hosts, str(hosts.file()), tmp_path, name, *short, *own)
    assert ended.code == 0, ended
    assert folder
    found = results.load(folder)
    assert found.complete
    assert len({one.cell.series for one in found.measurements}) == series
    for one in found.measurements:
        assert one.due == one.round_trips.count > 0
        half_made = one.verdicts.get("pass_checksum", 0)  # one sum in 65,536 looks so
        assert 0 <= (one.planned_hits or 0) - (one.counted_hits or 0) <= half_made
    hosts.check_nothing_left()


@pytest.mark.slow
def test_filters_count_the_servers_cpu_time_there(hosts: Far, tmp_path: Path) -> None:
    """The one experiment whose client looked at the server's process by itself."""
    ended, folder = lab(
        hosts, str(hosts.file()), tmp_path,
        "filter-throughput", "--packets", "500", "--percents", "50", "--repetitions", "1",
    )  # fmt: skip
    assert ended.code == 0, ended
    assert folder
    runs = json.loads((folder / "results.json").read_text())["measurements"]
    assert {one["cell"]["series"] for one in runs} >= {"userspace", "socket", "tc"}
    for one in runs:
        assert 0 < one["server_cpu_seconds"] < one["machine_cpu_seconds"] + 0.05
    hosts.check_nothing_left()


@pytest.mark.parametrize(
    ("role", "changes", "kind", "words"),
    [
        pytest.param(
            "server", {"known_hosts": "nobody"}, HostKeyError, "not known here", id="unknown-key"
        ),
        pytest.param(
            "server", {"known_hosts": "changed"}, HostKeyError, "another host key", id="other-key"
        ),
        pytest.param(
            "server",
            {"known_hosts": "changed", "host_keys": "accept-new"},
            HostKeyError,
            "another host key",
            id="other-key-not-new",
        ),
        pytest.param(
            "client", {"identity": "client_key"}, LoginError, "does not let us in", id="wrong-key"
        ),
        pytest.param("client", {"port": 9}, UnreachableError, "Connection refused", id="port"),
        pytest.param("client", {"host": "no.host.invalid"}, UnreachableError, "no.host", id="name"),
        pytest.param(
            "server", {"interface": "eth9"}, HostError, "there is no interface 'eth9'", id="eth9"
        ),
        pytest.param(
            "server", {"interface": "lo"}, HostError, "lo of the server .* has not", id="lo"
        ),
        pytest.param(
            "server", {"python": "/no/python"}, HostError, "/no/python of the server", id="python"
        ),
        pytest.param(
            "client",
            {"interface": CONTROL, "address": ADDRESSES["client"]},
            HostError,
            f"no reply from {SERVER} through {CONTROL}",
            id="not-facing",
        ),
    ],
)
def test_refused(
    hosts: Far, role: str, changes: dict[str, Any], kind: type[HostError], words: str
) -> None:
    other = (hosts.folder / "user_key.pub").read_text()
    (hosts.folder / "changed").write_text(f"{ADDRESSES['server']} {other}")
    make = pairs.make(str(hosts.file(**{role: changes})))
    with pytest.raises(kind, match=words) as caught:
        inside(hosts, make)
    assert type(caught.value) is kind
    assert caught.value.hint
    hosts.check_nothing_left()


def test_a_refusal_is_one_message(hosts: Far, tmp_path: Path) -> None:
    on = str(hosts.file(server={"known_hosts": "nobody"}))
    ended, folder = lab(hosts, on, tmp_path, "bounce", *SHORT)
    assert ended.code == 1
    assert folder is None
    assert "carom: the server (198.18.20.2) has a host key that is not known here" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (hosts.folder / "nobody").exists()


def test_a_new_key_is_kept_where_the_file_says_so(hosts: Far) -> None:
    new = hosts.folder / "new_hosts"
    inside(hosts, host(hosts, known_hosts=new.name, host_keys="accept-new").check)
    assert (hosts.folder / "server_key.pub").read_text().strip() in new.read_text()
    inside(hosts, host(hosts, known_hosts=new.name).check)


def test_through_another_host(hosts: Far) -> None:
    """The server's address on the pair, which the lab has no way to, by way of the client."""
    key = (hosts.folder / "server_key.pub").read_text()
    known = (hosts.folder / "known_hosts").read_text()
    (hosts.folder / "jump_hosts").write_text(f"{known}{SERVER} {key}")
    config = hosts.folder / "ssh_config"
    config.write_text(
        f"UserKnownHostsFile {hosts.folder}/jump_hosts\nIdentityFile {hosts.folder}/user_key\n"
    )
    changes = {"host": SERVER, "config": config.name, "known_hosts": None}
    inside(hosts, host(hosts, **changes, jump=f"root@{ADDRESSES['client']}").check)
    with pytest.raises(UnreachableError):
        inside(hosts, host(hosts, **changes, port=9).check)


def commands(namespace: Any) -> dict[int, str]:
    """What runs in a namespace."""
    found = {}
    for pid in pids(namespace.name):
        try:
            found[pid] = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    return found


def far_agents(far: Far, role: str) -> list[int]:
    """The connections' sshds of a host."""
    there = commands(getattr(far, role))
    return [pid for pid, command in there.items() if command.startswith("sshd") and
            pid not in far.idle[role]]  # fmt: skip


def near_clients(far: Far, role: str) -> list[int]:
    """The lab's ssh to a host."""
    there = commands(far.lab)
    return [
        pid for pid, said in there.items() if said.startswith("ssh ") and ADDRESSES[role] in said
    ]


def serving(far: Far) -> set[int]:
    """The caroms on the server: there is one for each measurement."""
    return {pid for pid, said in commands(far.server).items() if "carom serve" in said}


def measured(far: Far) -> None:
    """Wait until one measurement was done, and another one goes on."""
    until(lambda: serving(far), "the first measurement")
    first = serving(far)
    until(lambda: serving(far) - first, "another one")


@pytest.mark.parametrize(
    ("role", "victims"),
    [("server", far_agents), ("client", near_clients)],
    ids=["sshd of the server", "ssh to the client"],
)
def test_a_connection_breaks(
    hosts: Far, tmp_path: Path, role: str, victims: Callable[[Far, str], list[int]]
) -> None:
    """Killed in the middle: the host is named, what was done is kept, and nothing stays."""
    endless = ("bounce", "--seconds", "0.2", "--repetitions", "500", "--waits", "blocking")
    options = ("--on", str(hosts.file()), "--output", str(tmp_path), "--json")
    process = start(hosts.lab, "lab", "run", *endless, *options)
    try:
        measured(hosts)
        found = victims(hosts, role)
        assert found
        for pid in found:
            os.kill(pid, signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    assert process.returncode == 1, stderr
    said = f"the connection to the {role} ({ADDRESSES[role]}) broke"
    assert said in stderr
    assert "Traceback" not in stderr
    run = results.load(Path(json.loads(stdout)["folder"]))
    assert run.measurements
    assert not run.complete
    assert run.stopped and run.stopped.startswith(said)
    hosts.check_nothing_left()
    assert attached(hosts.server) is None


def test_the_way_is_cut(hosts: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told that it ended; either side finds out by itself."""
    monkeypatch.setattr(SSHHost, "silence", 2.0)
    monkeypatch.setattr(
        "carom.vm.ssh._OPTIONS", ("BatchMode=yes", "ServerAliveInterval=1", "ServerAliveCountMax=3")
    )

    def names_there() -> list[str]:
        there = commands(hosts.server)
        return [there[pid] for pid in hosts.strangers("server") & there.keys()]

    def cut() -> None:
        with Agent(host(hosts)) as agent:
            agent.call("serve", arguments=["-i", INTERFACE, "-p", "5000", "--fast", "bounce"])
            time.sleep(3)  # longer than the silence: what the lab says meanwhile counts
            assert agent.call("cpus")
            assert attached(hosts.server)
            hosts.lab.run("ip", "link", "set", "server", "down")
            with pytest.raises(UnreachableError, match=r"connection to the server .* broke"):
                agent.call("cpus")
            until(lambda: not attached(hosts.server), "what ran there to end")
            until(lambda: all(one.startswith("sshd") for one in names_there()), "the agent's end")

    try:
        inside(hosts, cut)
    finally:
        hosts.lab.up("server")
    hosts.check_nothing_left()


def test_the_lab_is_killed(hosts: Far, tmp_path: Path) -> None:
    endless = ("bounce", "--seconds", "60", "--repetitions", "9", "--waits", "blocking")
    options = ("--on", str(hosts.file()), "--output", str(tmp_path))
    process = start(hosts.lab, "lab", "run", *endless, *options, stderr=subprocess.DEVNULL)
    try:
        until(lambda: serving(hosts), "a measurement")
    finally:
        process.kill()
    process.communicate(timeout=DEADLINE)
    hosts.check_nothing_left()
    assert attached(hosts.server) is None


def test_arguments_input_and_status(hosts: Far) -> None:
    def ask() -> tuple[str, int]:
        script = 'printf "%s|" "$@"; cat; exit 5'
        with host(hosts).popen(["sh", "-c", script, "sh", "a b", "*", "'"]) as process:
            return process.communicate("in\n", timeout=DEADLINE)[0], process.returncode

    assert inside(hosts, ask) == ("a b|*|'|in\n", 5)


ENVIRONMENT = {
    # Requirements are those of this Python, because nothing can be fetched in a namespace.
    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path.endswith("site-packages")),
    "PIP_NO_INDEX": "1",
}


@pytest.mark.slow
def test_deploy(tmp_path: Path) -> None:
    """The wheel is built, sent and installed, and serves; the second time nothing is done."""
    with far(tmp_path, **ENVIRONMENT) as hosts:
        folder = tmp_path / "there"
        changes = {"python": None, "folder": str(folder)}
        lines: list[str] = []
        there = host(hosts, **changes)
        inside(hosts, lambda: there.deploy(lines.append))
        made = folder / deploy.label()
        assert there.python == str(made / "bin/python")
        assert any(line.startswith("server: making ") for line in lines), lines
        assert {path.name for path in folder.iterdir()} == {made.name, "lock"}
        (carom,) = made.glob("lib/python3*/site-packages/carom")
        assert (carom / "xdp/fastpath.c").exists()

        lines.clear()
        inside(hosts, lambda: host(hosts, **changes).deploy(lines.append))
        assert lines == []

        ended, results_folder = lab(
            hosts, str(hosts.file(client=changes, server=changes)), tmp_path / "results",
            "bounce", *SHORT, "--waits", "blocking",
        )  # fmt: skip
        assert ended.code == 0, ended
        assert results_folder
        hosts.check_nothing_left()


def test_deploy_that_was_cut_short_is_made_again(hosts: Far, tmp_path: Path) -> None:
    """Without the file that comes last, what is there does not count."""
    half = tmp_path / deploy.label()
    (half / "bin").mkdir(parents=True)
    there = host(hosts, python=None, folder=str(tmp_path))
    sent: list[str] = []

    def stop(line: str) -> None:
        sent.append(line)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inside(hosts, lambda: there.deploy(stop))
    assert sent == ["building the wheel"]
