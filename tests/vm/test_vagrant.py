# SPDX-License-Identifier: Apache-2.0
"""The pair of VMs as far as it goes without booting one: `./run test-vm` does the rest."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from carom.errors import HostError
from carom.vm import vagrant

ROOT = Path(__file__).resolve().parents[2]

SSH_CONFIG = """Host client
  HostName 198.18.1.15
  User vagrant
  Port 22
  UserKnownHostsFile /dev/null
  IdentityFile "/a folder/insecure_private_key"
  LogLevel FATAL

Host server
  HostName 198.18.1.77
  User vagrant
"""

STATUS = """1700000000,client,metadata,provider,libvirt
1700000000,server,metadata,provider,libvirt
1700000000,client,provider-name,libvirt
1700000000,client,state,{state}
1700000000,client,state-human-short,{state}
1700000000,server,provider-name,libvirt
1700000000,server,state,not_created
1700000000,,ui,info,Current machine states:%!(VAGRANT_COMMA) many
"""

DRIVERS = "eth0 virtio_net\neth1 virtio_net\n"


def address(name: str, *addresses: str) -> dict[str, object]:
    return {"ifname": name, "addr_info": [{"local": one, "prefixlen": 24} for one in addresses]}


def look(addresses: list[dict[str, object]], routes: list[dict[str, str]], drivers: str) -> str:
    return f"6.1.0-9-amd64\n{json.dumps(addresses)}\n{json.dumps(routes)}\n{drivers}"


def test_an_ssh_configuration_is_read_host_by_host() -> None:
    hosts = vagrant.parse_config(SSH_CONFIG)
    assert list(hosts) == ["client", "server"]
    assert hosts["client"]["IdentityFile"] == "/a folder/insecure_private_key"
    assert hosts["server"] == {"HostName": "198.18.1.77", "User": "vagrant"}


def test_vagrants_status_is_read() -> None:
    client, server = vagrant.parse_status(STATUS.format(state="running"))
    assert (client.name, client.state, client.provider) == ("client", "running", "libvirt")
    assert (server.name, server.state) == ("server", "not_created")


@pytest.mark.parametrize(
    ("addresses", "routes", "management", "drivers"),
    [
        pytest.param(
            [address("lo", "127.0.0.1"), address("eth0", "198.18.1.15"),
             address("eth1", "198.18.0.12")],
            [], "198.18.1.15", DRIVERS, id="libvirt, no way out",
        ),
        pytest.param(
            [address("lo", "127.0.0.1"), address("eth0", "10.0.2.15"),
             address("eth1", "198.18.0.12")],
            [{"dst": "default", "dev": "eth0"}], "127.0.0.1", DRIVERS, id="ports forwarded",
        ),
        pytest.param(
            [address("lo", "127.0.0.1"), address("eth1", "198.18.0.12"), address("docker0"),
             address("eth0", "198.18.1.15")],
            [{"dst": "default", "dev": "eth0"}], "198.18.1.15", DRIVERS, id="another order",
        ),
    ],
)  # fmt: skip
def test_the_interface_that_faces_the_other_machine_is_found(
    addresses: list[dict[str, object]], routes: list[dict[str, str]], management: str, drivers: str
) -> None:
    facts = vagrant.parse_facts(look(addresses, routes, drivers), management)
    assert facts == vagrant.Facts("6.1.0-9-amd64", "eth1", "198.18.0.12", "virtio_net")


def test_a_machine_without_a_second_interface_is_told() -> None:
    text = look([address("lo", "127.0.0.1"), address("eth0", "198.18.1.15")], [], "")
    with pytest.raises(HostError, match="no interface of it faces"):
        vagrant.parse_facts(text, "198.18.1.15")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of its own, where nothing is installed but what a test puts there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("VAGRANT_CWD", str(ROOT))
    return folder


def install(folder: Path, name: str, script: str = "") -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


PLUGIN = "echo 'vagrant-libvirt (0.11.2, system)'"


@pytest.mark.parametrize(
    ("there", "socket", "kvm", "said", "hint"),
    [
        ({}, True, True, "vagrant is not installed", "apt install vagrant"),
        ({"vagrant": "echo none"}, True, True, "no plugin for libvirt", "vagrant-libvirt"),
        ({"vagrant": PLUGIN}, False, True, "libvirt is not running", "systemctl start"),
        ({"vagrant": PLUGIN}, True, True, "QEMU is not installed", "qemu-system-x86"),
        ({"vagrant": PLUGIN, "qemu-system-x86_64": ""}, True, False, "no KVM", "--emulate"),
    ],
)
def test_what_is_missing_is_said_with_what_to_install(
    tools: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: dict[str, str],
    socket: bool,
    kvm: bool,
    said: str,
    hint: str,
) -> None:
    for name, script in there.items():
        install(tools, name, script)
    for name, exists in (("socket", socket), ("kvm", kvm)):
        if exists:
            (tmp_path / name).touch()
    monkeypatch.setattr(vagrant, "_SOCKETS", (str(tmp_path / "socket"),))
    monkeypatch.setattr(vagrant, "_KVM", tmp_path / "kvm")
    with pytest.raises(HostError, match=said) as caught:
        vagrant.check("libvirt")
    assert hint in str(caught.value.hint)


def test_nothing_is_missing(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tools, "vagrant", PLUGIN)
    install(tools, "qemu-system-x86_64")
    (tmp_path / "socket").touch()
    monkeypatch.setattr(vagrant, "_SOCKETS", (str(tmp_path / "socket"),))
    monkeypatch.setattr(vagrant, "_KVM", tmp_path / "kvm")
    vagrant.check("libvirt", emulated=True)  # which needs no KVM
    with pytest.raises(HostError, match="VirtualBox is not installed"):
        vagrant.check("virtualbox")


def carom(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "carom", *argv],
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["up"], 1, "vagrant is not installed"),
        (["up", "--provider", "cloud"], 2, "no provider 'cloud'"),
        (["up", "--box", "a", "--build", "trixie"], 2, "exclude each other"),
        (["up", "--provider", "virtualbox", "--emulate"], 2, "are for libvirt"),
        (["status"], 1, "vagrant is not installed"),
        (["down"], 1, "vagrant is not installed"),
        (["run", "server"], 2, "no command for the server"),
        (["run", "server", "id"], 1, "vagrant is not installed"),
        (["run", "server", "df", "-h"], 1, "vagrant is not installed"),
        (["run", "bounce", "--short"], 1, "vagrant is not installed"),
    ],
)
def test_a_mistake_is_one_clear_message(
    tools: Path, argv: list[str], code: int, words: str
) -> None:
    done = carom("vm", *argv)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_outside_the_repository_it_says_where_to_go(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAGRANT_CWD", str(tmp_path))
    done = carom("vm", "down")
    assert done.returncode == 2
    assert "no Vagrantfile here" in done.stderr


def test_machines_that_are_not_up_have_a_status(tools: Path) -> None:
    text = STATUS.format(state="shutoff")
    install(tools, "vagrant", f"while read -r line; do echo \"$line\"; done <<'END'\n{text}END")
    found = json.loads(carom("vm", "status", "--json").stdout)
    assert [(one["name"], one["state"]) for one in found] == [
        ("client", "shutoff"),
        ("server", "not_created"),
    ]
    assert "shutoff" in carom("vm", "status").stdout


def test_one_machine_that_is_up_is_asked_alone(tools: Path) -> None:
    """Vagrant refuses the way in to all where one is not up."""
    text = STATUS.format(state="running")
    way_in = "Host client\n  HostName 127.0.0.1\n  Port 1\n"
    install(
        tools,
        "vagrant",
        f"""case "$*" in
        ssh-config\\ client) printf '{way_in}';;
        ssh-config*) exit 1;;
        *) while read -r line; do echo "$line"; done <<'END'
{text}END
        esac""",
    )
    os.symlink(shutil.which("ssh", path=os.defpath) or "ssh", tools / "ssh")
    client, server = json.loads(carom("vm", "status", "--json").stdout)
    assert "Connection refused" in client["trouble"]
    assert server["trouble"] is None


def test_ctrl_c_lets_vagrant_clean_up(tools: Path, tmp_path: Path) -> None:
    began, cleaned = tmp_path / "began", tmp_path / "cleaned"
    wait = "/bin/sleep 1"  # longer than Python waits for a child by itself
    script = f"trap '{wait}; : >{cleaned}; exit 1' INT\n: >{began}\n{wait}; {wait}"
    install(tools, "vagrant", script)
    down = subprocess.Popen([sys.executable, "-P", "-m", "carom", "vm", "down"], process_group=0)
    while not began.exists():
        assert down.poll() is None
        time.sleep(0.02)
    os.killpg(down.pid, signal.SIGINT)
    assert down.wait() == 130
    assert cleaned.exists()


def test_an_experiment_on_machines_that_are_not_up_says_what_to_do(tools: Path) -> None:
    install(tools, "vagrant", "echo 'is not yet ready for SSH' >&2; exit 1")
    done = carom("lab", "run", "bounce", "--short", "--on", "vagrant")
    assert done.returncode == 1
    assert "vagrant ssh-config failed: is not yet ready for SSH" in done.stderr
    assert "carom vm up" in done.stderr


def test_up_hands_the_settings_to_vagrant(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    install(tools, "vagrant", f'echo "$* $CAROM_BOX $CAROM_CPUS${{CAROM_MEMORY-}}" >>{seen}')
    for name in ("CAROM_BOX", "CAROM_CPUS", "CAROM_MEMORY"):
        monkeypatch.delenv(name, raising=False)
    install(tools, "VBoxManage")
    done = carom("vm", "up", "--provider", "virtualbox", "--box", "some/box", "--cpus", "2")
    assert done.returncode == 0, done.stderr
    assert seen.read_text() == "up --provider virtualbox some/box 2\n"
    assert "no native XDP" in done.stderr


def test_no_box_is_built_of_just_anything() -> None:
    done = subprocess.run(
        [ROOT / "vm" / "box.sh", "potato"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "no such release: potato (there are bookworm and trixie)" in done.stderr


@pytest.mark.parametrize("provider", vagrant.PROVIDERS)
def test_vagrant_finds_nothing_wrong(provider: str, tmp_path: Path) -> None:
    if not shutil.which("vagrant"):
        pytest.skip("vagrant is not installed")
    done = subprocess.run(
        ["vagrant", "validate", *(["--ignore-provider"] if provider == "virtualbox" else [])],
        cwd=ROOT,
        env={
            **os.environ,
            "VAGRANT_HOME": str(tmp_path / "home"),
            "VAGRANT_DOTFILE_PATH": str(tmp_path / "machines"),
            "VAGRANT_DEFAULT_PROVIDER": provider,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "validated successfully" in done.stdout
