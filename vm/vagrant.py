# SPDX-License-Identifier: Apache-2.0
"""The pair of VMs that the Vagrantfile describes, brought up by Vagrant and reached by ssh."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from carom.errors import ExperimentError, HostError, UsageError
from carom.vm.ssh import Machine, Progress, SSHHost, SSHPair

NAMES = ("client", "server")
RELEASES = ("bookworm", "trixie")
PROVIDERS = ("libvirt", "virtualbox")
NO_NATIVE_XDP = (
    "VirtualBox's network adapters have no native XDP: experiments run in generic mode, which "
    "saves less"
)
_SOCKETS = ("/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock")
_KVM = Path("/dev/kvm")
_INSTALL = (
    "apt install vagrant vagrant-libvirt libvirt-daemon-system qemu-system-x86; "
    "on Ubuntu see docs/vm.md"
)
_HERE = Path(__file__).resolve().parent
_LOOK = """
uname -r
ip -j -4 address
ip -j -4 route show default
for one in /sys/class/net/*; do
    driver=$(readlink "$one/device/driver") && echo "${one##*/} ${driver##*/}"
done
true
"""


class Facts(msgspec.Struct, frozen=True):
    """Facts of a machine: its kernel, and the interface that faces the other machine."""

    kernel: str
    interface: str
    address: str
    driver: str


class Status(msgspec.Struct, kw_only=True):
    """A machine by Vagrant's words, and its facts; `trouble` says why it cannot be reached."""

    name: str
    state: str
    provider: str
    facts: Facts | None = None
    trouble: str | None = None


def folder() -> Path:
    """The folder of the Vagrantfile, looked for as Vagrant does. Raises UsageError."""
    start = Path(os.environ.get("VAGRANT_CWD") or Path.cwd())
    for place in (start, *start.parents):
        if (place / "Vagrantfile").exists():
            return place
    raise UsageError(
        "there is no Vagrantfile here", hint="run it in carom's repository, or set VAGRANT_CWD"
    )


def check(provider: str, *, emulated: bool = False) -> None:
    """Raises HostError if something that brings the machines up is not installed."""
    if not shutil.which("vagrant"):
        raise HostError("vagrant is not installed", hint=_INSTALL)
    if provider == "virtualbox":
        if not shutil.which("VBoxManage"):
            raise HostError("VirtualBox is not installed", hint="or use --provider libvirt")
        return
    if "vagrant-libvirt" not in _vagrant("plugin", "list"):
        raise HostError(
            "vagrant has no plugin for libvirt", hint="apt install vagrant-libvirt, or "
            "`vagrant plugin install vagrant-libvirt` where Vagrant is not Debian's",
        )  # fmt: skip
    _check_libvirt(emulated)


def _check_libvirt(emulated: bool) -> None:
    sockets = [path for path in _SOCKETS if Path(path).exists()]
    if not sockets:
        raise HostError(
            "libvirt is not running",
            hint="apt install libvirt-daemon-system, then systemctl start libvirtd",
        )
    if not any(os.access(path, os.W_OK) for path in sockets):
        raise HostError(
            "you may not talk to libvirt", hint="adduser $USER libvirt, then log in again"
        )
    if not shutil.which("qemu-system-x86_64"):
        raise HostError("QEMU is not installed", hint="apt install qemu-system-x86")
    if not emulated and not _KVM.exists():
        raise HostError(
            "this machine has no KVM (/dev/kvm)",
            hint="switch virtualization on in its firmware, or use --emulate, which is slow",
        )


def build(release: str) -> str:
    """Build a box from Debian packages, unless it exists, and add it; returns its name."""
    return add(make_box(release, folder() / "build" / "vm"), f"carom/{release}")


def make_box(release: str, place: Path) -> Path:
    """Build a box from Debian packages in a folder, unless it exists; its path.

    Only building takes root. Raises UsageError, HostError.
    """
    if release not in RELEASES:
        raise UsageError(f"no box is built of {release!r}", hint="bookworm or trixie")
    _stream(["sh", str(_HERE / "box.sh"), release, str(place)], "the box cannot be built")
    return place / f"carom-{release}.box"


def add(box: Path, name: str) -> str:
    """Add a box to Vagrant under a name; returns the name. Raises HostError."""
    _stream(
        ["vagrant", "box", "add", "--force", "--name", name, str(box)], "the box cannot be added"
    )
    return name


def up(provider: str, settings: Mapping[str, str]) -> None:
    """Bring both machines up; the Vagrantfile reads `settings` from the environment."""
    argv = ["vagrant", "up", "--provider", provider]
    _stream(argv, "the machines did not come up", settings)


def down() -> None:
    """Destroy both machines, with their disks."""
    _stream(["vagrant", "destroy", "-f"], "the machines could not be destroyed")


def _stream(argv: list[str], failure: str, settings: Mapping[str, str] | None = None) -> None:
    """Run a program whose output goes to stderr. Raises HostError.

    The program gets Ctrl-C too and takes back what it began: that is waited for.
    """
    environment = {**os.environ, **(settings or {})}
    try:
        child = subprocess.Popen(argv, cwd=folder(), env=environment, stdout=sys.stderr)
    except FileNotFoundError as error:
        raise _not_installed(error) from error
    try:
        status = child.wait()
    except KeyboardInterrupt:
        child.wait()
        raise
    if status:
        raise HostError(
            f"{failure} ({argv[0]} ended with {status})", hint="the reason stands above"
        )


def _vagrant(*argv: str) -> str:
    """Run Vagrant and return its output. Raises HostError with its message."""
    try:
        done = subprocess.run(
            ["vagrant", *argv], cwd=folder(), capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise _not_installed(error) from error
    if done.returncode:
        output = (done.stderr or done.stdout).strip()
        reason = output.splitlines()[0] if output else "it does not say why"
        raise HostError(
            f"vagrant {argv[0]} failed: {reason}",
            hint="are the machines up? `carom vm up`",
            details=output,
        )
    return done.stdout


def _not_installed(error: FileNotFoundError) -> HostError:
    return HostError(f"{error.filename} is not installed", hint=_INSTALL)


def parse_config(text: str) -> dict[str, dict[str, str]]:
    """The hosts of an ssh configuration as `vagrant ssh-config` prints it, with their options."""
    hosts: dict[str, dict[str, str]] = {}
    words: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.strip().partition(" ")
        if key == "Host":
            words = hosts.setdefault(value, {})
        elif key and not key.startswith("#"):
            words[key] = value.strip().strip('"')
    return hosts


def parse_status(text: str) -> list[Status]:
    """The machines of `vagrant status --machine-readable`."""
    facts: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        _, name, kind, value, *_ = [*line.split(",", 3), "", "", "", ""]
        if name:
            facts.setdefault(name, {})[kind] = value
    return [
        Status(
            name=name,
            state=words.get("state", "unknown"),
            provider=words.get("provider-name", "unknown"),
        )
        for name, words in facts.items()
    ]


def parse_facts(text: str, management: str) -> Facts:
    """The facts from the output of `_LOOK`. Raises HostError.

    The interface that faces the other machine is not the one with the address `management`, which
    ssh uses, nor that of the default route.
    """
    kernel, addresses, routes, *drivers = text.splitlines()
    taken = {"lo", *(route.get("dev") for route in json.loads(routes))}
    for link in json.loads(addresses):
        local = [info["local"] for info in link.get("addr_info", ())]
        name = link.get("ifname")
        if name not in taken and local and management not in local:
            driver = dict(line.split(" ", 1) for line in drivers).get(name, "unknown")
            return Facts(kernel, name, local[0], driver)
    raise HostError(
        "no interface of it faces the other machine",
        hint="was it brought up by carom's Vagrantfile? `vagrant reload` configures it again",
    )


class Reach:
    """How to reach the machines that are up: an ssh configuration, and host keys learned once.

    A machine makes its host key when it first boots, so there is none to compare it with.
    """

    def __init__(self, place: Path, names: Sequence[str]):
        text = _vagrant("ssh-config", *names)
        self._config = place / "ssh_config"
        self._config.write_text(text)
        self._known = place / "known_hosts"
        self.hosts = parse_config(text)

    def machine(self, name: str, interface: str = "", address: str = "") -> Machine:
        """How to reach a machine. Raises HostError if it is not up."""
        if name not in self.hosts:
            raise HostError(f"the machine {name} is not up", hint="`carom vm up` brings it up")
        return Machine(
            host=name,
            interface=interface,
            address=address,
            config=str(self._config),
            known_hosts=str(self._known),
            host_keys="accept-new",
        )

    def facts(self, name: str) -> Facts:
        """The facts of a machine. Raises HostError."""
        done = SSHHost(name, self.machine(name)).run("sh", "-c", _LOOK)
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip()
            raise HostError(f"the machine {name} cannot say what it is: {reason}")
        return parse_facts(done.stdout.decode(), self.hosts[name].get("HostName", ""))

    def host(self, name: str) -> SSHHost:
        """A machine as one end of the pair. Raises HostError."""
        facts = self.facts(name)
        return SSHHost(name, self.machine(name, facts.interface, facts.address))


class VagrantPair(SSHPair):
    """The two machines, which stay up; `carom vm down` destroys them."""

    name = "vagrant"

    def __init__(self, progress: Progress = lambda line: None):
        with ExitStack() as stack:
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="carom-"))
            progress("asking Vagrant for the machines")
            reach = Reach(Path(place), NAMES)
            client, server = (reach.host(name) for name in NAMES)
            super().__init__(client, server, progress)
            if server.driver() != "virtio_net":
                progress(f"warning: {NO_NATIVE_XDP}")
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Remove the ssh configuration."""
        super().close()
        self._stack.close()


def status() -> list[Status]:
    """Both machines, with the facts of those that are up. Raises HostError."""
    machines = parse_status(_vagrant("status", "--machine-readable"))
    for machine in machines:
        if machine.state == "running":
            with tempfile.TemporaryDirectory(prefix="carom-") as place:
                try:
                    machine.facts = Reach(Path(place), [machine.name]).facts(machine.name)
                except ExperimentError as error:
                    machine.trouble = str(error)
    return machines


def run(name: str, argv: Sequence[str]) -> int:
    """Run a command on a machine, as root, with our stdin and outputs; its exit status."""
    with tempfile.TemporaryDirectory(prefix="carom-") as place:
        reach = Reach(Path(place), [name])
        return subprocess.call(SSHHost(name, reach.machine(name)).argv(argv))
