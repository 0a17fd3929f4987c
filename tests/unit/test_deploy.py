# SPDX-License-Identifier: Apache-2.0
"""What a deployed carom is called follows from all that it is made of, and from nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from carom import __version__
from carom.errors import HostError
from carom.vm import deploy

ROOMS = "[options]\npackage_dir =\n    carom = carom\n    carom.xdp = xdp\n\n[other]\nx = y\n"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small repository of two rooms."""
    monkeypatch.setattr(deploy, "SOURCE", tmp_path)
    (tmp_path / "setup.cfg").write_text(ROOMS)
    for room in ("carom", "xdp"):
        (tmp_path / room / "deep").mkdir(parents=True)
        (tmp_path / room / "deep" / "one.c").write_text("int one;")
    return tmp_path


def test_the_same_source_has_the_same_name(source: Path) -> None:
    assert deploy.label() == deploy.label()
    assert deploy.label().startswith(f"{__version__}-")


@pytest.mark.parametrize(
    "change",
    [
        lambda source: (source / "xdp/deep/one.c").write_text("int two;"),
        lambda source: (source / "xdp/deep/one.c").rename(source / "xdp/deep/two.c"),
        lambda source: (source / "carom/new.py").touch(),
        lambda source: (source / "setup.cfg").write_text(ROOMS + "z = 1\n"),
        lambda source: (source / "LICENSE").touch(),
    ],
    ids=["text", "name", "new", "setup.cfg", "beside"],
)
def test_another_source_has_another(source: Path, change: object) -> None:
    before = deploy.label()
    change(source)  # type: ignore[operator]
    assert deploy.label() != before


def test_what_is_not_of_the_wheel_does_not_count(source: Path) -> None:
    before = deploy.label()
    for path in ("results/one.json", "xdp/__pycache__/x.pyc", "carom/.hidden", "notes.txt"):
        (source / path).parent.mkdir(exist_ok=True)
        (source / path).touch()
    assert deploy.label() == before


def test_no_source(source: Path) -> None:
    (source / "setup.cfg").unlink()
    with pytest.raises(HostError, match="no source here"):
        deploy.label()
