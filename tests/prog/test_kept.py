# SPDX-License-Identifier: Apache-2.0
"""What is compiled once and loaded more often: the same programs, with secrets of each start."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from carom.daemon.fastpath import FastPath
from carom.errors import BPFError, CompileError
from carom.kernel import forked, kept, libbpf
from carom.kernel.bpf import Module
from carom.kernel.compiler import BCC, COMPILER
from carom.kernel.hashes import Hashes
from carom.kernel.recipe import CHOSEN, Recipe
from carom.protocols import SPECS

SOURCE = Path(__file__).with_name("kept.c")


@pytest.fixture(autouse=True)
def folder(nothing_kept: Path) -> Path:
    """Where it is kept, which is not there yet."""
    assert not kept.folder().exists()
    return kept.folder()


def loaded(**defines: str | int | None) -> int:
    """What the program says that begins and ends with these defines."""
    with Module(Recipe(SOURCE, defines={"SAYS": 1, **defines})) as module:
        return libbpf.test_run(module.program("says"), bytes(64)).retval


def cannot_compile() -> None:
    """No clang could run here."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (taken,) = (int(line.split()[1]) << 10 for line in lines if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (taken + COMPILER // 2, resource.RLIM_INFINITY))


def test_nothing_is_compiled_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that clang has no room in loads what another has compiled, and nothing else."""
    monkeypatch.setenv(CHOSEN, BCC)
    code = "import prog.test_kept as one; one.cannot_compile(); print(one.loaded(SAYS={}))"

    def run(says: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-c", code.format(says)],
            env={**os.environ, "PYTHONPATH": str(SOURCE.parent.parent)},
            capture_output=True,
            text=True,
            check=False,
        )

    assert "the compiler needs" in run(7).stderr
    assert loaded(SAYS=7) == 7
    assert run(7).stdout == "7\n"
    assert "the compiler needs" in run(8).stderr


def shapes(module: Module) -> dict[str, object]:
    """What the kernel says of a module's maps, and how many instructions it walked."""
    maps = {name: libbpf.map_shape(fd)[0] for name, fd in module._maps.items()}
    walked = {name: libbpf.verified_instructions(fd) for name, fd in module._programs.items()}
    return maps | walked


def test_maps_and_programs_are_the_same(folder: Path) -> None:
    """Of what was compiled just now, and of what was kept."""
    with FastPath(languages=(SPECS["dns"],), edge=True) as fastpath:
        compiled = shapes(fastpath._module)
    assert len(list(folder.iterdir())) == 1
    with FastPath(languages=(SPECS["dns"],), edge=True) as fastpath:
        assert shapes(fastpath._module) == compiled
    assert len(list(folder.iterdir())) == 1
    assert len(compiled) > 20


def test_what_is_kept_has_no_secret(folder: Path) -> None:
    hashes = Hashes()
    for _ in range(2):
        with Module(Recipe(SOURCE, defines={"SAYS": 1}), parameters=hashes.parameters) as module:
            program = module._compiled.programs["hashes"]
            maps = {name: module.map(name) for name in program.maps.values()}
            loaded = program.linked(maps, hashes.parameters)
            libbpf.test_run(module.program("hashes"), bytes(64))
        (file,) = folder.iterdir()
        for secret in hashes.parameters.values():
            halves = (
                (secret & 0xFFFFFFFF).to_bytes(4, "little"),
                (secret >> 32).to_bytes(4, "little"),
            )
            assert all(half in loaded and half not in file.read_bytes() for half in halves)
        hashes = Hashes()


WRONG: dict[str, Callable[[Path], object]] = {
    "a folder that others may write to": lambda folder: folder.chmod(0o775),
    "a folder that all may write to": lambda folder: folder.chmod(0o1777),
    "a folder of somebody else's": lambda folder: os.chown(folder, 65534, 65534),
    "a file that was cut": lambda folder: os.truncate(next(folder.iterdir()), 100),
    "an empty file": lambda folder: os.truncate(next(folder.iterdir()), 0),
    "a file in its place": lambda folder: (folder.rename(f"{folder}.away"), folder.touch()),
    "a link in its place": lambda folder: (
        folder.rename(f"{folder}.away"),
        folder.symlink_to(f"{folder}.away"),
    ),
}


@pytest.mark.parametrize("spoil", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_compiled_anew(spoil: Callable[[Path], object], folder: Path) -> None:
    assert loaded(SAYS=2) == 2
    taken = [kept.take(one.name) for one in folder.iterdir()]
    assert None not in taken
    names = [one.name for one in folder.iterdir()]
    spoil(folder)
    assert [kept.take(one) for one in names] == [None]
    assert loaded(SAYS=2) == 2


def test_a_user_takes_what_root_has_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """And keeps nothing."""
    with tempfile.TemporaryDirectory(dir="/run") as folder:
        os.chmod(folder, 0o755)
        monkeypatch.setenv("CAROM_CACHE", f"{folder}/compiled")
        assert loaded(SAYS=9) == 9
        (file,) = kept.folder().iterdir()
        os.seteuid(65534)
        try:
            taken = kept.take(file.name)
            assert taken
            kept.keep("0" * 64, taken[0])
        finally:
            os.seteuid(0)
        assert list(kept.folder().iterdir()) == [file]


def test_what_is_refused_is_refused_again() -> None:
    """By the kernel, in the same words."""
    said = []
    for _ in range(2):
        with (
            pytest.raises(BPFError) as refusal,
            Module(Recipe(SOURCE, defines={"SAYS": 1})) as module,
        ):
            module.program("reads_too_far")
        said.append((str(refusal.value), refusal.value.details))
    assert said[0] == said[1]
    assert "reads_too_far" in said[0][0]
    assert "processed" in str(said[0][1])


def test_what_clang_refuses_is_not_kept(folder: Path) -> None:
    with pytest.raises(CompileError):
        loaded(SAYS="nothing_of_that_name")
    assert not list(folder.iterdir()) if folder.exists() else True


def test_no_more_than_some_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not taken for longest goes first."""
    monkeypatch.setattr(kept, "_FILES", 2)

    def names() -> set[str]:
        time.sleep(0.02)  # more than a tick of what times of files are counted in
        return {one.name for one in folder.iterdir()}

    assert loaded(SAYS=3) == 3
    first = names()
    assert loaded(SAYS=4) == 4
    both = names()
    assert loaded(SAYS=3) == 3
    assert loaded(SAYS=5) == 5
    assert first < names() != both
    assert len(names()) == 2


@pytest.fixture
def open_files() -> Iterator[None]:
    """No descriptor stays behind."""
    before = set(os.listdir("/proc/self/fd")), set(forked._descriptors)
    yield
    assert (set(os.listdir("/proc/self/fd")), forked._descriptors) == before


def test_a_map_that_the_kernel_refuses(open_files: None) -> None:
    """Nothing is left open."""
    with Module(Recipe(SOURCE, defines={"SAYS": 1})) as module:
        compiled = module._compiled
        compiled.maps["cells"] = compiled.maps["cells"]._replace(key_size=3)
        with pytest.raises(BPFError, match=r"refused map cells of .*kept.c: Invalid argument"):
            module.map("cells")
