# SPDX-License-Identifier: Apache-2.0
"""A control socket of another user than root lies where nobody else can put one."""

from __future__ import annotations

import os
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
