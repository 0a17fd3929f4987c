# SPDX-License-Identifier: Apache-2.0
"""An emulated guest with a kernel of its own, booted from a folder for one script.

vm/box.sh makes the folder (`--guest`). QEMU emulates the CPU, unless KVM is asked for. Nothing that
the guest writes is kept: only the script's output and its exit status come back.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from carom.errors import HostError

_QEMU = "qemu-system-x86_64"
_COMMAND_LINE = (
    "root=/dev/vda rw init=/sbin/guest-init console=ttyS0 net.ifnames=0 mitigations=off panic=-1"
)
_MACS = "02:00:00:00:01:01", "02:00:00:00:01:02"
_NIC = "virtio-net-pci,gso=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off"
"""As virtio_net wants it for native XDP."""

_DEBUG_EXIT = "isa-debug-exit,iobase=0x501,iosize=0x04"  # vm/guest-init writes there


class Guest(NamedTuple):
    """A guest; its kernel, initrd and disk are in `folder`, and `memory` is in MB.

    It has two virtio interfaces, each at the other's end.
    """

    folder: Path
    cpus: int = 2
    memory: int = 3072
    kvm: bool = False

    def argv(self, work: Path, console: Path) -> list[str]:
        """The command that runs the guest; it ends when the thread that started it does."""
        accelerated = (
            ("-accel", "kvm", "-cpu", "host")
            if self.kvm
            else ("-accel", "tcg,thread=multi", "-cpu", "Nehalem")
        )
        disk = f"file={self.folder / 'box.img'},format=qcow2,if=virtio,snapshot=on"
        return [
            *("setpriv", "--pdeathsig", "KILL", _QEMU, *accelerated),
            *("-smp", str(self.cpus), "-m", str(self.memory)),
            *("-nodefaults", "-no-reboot", "-display", "none", "-device", "virtio-rng-pci"),
            *("-kernel", str(self.folder / "vmlinuz"), "-initrd", str(self.folder / "initrd.img")),
            *("-append", _COMMAND_LINE, "-drive", disk),
            *("-drive", f"file={work},format=raw,if=virtio,readonly=on"),
            *("-serial", f"file:{console}", "-chardev", "stdio,id=words,signal=off"),
            *("-serial", "chardev:words", "-device", _DEBUG_EXIT),
            *(word for at, mac in enumerate(_MACS) for word in _nic(at, mac)),
        ]

    def run(self, script: str, files: Iterable[tuple[Path, str]], patience: float) -> int:
        """Run a script in the guest, beside copies of files and folders under the names given.

        Its output goes to our stdout. Returns its exit status. Raises HostError if the script has
        not ended within `patience` seconds, or the guest ends without it.
        """
        if not shutil.which(_QEMU):
            raise HostError(f"{_QEMU} is not installed", hint="apt install qemu-system-x86")
        with tempfile.TemporaryDirectory(prefix="carom-guest-") as place:
            work, console = Path(place, "work.tar"), Path(place, "console")
            pack(work, script, files)
            with _started(self.argv(work, console)) as machine:
                try:
                    status = machine.wait(patience)
                except subprocess.TimeoutExpired:
                    raise self._failed(f"is not done after {patience:.0f} s", console) from None
            if status < 3 or status % 2 == 0:  # twice the number that guest-init writes, and one
                raise self._failed(f"ended by itself (QEMU's status is {status})", console)
            return status // 2 - 1

    def _failed(self, problem: str, console: Path) -> HostError:
        words = console.read_text(errors="replace") if console.exists() else ""
        last = "\n".join(words.splitlines()[-15:])
        return HostError(
            f"the guest of {self.folder} {problem}",
            hint=f"the last words on its console were:\n{last}" if last else None,
        )


def _nic(number: int, mac: str) -> tuple[str, ...]:
    """An interface of the guest's, at a hub that is not connected to any host's network."""
    hub, device = f"hubport,id=nic{number},hubid=0", f"{_NIC},netdev=nic{number},mac={mac}"
    return "-netdev", hub, "-device", device


def pack(archive: Path, script: str, files: Iterable[tuple[Path, str]]) -> None:
    """Write an archive that serves as a disk: links are followed, and byte code is left out."""
    with tarfile.open(archive, "w", dereference=True) as tar:
        with tempfile.NamedTemporaryFile("w") as text:
            text.write(script)
            text.flush()
            tar.add(text.name, "script")
        for path, name in files:
            tar.add(
                path, name, filter=lambda member: None if "__pycache__" in member.name else member
            )
    with archive.open("ab") as disk:  # a disk has whole sectors
        disk.truncate(-(-disk.tell() // 4096) * 4096)


@contextlib.contextmanager
def _started(argv: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run the guest; it is killed afterwards."""
    machine = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    try:
        yield machine
    finally:
        machine.kill()
        machine.wait()
