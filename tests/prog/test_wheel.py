# SPDX-License-Identifier: Apache-2.0
"""A wheel carries the C files, and works where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = shutil.ignore_patterns(".*", "build", "*.egg-info", "results", "__pycache__")

USE = """
import carom, carom.daemon.fastpath
from carom.kernel import libbpf
with carom.daemon.fastpath.FastPath(capacity=8) as fastpath:
    assert libbpf.test_run(fastpath.program, bytes(64)).retval == libbpf.XDP_PASS
print(carom.__file__)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that a wheel of this tree was installed to."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=LEFT_OUT)
    for arguments in (
        ["build", "--wheel", "--no-isolation", "--outdir", folder, folder / "source"],
        ["pip", "install", "--no-deps", "--no-index", "--target", folder / "site", "WHEEL"],
    ):
        wheel = [str(path) for path in folder.glob("*.whl")]
        argv = [*(str(a) for a in arguments if a != "WHEEL"), *wheel]
        done = subprocess.run(
            [sys.executable, "-P", "-m", *argv], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def test_every_file_of_c_is_there(installed: Path) -> None:
    rooms = ("include", "protocols", "xdp", "tc", "cgroup", "filters", "routes", "lab")
    wanted = {
        str(path.relative_to(ROOT))
        for room in rooms
        for pattern in ("*.c", "*.h")
        for path in (ROOT / room).rglob(pattern)
    }
    assert {"include/abi.h", "xdp/fastpath.c", "tc/fastpath.c"} <= wanted
    package = installed / "carom"
    found = {str(path.relative_to(package)) for path in package.rglob("*.[ch]")}
    assert found == wanted


def test_the_reports_template_is_there(installed: Path) -> None:
    assert (installed / "carom" / "lab" / "templates" / "report.html").is_file()


def test_the_installed_package_loads_its_programs(installed: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", USE],
        env={**os.environ, "PYTHONPATH": str(installed)},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(installed / "carom" / "__init__.py")
