# SPDX-License-Identifier: Apache-2.0
"""The doctor's checks of kernel and machine, by planted files; its rules; and what docs say."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
from pathlib import Path
from typing import Any

import pytest

from carom import cli_doctor
from carom.daemon.doctor import interfaces, services
from carom.daemon.doctor.check import Fix, Found, NotKnown
from carom.daemon.doctor.examine import CHECKS, GROUPS, Report, check_names, examine
from carom.daemon.doctor.interfaces import queue_words
from carom.daemon.doctor.look import Asked, Look, Running
from carom.daemon.front import Front
from carom.daemon.options import Options
from carom.errors import ControlError, UsageError
from carom.kernel.devices import Device
from carom.kernel.ethtool import Channels, Feature
from carom.kernel.links import Interface, Port, Upper

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = ipaddress.ip_address("198.18.0.2")

STAT = """
cpu  {user} 0 0 {idle} 0 0 0 {stolen} 0 0
cpu0 {user} 0 0 {idle} 0 0 0 {stolen} 0 0
cpu1 0 0 0 {idle} 0 0 0 0 0 0
intr 1 2 3
"""

HEALTHY = {
    "proc/sys/kernel/osrelease": "6.18.1-generic\n",
    "proc/sys/net/core/bpf_jit_enable": "1\n",
    "proc/sys/net/core/bpf_jit_harden": "1\n",
    "proc/sys/kernel/unprivileged_bpf_disabled": "2\n",
    "sys/kernel/security/lockdown": "[none] integrity confidentiality\n",
    "proc/self/cgroup": "0::/user.slice/some.scope\n",
    "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
    "sys/fs/cgroup/user.slice/memory.max": "max\n",
    "sys/fs/cgroup/user.slice/some.scope/memory.max": f"{2**30}\n",
    "proc/sys/net/netfilter/nf_conntrack_count": "10\n",
    "proc/sys/net/netfilter/nf_conntrack_max": "262144\n",
    "proc/stat": STAT.format(user=100, idle=100, stolen=0),
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "performance\n",
    "sys/devices/system/cpu/vulnerabilities/meltdown": "Not affected\n",
    "sys/devices/system/cpu/vulnerabilities/spectre_v2": "Mitigation: Enhanced IBRS; RSB filling\n",
}
"""A machine without any trap."""

LATER = STAT.format(user=110, idle=190, stolen=0)
GOVERNOR = "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor"


def planted(root: Path, **files: str) -> Path:
    for name, text in {**HEALTHY, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def examined(
    root: Path, later: str = LATER, *, mend: bool = False, skip: tuple[str, ...] = ("bpf",)
) -> Report:
    """What it says of a machine; `later` is its /proc/stat after a while."""

    def pause(_: float) -> None:
        (root / "proc/stat").write_text(later)

    return examine(Look(root=root, pause=pause), skip, mend=mend)


def test_a_healthy_machine(tmp_path: Path) -> None:
    """Nothing is found, and all is known."""
    report = examined(planted(tmp_path))
    assert {result.state for result in report.results} == {"fine"}, report
    assert report.wrong == 0
    assert {result.group for result in report.results} == {"kernel", "machine"}


@pytest.mark.parametrize(
    ("name", "severity", "files", "said"),
    [
        ("linux", "useless", {"proc/sys/kernel/osrelease": "5.15.0-91-generic"}, "5.15.0-91"),
        ("linux", "note", {"proc/sys/kernel/osrelease": "6.1.0-18-amd64"}, "6.1.0-18"),
        ("jit", "slow", {"proc/sys/net/core/bpf_jit_enable": "0"}, "interprets"),
        ("jit-hardening", "slow", {"proc/sys/net/core/bpf_jit_harden": "2"}, "hardens"),
        (
            "unprivileged-bpf",
            "note",
            {"proc/sys/kernel/unprivileged_bpf_disabled": "0"},
            "any user",
        ),
        (
            "lockdown",
            "note",
            {"sys/kernel/security/lockdown": "none integrity [confidentiality]"},
            "confidentiality",
        ),
        (
            "memory",
            "useless",
            {"sys/fs/cgroup/user.slice/some.scope/memory.max": str(50 * 2**20)},
            "/user.slice/some.scope may take 50 MiB",
        ),
        (
            "memory",
            "useless",
            {"sys/fs/cgroup/user.slice/memory.max": str(60 * 2**20)},
            "/user.slice may take 60 MiB",
        ),
        (
            "memory",
            "useless",
            {
                "proc/self/cgroup": "5:cpu:/\n4:memory:/old\n0::/\n",
                "sys/fs/cgroup/memory/old/memory.limit_in_bytes": str(2**20),
            },
            "/old may take 1 MiB",
        ),
        (
            "conntrack",
            "slow",
            {"proc/sys/net/netfilter/nf_conntrack_count": "240000"},
            "240,000 of 262,144",
        ),
        ("governor", "slow", {GOVERNOR: "powersave"}, "1 of 2 CPUs have the governor powersave"),
        (
            "mitigations",
            "slow",
            {"sys/devices/system/cpu/vulnerabilities/retbleed": "Mitigation: return thunk"},
            "retbleed",
        ),
        (
            "mitigations",
            "slow",
            {"sys/devices/system/cpu/vulnerabilities/spectre_v2": "Mitigation: Retpolines; STIBP"},
            "spectre_v2",
        ),
    ],
)
def test_a_planted_fault(
    tmp_path: Path, name: str, severity: str, files: dict[str, str], said: str
) -> None:
    """That one is found, and no other."""
    report = examined(planted(tmp_path, **files))
    (result,) = (one for one in report.results if one.state != "fine")
    assert (result.name, result.state, result.severity) == (name, "found", severity)
    assert said in result.what and result.remedy
    assert report.wrong == (severity != "note")


@pytest.mark.parametrize(
    ("later", "name", "said"),
    [
        (STAT.format(user=110, idle=170, stolen=20), "steal", "20% of the CPU time"),
        (STAT.format(user=195, idle=105, stolen=0), "busy", "1 CPUs were busy for 0.5 s (cpu0)"),
    ],
)
def test_what_shows_in_a_while(tmp_path: Path, later: str, name: str, said: str) -> None:
    report = examined(planted(tmp_path), later)
    (result,) = (one for one in report.results if one.state != "fine")
    assert (result.name, result.severity) == (name, "slow")
    assert said in result.what


@pytest.mark.parametrize(
    ("options", "severity"),
    [({}, None), ({"capacity": 1_000_000}, "note"), ({"memory": 2**30}, "note")],
)
def test_a_cache_that_outgrows_its_control_group(
    tmp_path: Path, options: dict[str, int], severity: str | None
) -> None:
    """Once it is full, of the longest entries."""
    look = Look(services=[Asked(Options(port=53, **options))], root=planted(tmp_path))
    found = [one.severity for one in CHECKS["memory"].looks(look)]
    assert found == ([severity] if severity else [])


def test_what_a_machine_says_of_itself_is_never_useless() -> None:
    assert {check.severity for check in CHECKS.values() if check.group == "machine"} == {"slow"}


@pytest.mark.parametrize("gone", [name for name in HEALTHY if "memory.max" not in name])
def test_what_cannot_be_read_is_not_known(tmp_path: Path, gone: str) -> None:
    """Or is none of its business; it is never taken for a fault."""
    (planted(tmp_path) / gone).unlink()
    report = examined(tmp_path)
    unknown = {one.name: one.what for one in report.results if one.state != "fine"}
    assert {one.state for one in report.results} <= {"fine", "not known"}, report
    assert all(unknown.values())
    silent = ("cgroup.controllers", "conntrack_count", "scaling_governor", "vuln", "jit_enable")
    assert bool(unknown) == (not any(word in gone for word in silent)), unknown


@pytest.mark.parametrize("text", ["", "\0\xff", "x" * 100_000, "cpu 1 2\ncpu0 a b", "-1"])
@pytest.mark.parametrize("name", list(HEALTHY))
def test_garbage(tmp_path: Path, name: str, text: str) -> None:
    """In any of the files: it says something, and raises nothing."""
    planted(tmp_path, **{name: text})
    for result in examined(tmp_path).results:
        assert (result.state == "fine") == (not result.what)


@pytest.mark.parametrize(
    ("name", "files", "command", "undo"),
    [
        (
            "jit",
            {"proc/sys/net/core/bpf_jit_enable": "0"},
            "sysctl net.core.bpf_jit_enable=1",
            "sysctl net.core.bpf_jit_enable=0",
        ),
        (
            "governor",
            {GOVERNOR: "powersave"},
            "cpupower -c 1 frequency-set -g performance",
            "cpupower -c 1 frequency-set -g powersave",
        ),
    ],
)
def test_what_is_mended(
    tmp_path: Path, name: str, files: dict[str, str], command: str, undo: str
) -> None:
    """It is said; then nothing is found; and once more changes nothing."""
    planted(tmp_path, **files)
    report = examined(tmp_path, mend=True)
    (result,) = (one for one in report.results if one.state == "found")
    change = result.change
    assert result.name == name and change
    assert (change.made, change.command, change.undo) == (True, command, undo)
    assert report.wrong == 0
    (tmp_path / "proc/stat").write_text(HEALTHY["proc/stat"])
    again = examined(tmp_path, mend=True)
    assert {one.state for one in again.results} == {"fine"}


def test_nothing_is_mended_unasked(tmp_path: Path) -> None:
    planted(tmp_path, **{GOVERNOR: "powersave"})
    report = examined(tmp_path)
    assert (tmp_path / GOVERNOR).read_text() == "powersave"
    assert report.wrong == 1


def test_what_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that is made and has no effect is none; nor is one that fails."""

    def fail() -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    for apply, why in ((lambda: None, "changed nothing"), (fail, "not permitted")):
        fix = Fix("command", "undo", apply)
        stays = CHECKS["jit"]._replace(looks=lambda _, fix=fix: iter([Found("what", "", fix)]))
        monkeypatch.setitem(CHECKS, "jit", stays)
        report = examine(Look(), [name for name in CHECKS if name != "jit"], mend=True)
        (result,) = report.results
        assert result.change and not result.change.made
        assert why in result.change.why
        assert report.wrong == 1


def facts(**more: Any) -> Interface:
    return Interface(2, "eth0", bytes(6), 1500, True, "ixgbe", (ADDRESS,))._replace(**more)


def looked(name: str, interface: Interface, look: Look | None = None) -> list[Found]:
    return list(CHECKS[name].looks(look or Look([interface]), interface))


def test_tags_that_a_card_takes_off() -> None:
    """A card may reset when that is turned off; of a veth the other end decides; TC sees them."""
    vlan = Upper(5, 0, bytes(6), 1500, (ADDRESS,), 7)
    (found,) = looked("tags", facts(strips=True, uppers=(vlan,)))
    assert found.fix is None and "ethtool -K eth0 rxvlan off" in found.remedy
    assert "tags (5)" in found.what
    (found,) = looked("tags", facts(strips=True, uppers=(vlan,), driver="veth"))
    assert found.fix is None and "txvlan off at its other end" in found.remedy
    ports = (Port(3, "eth1", "ice", True), Port(4, "eth2", "ice", True))
    (found,) = looked("tags", facts(strips=True, uppers=(vlan,), ports=ports))
    assert "ethtool -K eth1 rxvlan off; ethtool -K eth2 rxvlan off" in found.remedy
    assert looked("tags", facts(uppers=(vlan,))) == []
    stripping = facts(strips=True, uppers=(vlan,))
    assert looked("tags", stripping, Look([stripping], hook="tc")) == []


@pytest.mark.parametrize("kind", ["bridge", "bond", "team"])
def test_a_port(kind: str) -> None:
    (found,) = looked("port", facts(master="up0", kind=kind))
    assert found.remedy == "-i up0"
    assert looked("port", facts(master="vrf0", kind="vrf")) == []


@pytest.mark.parametrize(
    ("on", "lower", "found"), [("ipvlan", 2, 1), ("ipvlan", 9, 0), ("vlan", 2, 0)]
)
def test_an_ipvlan_on_top(monkeypatch: pytest.MonkeyPatch, on: str, lower: int, found: int) -> None:
    links = [Device(2, "eth0"), Device(5, "ipvl0", kind=on, lower=lower)]
    monkeypatch.setattr(interfaces.devices, "devices", lambda: links)
    assert len(looked("ipvlan", facts())) == found


def test_what_a_card_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    """LRO, and GRO in hardware, where native XDP is wanted and not there yet."""
    told = {"rx-lro": Feature(True, True), "rx-gro-hw": Feature(True, True)}
    monkeypatch.setattr(interfaces.ethtool, "features", lambda _: told)
    card = facts()
    remedies = [one.remedy.partition(" (")[0] for one in looked("lro", card)]
    assert remedies == ["ethtool -K eth0 lro off", "ethtool -K eth0 rx-gro-hw off"]
    bond = facts(driver="bond", ports=(Port(3, "eth1", "ice", True),))
    assert {one.what.split()[0] for one in looked("lro", bond)} == {"eth1"}, "its ports matter"
    for look in (Look([card], mode="generic"), Look([card], hook="tc")):
        assert looked("lro", card, look) == []
    assert looked("lro", card, Look([card], modes={"eth0": "native"})) == []


def test_a_card_with_too_few_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interfaces.ethtool, "channels", lambda _: Channels(1, 9, 1, 9, True))
    monkeypatch.setattr(interfaces.libbpf, "possible_cpus", lambda: 8)
    (found,) = looked("queues", facts())
    assert found.remedy == "ethtool -L eth0 combined 8"
    assert looked("queues", facts(), Look(hook="tc")) == []


def test_control_groups_that_cannot_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(services, "open_root", refuse)
    look, asked = Look(), Asked(Options(port=53), Front(Options(port=53, protocol="dns")))
    (found,) = CHECKS["control-groups"].looks(look, asked)
    assert "No such device" in found.what
    assert list(CHECKS["control-groups"].looks(look, Asked(Options(port=53)))) == []


@pytest.mark.parametrize(
    ("driver", "channels", "cpus", "said"),
    [
        ("virtio_net", Channels(1, 1, 1, 1, True), 2, "3 queues from its host"),
        ("virtio_net", Channels(4, 8, 4, 8, True), 8, "12 queues from its host"),
        ("virtio_net", Channels(8, 16, 8, 16, True), 10, "combined 6, or 18"),
        ("virtio_net", Channels(2, 8, 2, 8, True), 4, "combined 4"),
        ("virtio_net", Channels(4, 8, 4, 8, True), 4, ""),
        ("ena", Channels(8, 8, 8, 8, True), 8, "combined 4"),
        ("ena", Channels(4, 8, 4, 8, True), 4, ""),
        ("gve", Channels(8, 16, 16, 16), 8, "tx 8"),
        ("gve", Channels(8, 8, 8, 16), 8, ""),
        ("ixgbe", Channels(1, 64, 1, 64, True), 8, "combined 8"),
        ("mlx5_core", Channels(2, 4, 2, 4), 8, "rx 4"),
        ("ixgbe", Channels(8, 64, 8, 64, True), 8, ""),
        ("veth", Channels(1, 2, 1, 2), 2, ""),
    ],
)
def test_queues(driver: str, channels: Channels, cpus: int, said: str) -> None:
    words = queue_words(driver, channels, cpus)
    assert bool(words) == bool(said)
    assert not words or said in words[1]


def test_native_xdp_by_the_drivers_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it cannot be asked, that is said."""
    card = facts()
    for has, mode, severity in ((False, "auto", "slow"), (False, "native", "useless")):
        look = Look([card], mode=mode)  # type: ignore[arg-type]
        monkeypatch.setattr(look, "has_native", lambda _, has=has: has)
        (found,) = looked("native", card, look)
        assert found.severity == severity
    look = Look([card], modes={"eth0": "generic"})
    (found,) = looked("native", card, look)
    assert "refused" in found.what
    with pytest.raises(NotKnown, match=r"6\.3"):
        looked("native", facts(ifindex=999_999))


def told(**service: Any) -> Running:
    service = {"port": 53, "reach": [], "silence": None, **service}
    ready = {"interfaces": [{"name": "eth0", "mode": "native"}]}
    return Running(7, {"ready": ready, "services": [service], "not_followed": {}})


REACH = {"interface": "eth0", "answered": True, "why": "", "but": ""}
SILENCE = {"requests": 50, "seconds": 10.0, "what": "pass_ttl", "why": "their TTL is below 32"}


@pytest.mark.parametrize(
    ("name", "running", "said"),
    [
        ("silent-daemon", Running(7, None, "carom 7 does not answer"), "does not answer"),
        ("unanswered", told(reach=[{**REACH, "answered": False, "why": "x is down"}]), "x is down"),
        ("partly", told(reach=[{**REACH, "but": "not 198.18.0.9"}]), "but not 198.18.0.9"),
        ("no-hits", told(silence=SILENCE), "most of them pass ttl: their TTL is below 32"),
    ],
)
def test_a_running_carom(
    name: str, running: Running, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = examine(Look(running=running), ("kernel", "machine"))
    (result,) = (one for one in report.results if one.state == "found")
    assert result.name == name and said in result.what


def test_it_follows_the_host() -> None:
    running = told()
    assert running.status
    running.status["not_followed"]["interfaces"] = "no memory"  # type: ignore[index]
    report = examine(Look(running=running), ("kernel", "machine"))
    (result,) = (one for one in report.results if one.state == "found")
    assert (result.name, result.severity) == ("not-followed", "slow")


def test_a_carom_of_another_version() -> None:
    """Its services are said in another way, or not at all."""
    for service in ({"port": 53}, {"port": 53, "options": {"port": "53"}}):
        with pytest.raises(ControlError, match="of another version"):
            cli_doctor._services({"services": [service]}, None)


def test_names() -> None:
    check_names([*CHECKS, *GROUPS])
    with pytest.raises(UsageError, match="no check 'jitt'"):
        check_names(["jit", "jitt"])
    assert not CHECKS.keys() & set(GROUPS), "--skip takes both"
    assert all(re.fullmatch(r"[a-z][a-z-]*", name) for name in CHECKS)


ROW = re.compile(r"^\| `([a-z-]+)` \| (useless|slow|note) \| (.+) \| (.+) \|$", re.MULTILINE)


def test_the_docs_have_each_check() -> None:
    """In the order of the checks, in their own words. What to write there is in the message."""
    text = (ROOT / "docs/operating.md").read_text()
    wanted = [(one.name, one.severity, one.means, one.remedy) for one in CHECKS.values()]
    rows = "\n".join(f"| `{a}` | {b} | {c} | {d} |" for a, b, c, d in wanted)
    assert ROW.findall(text) == wanted, f"docs/operating.md has to say:\n{rows}"


@pytest.mark.parametrize("name", CHECKS)
def test_each_check_is_asked_for_by_a_test(name: str) -> None:
    """A fault is planted for each, here or between namespaces."""
    tests = Path(__file__).read_text() + (ROOT / "tests/netns/test_doctor.py").read_text()
    assert f'"{name}"' in tests, name
