# SPDX-License-Identifier: Apache-2.0
"""What makes a tree a Debian package: the unit, the example, and scripts that need no systemd."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from carom.vm import packages

pytestmark = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="no dpkg-deb")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with nothing in it but that."""
    folder = tmp_path_factory.mktemp("package")
    root = folder / "root"
    (root / packages._LIB).mkdir(parents=True)
    packages._furnish(root, "amd64")
    command = ["dpkg-deb", "--root-owner-group", "--build", root, folder / "carom.deb"]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "carom.deb"


def test_what_is_in_it(made: Path, tmp_path: Path) -> None:
    listed = subprocess.run(["dpkg-deb", "-c", made], capture_output=True, text=True, check=True)
    rows = {line.split()[-1]: line.split()[:2] for line in listed.stdout.splitlines()}
    for name, mode in {
        "./usr/bin/carom": "-rwxr-xr-x",
        "./usr/lib/systemd/system/carom.service": "-rw-r--r--",
        "./usr/share/doc/carom/examples/carom.toml": "-rw-r--r--",
        "./etc/carom/": "drwxr-xr-x",
    }.items():
        assert rows[name] == [mode, "root/root"]
    assert not any(name.startswith("./etc/carom/") and name != "./etc/carom/" for name in rows)
    subprocess.run(["dpkg-deb", "-R", made, tmp_path / "out"], check=True)
    found = (tmp_path / "out/usr/lib/systemd/system/carom.service").read_bytes()
    assert found == (packages._DEBIAN / "carom.service").read_bytes()


@pytest.mark.parametrize("script", ["postinst", "prerm", "postrm"])
def test_scripts(made: Path, tmp_path: Path, script: str) -> None:
    """They end well where no systemd runs, and ask nothing of one."""
    subprocess.run(["dpkg-deb", "-e", made, tmp_path / "control"], check=True)
    path = tmp_path / "control" / script
    assert os.access(path, os.X_OK)
    subprocess.run(["sh", "-n", path], check=True)
    text = path.read_text()
    guarded = [line for line in text.splitlines() if "systemctl" in line]
    assert guarded and all(line.rstrip().endswith("|| true") for line in guarded)
    assert text.index("/run/systemd/system") < text.index("systemctl")
