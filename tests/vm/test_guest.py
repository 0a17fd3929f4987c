# SPDX-License-Identifier: Apache-2.0
"""The emulated guest as far as it goes without booting one: `./run test-vm guest` does the rest."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from carom.errors import HostError
from carom.vm.guest import Guest, pack
from vm import guest as step

PYTEST = "python3 -m pytest -p no:cacheprovider "


@pytest.mark.parametrize(
    ("words", "release", "command"),
    [
        ("", "bookworm", PYTEST + "tests/guest"),
        ("-x --release trixie -k bond", "trixie", PYTEST + "tests/guest -x -k bond"),
        ("tests/guest/test_vrf.py -q", "bookworm", PYTEST + "tests/guest/test_vrf.py -q"),
        ("--shell id", "bookworm", "id"),
    ],
)
def test_what_is_run(words: str, release: str, command: str) -> None:
    options = step.parse(words.split())
    assert (options.release, step.command_of(options)) == (release, command)


@pytest.mark.parametrize("words", ["--release sid", "--memory much"])
def test_a_mistake_is_said(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        step.parse(words.split())
    assert ended.value.code == 2
    assert words.split()[1] in capsys.readouterr().err


def test_what_the_guest_is_given(tmp_path: Path) -> None:
    """The script, and files behind their links; a disk is of whole sectors."""
    (tmp_path / "real/__pycache__").mkdir(parents=True)
    (tmp_path / "real/one.py").write_text("1")
    (tmp_path / "real/__pycache__/one.pyc").write_text("code")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/two.py").symlink_to(tmp_path / "real/one.py")
    archive = tmp_path / "work.tar"
    pack(archive, "exit 3", [(tmp_path / "tree", "linked"), (tmp_path / "real", "plain")])
    assert archive.stat().st_size % 4096 == 0
    with tarfile.open(archive) as tar:
        files = {one.name: tar.extractfile(one).read() for one in tar if one.isfile()}  # type: ignore[union-attr]
    assert files == {"script": b"exit 3", "linked/two.py": b"1", "plain/one.py": b"1"}


def test_without_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="not installed") as caught:
        Guest(tmp_path).run("exit 0", [], 1)
    assert "qemu-system-x86" in str(caught.value.hint)
