# SPDX-License-Identifier: Apache-2.0
"""Packages of this source for hosts without a compiler: `./run package`.

Each has carom's object files, Python, and the C that they were made of:

- a wheel, for whoever has a virtual environment;
- one file that runs (PEX), with all that the wheel requires, for several Pythons and machines;
- a Debian package with the same, whose dependencies are Debian's python3 and libbpf1. What carom
  requires of Python is in it: Debian 12's pyroute2 and typer are too old.

Two of one source are equal, byte for byte, if they are made of the same requirements.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from carom import __version__
from carom.errors import HostError
from carom.vm import deploy

PYTHONS = ("3.11", "3.12", "3.13")
"""Debian 12's, Ubuntu 24.04's and Debian 13's."""

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""Debian's names of machines, and wheels'. Object files are the same on both."""

_LIB = "usr/lib/carom"
_DEBIAN = Path(__file__).resolve().parent / "debian"


def _pip(*arguments: str | Path, failed: str) -> None:
    deploy.run_module("pip", *arguments, "--quiet", "--disable-pip-version-check", failed=failed)


def one_file(folder: Path, wheel: Path) -> Path:
    """One executable file with the wheel and all that it requires. Raises HostError."""
    made = folder / f"carom-{__version__}.pex"
    platforms = [
        f"--platform=linux-{machine}-cp-{python.replace('.', '')}-cp{python.replace('.', '')}"
        for python in PYTHONS
        for machine in MACHINES.values()
    ]
    how = ("--venv", "--sh-boot", "--console-script", "carom", "--output-file", made)
    deploy.run_module("pex", wheel, *how, *platforms, failed="one file cannot be made")
    return made


def debian(folder: Path, wheel: Path, architecture: str) -> Path:
    """The Debian package for a machine (MACHINES). Raises HostError."""
    made = folder / f"carom_{__version__}_{architecture}.deb"
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        for python in PYTHONS:
            _add_wheels(root / _LIB, Path(scratch) / python, wheel, python, architecture)
        _furnish(root, architecture)
        deploy.run(
            *("dpkg-deb", "--root-owner-group", "-Zxz", "--build", root, made),
            failed="dpkg-deb made no package",
        )
    return made


def _add_wheels(lib: Path, wheels: Path, wheel: Path, python: str, architecture: str) -> None:
    """Add a wheel and what it requires for a Python: what is for any of them once."""
    where = _of(python, MACHINES[architecture])
    missing = "what carom requires is not there"
    _pip("download", wheel, *where, "--dest", wheels, failed=missing)
    pure, own = lib / "site", lib / f"cp{python.replace('.', '')}"
    for one in sorted(wheels.glob("*.whl")):
        name, version, *_, platform = one.stem.split("-")
        to = pure if platform == "any" else own
        if not (to / f"{name}-{version}.dist-info").exists():
            # By its name: of a wheel by its path pip notes where that was.
            found = ("--no-index", "--find-links", wheels, f"{name}=={version}")
            _pip("install", "--no-deps", *where, "--target", to, *found, failed=f"no {name}")


def _of(python: str, machine: str) -> tuple[str, ...]:
    """pip's options for wheels of a Python on a machine."""
    return ("--only-binary", ":all:", "--platform", f"manylinux2014_{machine}",
            "--python-version", python, "--implementation", "cp")  # fmt: skip


def _furnish(root: Path, architecture: str) -> None:
    """Add what makes a tree a package."""
    for folder in [*root.rglob("__pycache__"), *(root / _LIB).glob("*/bin")]:
        shutil.rmtree(folder)
    (root / "usr/bin").mkdir()
    shutil.copy(_DEBIAN / "carom", root / "usr/bin/carom")
    (root / "usr/bin/carom").chmod(0o755)
    documents = root / "usr/share/doc/carom"
    documents.mkdir(parents=True)
    shutil.copy(_DEBIAN / "copyright", documents)
    changes = (deploy.SOURCE / "CHANGELOG.md").read_bytes()
    (documents / "changelog.gz").write_bytes(gzip.compress(changes, mtime=0))
    deploy.run_module("carom.manual", root / "usr/share", failed="there is no manual page")
    _place(root / "usr/share/doc/carom/examples", "carom.toml")
    _place(root / "usr/lib/systemd/system", "carom.service")
    (root / "etc/carom").mkdir(parents=True)
    control = root / "DEBIAN"
    control.mkdir()
    for script in ("postinst", "prerm", "postrm"):
        shutil.copy(_DEBIAN / script, control)
        (control / script).chmod(0o755)
    files = sorted(path for path in (root / "usr").rglob("*") if path.is_file())
    size = sum(path.stat().st_size for path in files) // 1024
    text = (_DEBIAN / "control").read_text()
    (control / "control").write_text(
        text.format(version=__version__, architecture=architecture, size=size)
    )
    (control / "md5sums").write_text("".join(_sum(path, root) for path in files))
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
            os.utime(path, (deploy.packaged_at(),) * 2)


def _place(folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(_DEBIAN / name, folder)


def _sum(path: Path, root: Path) -> str:
    return f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(root)}\n"


def packages(folder: Path, kinds: Iterable[str]) -> Iterator[Path]:
    """Make packages of these kinds: wheel, pex, deb. Raises HostError."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        made = deploy.build(Path(scratch), objects=True)
        makers: dict[str, Callable[[], Path]] = {
            "wheel": lambda: Path(shutil.copy(made, folder)),
            "pex": lambda: one_file(folder, made),
            "deb": lambda: debian(folder, made, "amd64"),
        }
        for kind in kinds:
            yield makers[kind]()


def main() -> None:
    """Make packages into a folder, and say which."""
    parser = argparse.ArgumentParser(prog="./run package", description="Make packages of carom.")
    kinds = ("wheel", "pex", "deb")
    parser.add_argument("kinds", nargs="*", metavar="|".join(kinds), help="All, if none is named.")
    parser.add_argument("-o", "--output", type=Path, default=Path("dist"), help="The folder: dist.")
    wanted = parser.parse_args()
    if unknown := set(wanted.kinds) - set(kinds):
        parser.error(f"there is no kind {unknown.pop()!r}: {', '.join(kinds)}")
    try:
        for path in packages(wanted.output, wanted.kinds or kinds):
            print(f"{path}: {path.stat().st_size:,} bytes")
    except HostError as error:
        sys.exit(f"run: {error}")


if __name__ == "__main__":
    main()
