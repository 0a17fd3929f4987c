# SPDX-License-Identifier: Apache-2.0
"""A systemd as the first process of namespaces of its own, on a copy of this host's files.

What it writes goes to memory, and its kernel settings are read-only; it has a control group of its
own, and ends with whoever made it. It starts nothing but what it is told to.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from carom.kernel import kept
from carom.kernel.cgroups import mounted
from carom.kernel.resource import Resource
from carom.vm.namespace import Namespace
from netns.process import HERE, until

SYSTEMD = "/lib/systemd/systemd"

_BOOT = r"""
set -e
place=$1
mount --make-rprivate /
mount -t tmpfs none "$place"
mkdir "$place/upper" "$place/work" "$place/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$place/upper,workdir=$place/work" "$place/root"
cd "$place/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 none sys/fs/cgroup
mount -t bpf -o mode=700 bpf sys/fs/bpf
for one in dev run tmp var/tmp; do mount -t tmpfs none "$one"; done
set -- "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0"
for one; do set -- $one; mknod -m 666 "dev/$1" c "$2" "$3"; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
mount -t tmpfs none dev/shm
ln -s /proc/self/fd dev/fd
ln -s pts/ptmx dev/ptmx
touch dev/console
mount --bind dev/null dev/console
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -o remount,bind,ro sys
hostname booted
units=etc/systemd/system
for one in sysinit basic network-online multi-user booted; do
    rm -rf "$units/$one.target" "$units/$one.target.wants" "$units/$one.target.requires"
    printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' "$one" >"$units/$one.target"
done
mkdir old
pivot_root . old
umount -l /old
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin "$SYSTEMD" --system \
    --unit=booted.target --log-target=console </dev/null >/run/systemd.log 2>&1
"""


def why_not() -> str:
    """Why that cannot be here; empty if it can."""
    if not Path(SYSTEMD).exists():
        return "no systemd"
    if "overlay" not in Path("/proc/filesystems").read_text():
        return "no overlay file systems"
    if not list(mounted()):
        return "no control groups (version 2)"
    root = os.stat("/").st_dev
    needed = [HERE, Path(sys.executable).parent, Path(sys.executable).resolve()]
    if any(one.stat().st_dev != root for one in needed):
        return "not all that is needed is on the root file system"
    if any(str(one).startswith(("/home/", "/root/")) for one in needed):
        return "a unit with ProtectHome= does not see this"
    return ""


class Booted(Resource):
    """It runs when this is made, in a network namespace that is there already."""

    def __init__(self, namespace: Namespace, folder: Path):
        if why := why_not():
            pytest.skip(why)
        self.folder = folder
        self._group = Path(next(mounted())[0]) / f"carom-{secrets.token_hex(4)}"
        self._group.mkdir()
        enter = f'echo $$ > {self._group}/cgroup.procs && exec "$@"'
        alone = ("unshare", "--mount", "--pid", "--fork", "--uts", "--ipc", "--cgroup")
        boot = ("sh", "-c", _BOOT, "sh", str(folder))
        # Before it enters the network namespace, where /sys is mounted anew.
        inside = namespace.argv([*alone, "--kill-child", *boot])
        self._process = subprocess.Popen(
            ["sh", "-c", enter, "sh", *inside], env={**os.environ, "SYSTEMD": SYSTEMD}
        )
        try:
            until(lambda: self._first_process() is not None, "its first process")
            until(
                lambda: "running" in self.run("systemctl", "is-system-running").stdout, "it to run"
            )
        except BaseException:
            self.close()
            raise

    def _first_process(self) -> int | None:
        """The pid of systemd, once it is that."""
        for line in (self._group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{line}/comm").read_text() == "systemd\n":
                    return int(line)
        with contextlib.suppress(OSError, StopIteration):
            scope = (self._group / "init.scope/cgroup.procs").read_text().split()
            return int(next(iter(scope)))
        return None

    def run(self, *words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program beside it to its end."""
        self._pid = getattr(self, "_pid", None) or self._first_process()
        command = ["nsenter", "-t", str(self._pid), "-a", *words]
        # What a test says of this host's caroms is not for those there.
        own = {name: one for name, one in os.environ.items() if not name.startswith("CAROM_")}
        return subprocess.run(command, input=text, capture_output=True, text=True, env=own)

    def write(self, path: str, text: str, mode: str = "644") -> None:
        """A file there, and its folder."""
        script = 'mkdir -p "$(dirname "$0")" && cat > "$0" && chmod "$1" "$0"'
        done = self.run("sh", "-c", script, path, mode, text=text)
        assert done.returncode == 0, done.stderr

    def keep_objects(self) -> None:
        """Have the object files of root's caroms there, for carom to take: /run/compiled."""
        packed = subprocess.run(["tar", "-C", kept.folder(), "-c", "."], capture_output=True)
        assert packed.returncode in (0, 1), packed.stderr  # 1: another test has kept more meanwhile
        script = "mkdir -p /run/compiled && tar -C /run/compiled -x && chmod 755 /run/compiled"
        command = ["nsenter", "-t", str(self._pid), "-a", "sh", "-c", script]
        subprocess.run(command, input=packed.stdout, check=True)

    def show(self, unit: str, fact: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", unit, "-p", fact, "--value").stdout.strip()

    def close(self) -> None:
        """End it, with all that it started."""
        first = self._first_process()
        if first:
            os.kill(first, signal.SIGKILL)
        else:
            self._process.kill()
        self._process.wait()
        until(lambda: not self._left(), "the end of all that it started")
        for folder, _, _ in os.walk(self._group, topdown=False):
            os.rmdir(folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _left(self) -> list[str]:
        return [pid for one in self._group.rglob("cgroup.procs") for pid in one.read_text().split()]
