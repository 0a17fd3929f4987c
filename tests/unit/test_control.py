# SPDX-License-Identifier: Apache-2.0
"""A control socket of another user than root lies where nobody else can put one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from carom.daemon import control
from carom.errors import ControlError

UID = 987_654
"""Of nobody, most likely."""


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(os, "geteuid", lambda: UID)
    for name in ("CAROM_RUN", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    folder = Path(f"/tmp/carom-{UID}")
    assert not folder.exists()
    yield folder
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        folder.rmdir()


def test_of_its_own(folder: Path) -> None:
    assert control.directory() == folder
    folder.mkdir(mode=0o700)
    if os.getuid() == 0:
        os.chown(folder, UID, UID)
        assert control.directory() == folder
        folder.chmod(0o777)
    with pytest.raises(ControlError, match="belongs to somebody else, or others may write"):
        control.directory()


def test_a_link(folder: Path, tmp_path: Path) -> None:
    folder.symlink_to(tmp_path)
    for ask in (control.directory, control.running, lambda: control.call("status", 1)):
        with pytest.raises(ControlError):
            ask()


def test_by_the_environment(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert control.directory() == tmp_path / "carom"
    monkeypatch.setenv("CAROM_RUN", "/elsewhere")
    assert control.directory() == Path("/elsewhere")


def test_none_of_this_user(folder: Path) -> None:
    with pytest.raises(ControlError, match="no carom of this user") as raised:
        control.call("status")
    assert "root's are seen by root alone: sudo carom" in (raised.value.hint or "")


def test_a_folder_of_another_user(tmp_path: Path) -> None:
    """A process of its own asks: this one, root's, may look everywhere."""
    words = "import sys; sys.path[:] = " + repr(sys.path) + "; "
    words += "import os; from carom.daemon import control; "
    words += "os.setgroups([]); os.setuid(65534); control.call('status')"
    tmp_path.chmod(0o700)
    environment = {**os.environ, "CAROM_RUN": str(tmp_path)}
    asked = subprocess.run(
        [sys.executable, "-c", words], env=environment, capture_output=True, text=True
    )
    assert f"ControlError: this user may not look at the caroms of {tmp_path}" in asked.stderr


def test_a_path_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAROM_RUN", str(tmp_path / ("x" * 120)))
    with pytest.raises(ControlError, match="path too long"):
        control.Control({})


def test_one_that_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes in no more who ask it: it is there all the same, and nobody waits for ever."""
    monkeypatch.setenv("CAROM_RUN", str(tmp_path))
    with socket.socket(socket.AF_UNIX) as stopped:
        stopped.bind(str(tmp_path / "77.sock"))
        stopped.listen(0)
        for _ in range(3):
            assert control.running() == [77]
        with pytest.raises(ControlError, match="carom 77 does not answer: it takes in nobody"):
            control.call("status", timeout=0.1)
    assert control.running() == []
    assert not (tmp_path / "77.sock").exists()
