# SPDX-License-Identifier: Apache-2.0
"""Put this carom on another machine: its wheel, and what `provision.sh` says a host needs."""

from __future__ import annotations

import configparser
import hashlib
import importlib.metadata
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from carom.errors import HostError

SOURCE = Path(__file__).resolve().parent.parent
"""The repository: in an editable installation this file is reached by a link."""

_LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__")
_BESIDE_ROOMS = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "LICENSES")


class Target(Protocol):
    """A machine to deploy to: it runs programs, and so takes files."""

    def run(self, *argv: str, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a program there to its end."""

    def stream(self, *argv: str, progress: Callable[[str], None]) -> None:
        """Run a program there and pass its output on, line by line."""


def deploy(target: Target, folder: str, progress: Callable[[str], None]) -> str:
    """Install carom in a folder there, named by `label`; returns the path of the Python that has
    it.

    If that folder is complete already, there is nothing to do. Root compiles here, and that host
    needs no compiler but for experiments that have no object file. Raises HostError.
    """
    made = f"{folder}/{label()}"
    python = f"{made}/bin/python"
    if target.run("test", "-e", f"{made}/complete").returncode == 0:
        return python
    compiles = os.geteuid() == 0  # or else it is compiled there
    parts = f"{made}.parts-{secrets.token_hex(3)}"
    with tempfile.TemporaryDirectory() as scratch:
        progress("building the wheel")
        wheel = build(Path(scratch), objects=compiles)
        for file in (wheel, SOURCE / "vm" / "provision.sh", SOURCE / "vm" / "install.sh"):
            progress(f"sending {file.name} ({file.stat().st_size:,} bytes)")
            _send(target, file, parts)
    compiler = ("no",) if compiles else ()
    target.stream("sh", f"{parts}/install.sh", parts, made, *compiler, progress=progress)
    return python


def label() -> str:
    """The version, and a hash of all files that the wheel is made of. Raises HostError."""
    whole = hashlib.sha256()
    for path in _files():
        whole.update(f"{path.relative_to(SOURCE)}\0{path.stat().st_size}\0".encode())
        whole.update(path.read_bytes())
    return f"{importlib.metadata.version('carom')}-{whole.hexdigest()[:16]}"


def _files() -> Iterator[Path]:
    """All files that the wheel is made of. Raises HostError where there is no source."""
    setup = configparser.ConfigParser()
    if not setup.read(SOURCE / "setup.cfg"):
        raise HostError(
            "there is no source here to make a wheel of: carom was installed as one",
            hint="run it from its repository, or name by `python` one there that has carom",
        )
    rooms = re.findall(r"= (\w+)$", setup["options"]["package_dir"], re.MULTILINE)
    for part in (*_BESIDE_ROOMS, *rooms):
        for folder, folders, names in os.walk(SOURCE / part):
            left_out = _LEFT_OUT(folder, [*folders, *names])
            folders[:] = sorted(set(folders) - left_out)
            yield from (Path(folder, name) for name in sorted(set(names) - left_out))
        if (SOURCE / part).is_file():
            yield SOURCE / part


def build(folder: Path, *, objects: bool = False) -> Path:
    """Build this source's wheel from a copy, as a build leaves files there.

    With `objects` it has object files for hosts without a compiler; they are compiled here, as
    root. Raises HostError.
    """
    copy = folder / "source"
    for path in _files():
        to = copy / path.relative_to(SOURCE)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, to)
    if objects:
        to = copy / "kernel" / "programs"
        run_module("carom", "build", "-o", to, failed="its programs cannot be compiled here")
    how = ("--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet")
    wheel = ("wheel", *how, "--wheel-dir", folder, copy)
    run_module("pip", *wheel, failed="the wheel cannot be built here")
    (made,) = folder.glob("*.whl")
    return made


def packaged_at() -> int:
    """The time of all files in packages, so that two of one source are equal: SOURCE_DATE_EPOCH, or
    else 1980, from which on zip has times. Seconds since 1970.
    """
    return int(os.environ.get("SOURCE_DATE_EPOCH", 315_532_800))


def run_module(module: str, *arguments: str | Path, failed: str) -> None:
    """Run one of this Python's modules as `run` does. Raises HostError."""
    run(sys.executable, "-P", "-m", module, *arguments, failed=failed)


def run(*command: str | Path, failed: str) -> None:
    """Run a program that makes packages to its end. Raises HostError that begins with `failed`."""
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(packaged_at())}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr or done.stdout
        last = next(reversed(said.splitlines()), "no word")
        raise HostError(f"{failed}: {last}", hint="run `./run setup`", details=said)


def _send(target: Target, file: Path, folder: str) -> None:
    script = 'mkdir -p "$1" && cat >"$1/$2"'
    done = target.run("sh", "-c", script, "sh", folder, file.name, input=file.read_bytes())
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()
        raise HostError(f"cannot send {file.name} to the {target}: {reason}")
