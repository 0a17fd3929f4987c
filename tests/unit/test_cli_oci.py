# SPDX-License-Identifier: Apache-2.0
"""`carom pack` and `carom programs`: image layouts by the command line, without root."""

from __future__ import annotations

import filecmp
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from carom import __version__
from unit.commands import Commands, Done
from unit.layouts import small


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """For commands by the dozen."""
    with Commands(tmp_path_factory.mktemp("said")) as commands:
        yield commands


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two object files."""
    folder = tmp_path / "objects"
    folder.mkdir()
    for name in ("fast", "slow"):
        (folder / f"{name}.o").write_bytes(small(name))
    return folder


def packed(commands: Commands, folder: Path, to: Path, *more: str) -> Done:
    return commands.run("pack", str(to), "--programs", str(folder), *more)


def refused(done: Done, code: int, *words: str) -> None:
    """In a message of one line and a hint, and without a traceback."""
    assert (done.returncode, done.stdout) == (code, ""), done
    assert done.stderr.startswith("carom: ")
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def equal(one: Path, other: Path) -> bool:
    """Two folders, byte for byte."""
    files = [
        sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
        for root in (one, other)
    ]
    _, different, wrong = filecmp.cmpfiles(one, other, files[0], shallow=False)
    return files[0] == files[1] and not different and not wrong


def test_two_packs_are_equal(commands: Commands, folder: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        done = packed(commands, folder, tmp_path / name)
        assert (done.returncode, done.stderr) == (0, "")
    assert equal(tmp_path / "first", tmp_path / "second")
    tags = [line.split() for line in done.stdout.splitlines()]
    assert [tag for tag, _ in tags] == [__version__, f"{__version__}-fast", f"{__version__}-slow"]
    for _, digest in tags:
        assert (tmp_path / "first/blobs" / digest.replace(":", "/")).exists()


def test_a_layout_packs_to_the_same(commands: Commands, folder: Path, tmp_path: Path) -> None:
    packed(commands, folder, tmp_path / "first")
    done = packed(commands, tmp_path / "first", tmp_path / "second")
    assert done.returncode == 0, done.stderr
    assert equal(tmp_path / "first", tmp_path / "second")


def test_an_empty_folder_is_taken(commands: Commands, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert packed(commands, folder, tmp_path / "empty").returncode == 0
    assert packed(commands, folder, tmp_path / "a/new/one", "--json").returncode == 0
    assert os.stat(tmp_path / "a/new/one").st_mode & 0o777 == 0o777 & ~umask()


def umask() -> int:
    """This process' own."""
    os.umask(mask := os.umask(0o022))
    return mask


@pytest.mark.parametrize("what", ["a file", "a folder with a file"])
def test_nothing_is_overwritten(
    commands: Commands, folder: Path, tmp_path: Path, what: str
) -> None:
    to = folder / "fast.o" if what == "a file" else folder
    refused(packed(commands, folder, to), 2, "is there already", "another folder")
    assert sorted(os.listdir(folder)) == ["fast.o", "slow.o"]
    assert (folder / "fast.o").read_bytes() == small("fast")


def test_packing_what_is_no_object(commands: Commands, folder: Path, tmp_path: Path) -> None:
    (folder / "slow.o").write_bytes(small("slow")[:-5])
    refused(packed(commands, folder, tmp_path / "to"), 1, f"{folder}/slow.o cannot be loaded")
    (folder / "slow.o").write_bytes(small("slow", "0.0.9"))
    refused(packed(commands, folder, tmp_path / "to"), 1, "of one version", "0.0.9")
    refused(packed(commands, tmp_path / "none", tmp_path / "to"), 1, "cannot be read")
    assert not (tmp_path / "to").exists()


def test_programs_shows_a_layout(commands: Commands, folder: Path, tmp_path: Path) -> None:
    packed(commands, folder, tmp_path / "layout")
    shown = json.loads(commands.run("programs", str(tmp_path / "layout"), "--json").stdout)
    plain = json.loads(commands.run("programs", str(folder), "--json").stdout)
    assert [one.pop("file") for one in shown] == [
        f"{tmp_path}/layout: fast.o",
        f"{tmp_path}/layout: slow.o",
    ]
    for one in plain:
        del one["file"]
    assert shown == plain
    done = commands.run("programs", "-l", str(tmp_path / "layout"))
    assert f"{tmp_path}/layout: fast.o\n" in done.stdout
    assert "xdp: one (2)" in done.stdout


@pytest.mark.parametrize("command", [("programs",), ("serve", "-i", "none0", "--programs")])
def test_a_damaged_layout(
    commands: Commands, folder: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    root = tmp_path / "layout"
    packed(commands, folder, root)
    blob = max((root / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    data = blob.read_bytes()
    blob.write_bytes(data[:-1] + bytes((data[-1] ^ 1,)))
    done = commands.run(*command, str(root))
    refused(done, 1, f"{root} cannot be loaded: blobs/sha256/{blob.name} is damaged")
