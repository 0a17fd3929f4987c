# SPDX-License-Identifier: Apache-2.0
"""A copy of a pristine Debian, where a package is installed, used and removed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from carom.vm.namespace import Namespace
from carom.vm.packages import MACHINES

INSIDE = r"""
    root=$1
    shift
    mount -t proc none "$root/proc" && mount -t sysfs none "$root/sys" &&
        mount --rbind /dev "$root/dev" && mount -t tmpfs none "$root/run" &&
        mount -t bpf none "$root/sys/fs/bpf" || exit
    ours=${CAROM_RUN:-/run/carom} # where tests call it
    mkdir -p "$ours" "$root/run/carom" && mount --bind "$ours" "$root/run/carom" || exit
    exec chroot "$root" env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"
"""

NOT_OURS = ("var/lib/dpkg", "var/log", "var/cache/ldconfig", "etc/ld.so.cache")
"""What dpkg itself writes to."""


class Pristine:
    """A tree of files, and programs that run in it, in a network namespace of this host's."""

    def __init__(self, tree: Path, root: Path, namespace: Namespace):
        subprocess.run(["cp", "-a", "--reflink=auto", tree, root], check=True)
        self.root, self._namespace = root, namespace
        self.before = self.files()

    def files(self) -> dict[str, tuple[int, int]]:
        """All files, with their sizes and times, but for what dpkg itself writes to."""
        found = {}
        for path in self.root.rglob("*"):
            name, status = str(path.relative_to(self.root)), path.lstat()
            if not name.startswith(NOT_OURS):
                folder = path.is_dir() and not path.is_symlink()
                found[name] = (0, 0) if folder else (status.st_size, status.st_mtime_ns)
        return found

    def argv(self, *words: str) -> list[str]:
        """A program in the tree, to be run in the namespace by Namespace.argv."""
        return ["unshare", "--mount", "sh", "-c", INSIDE, "sh", str(self.root), *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program there to its end."""
        command = self._namespace.argv(self.argv(*words))
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def __enter__(self) -> Pristine:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.root)


class Package:
    """A way to have carom there: `program` is how it is called then."""

    program: Sequence[str] = ("carom",)

    def __init__(self, there: Pristine, folder: Path):
        self.there, self.folder = there, folder

    def install(self) -> None:
        """Have it there."""

    def remove(self) -> None:
        """Take it away, as docs/shipping.md says."""


class Wheel(Package):
    """By pip, into a folder of its own; what it requires comes with it."""

    program = ("env", "PYTHONPATH=/opt/carom", "python3", "-m", "carom")

    def install(self) -> None:
        (wheel,) = self.folder.glob("*.whl")
        version = self.there.run(
            "python3", "-c", "import sys; print(sys.version_info[0], sys.version_info[1], sep='.')"
        ).stdout.strip()
        where = ("--platform", f"manylinux2014_{MACHINES['amd64']}", "--python-version", version)
        pip = (sys.executable, "-P", "-m", "pip", "install", "-q", "--no-compile")
        to = ("--only-binary", ":all:", "--target", self.there.root / "opt/carom")
        subprocess.run([*pip, *where, *to, wheel], check=True)

    def remove(self) -> None:
        shutil.rmtree(self.there.root / "opt/carom")


class OneFile(Package):
    """One file; at its first run it unpacks itself to ~/.cache/pex."""

    def install(self) -> None:
        (file,) = self.folder.glob("*.pex")
        shutil.copy(file, self.there.root / "usr/local/bin/carom")

    def remove(self) -> None:
        (self.there.root / "usr/local/bin/carom").unlink()
        shutil.rmtree(self.there.root / "root/.cache")


class Deb(Package):
    """By dpkg."""

    def install(self) -> None:
        (file,) = self.folder.glob("*.deb")
        shutil.copy(file, self.there.root / "root")
        done = self.there.run("dpkg", "--install", f"/root/{file.name}")
        assert done.returncode == 0, done.stdout + done.stderr
        (self.there.root / "root" / file.name).unlink()

    def remove(self) -> None:
        done = self.there.run("dpkg", "--purge", "carom")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "not empty" not in done.stderr


KINDS: dict[str, type[Package]] = {"wheel": Wheel, "pex": OneFile, "deb": Deb}
