# SPDX-License-Identifier: Apache-2.0
"""Object files: what is written is read again, by us and by libbpf; what is damaged is refused."""

from __future__ import annotations

import ctypes
import json
import os
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from carom import protocols
from carom.daemon import fastpath
from carom.errors import CompileError, ObjectError
from carom.filters import filter
from carom.filters.names import PLACES
from carom.kernel import bpf, elf, libbpf, objects, oci
from carom.kernel.bpf import Module
from carom.kernel.hashes import Hashes
from carom.kernel.recipe import Recipe
from carom.kernel.timing import timing
from carom.protocols import SPECS
from reference.damage import damaged

SOURCE = Path(__file__).with_name("kept.c")
TIMES = 1000


def small(says: int = 5) -> Recipe:
    """A recipe that is compiled in a second."""
    return Recipe(SOURCE, defines={"SAYS": says}, packaged="small")


@pytest.fixture(scope="module")
def whole() -> bytes:
    """The fast path's object file."""
    return bpf.build(fastpath.recipe())


@pytest.fixture(scope="module")
def file() -> bytes:
    """A small one."""
    return bpf.build(small())


def test_what_is_kept_under_another_name() -> None:
    """The same C, kept before under another name or with another ABI, is labelled anew."""
    for name in ("one", "other"):
        recipe = Recipe(SOURCE, defines={"SAYS": 5}, packaged=name)
        assert elf.label(bpf.build(recipe)).name == name


@pytest.mark.parametrize("place", PLACES)
def test_two_builds_are_equal(
    place: filter.Place, nothing_kept: Path, monkeypatch: pytest.MonkeyPatch, long_form: bool
) -> None:
    recipes = [filter.recipe(place)]
    if long_form:
        recipes.append(fastpath.recipe())
    for recipe in recipes:
        first = bpf.build(recipe)
        monkeypatch.setenv("CAROM_CACHE", str(nothing_kept / "another"))
        assert bpf.build(recipe) == first


def test_what_is_written_is_read(whole: bytes) -> None:
    compiled, label = elf.read(whole)
    assert len(compiled.programs) > 30
    assert compiled.license == "GPL"
    assert {program.hook for program in compiled.programs.values()} > {"xdp", "tc", "cgroup"}
    assert elf.write(compiled, label) == whole


def test_every_map_has_a_name_for_its_kind(whole: bytes) -> None:
    """In the labels of an image, of which bpfman's tools show a list."""
    filters = (bpf.build(filter.recipe(place)) for place in PLACES)
    for file in (whole, *filters):
        compiled, _ = elf.read(file)
        labels = oci.labels(compiled)
        programs = json.loads(labels["io.ebpf.programs"])
        maps = json.loads(labels["io.ebpf.maps"])
        assert (programs.keys(), maps.keys()) == (compiled.programs.keys(), compiled.maps.keys())
        assert "unspec" not in maps.values()


class Stock:
    """libbpf's own loader."""

    def __init__(self, file: bytes):
        self._library = library = ctypes.CDLL("libbpf.so.1", use_errno=True)
        for name, result in (
            ("bpf_object__open_mem", ctypes.c_void_p),
            ("bpf_object__next_map", ctypes.c_void_p),
            ("bpf_object__find_map_by_name", ctypes.c_void_p),
            ("bpf_object__find_program_by_name", ctypes.c_void_p),
            ("bpf_map__initial_value", ctypes.c_void_p),
        ):
            getattr(library, name).restype = result
        self._file = ctypes.create_string_buffer(file, len(file))
        self._object = ctypes.c_void_p(
            library.bpf_object__open_mem(self._file, ctypes.c_size_t(len(file)), None)
        )
        assert self._object.value, os.strerror(ctypes.get_errno())

    def say(self, section: str, data: bytes) -> None:
        """Put data into a section of constants."""
        found = self._library.bpf_object__find_map_by_name(self._object, section.encode())
        assert found
        shape = self._library.bpf_map__set_initial_value
        assert not shape(ctypes.c_void_p(found), data, ctypes.c_size_t(len(data)))

    def load(self) -> int:
        """Make all maps, and load all programs."""
        return int(self._library.bpf_object__load(self._object))

    def program(self, name: str) -> int:
        """A program's descriptor."""
        found = self._library.bpf_object__find_program_by_name(self._object, name.encode())
        return int(self._library.bpf_program__fd(ctypes.c_void_p(found)))

    def close(self) -> None:
        """Free them all."""
        self._library.bpf_object__close(self._object)


@pytest.fixture
def stock() -> Iterator[Callable[[bytes], Stock]]:
    made: list[Stock] = []

    def make(file: bytes) -> Stock:
        made.append(Stock(file))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_libbpf_loads_the_fast_path(whole: bytes, stock: Callable[[bytes], Stock]) -> None:
    """All programs and maps, with parameters as for every protocol, by `.rodata`."""
    parameters = {
        **timing(250),
        **Hashes().parameters,
        "languages": protocols.bits(SPECS.values()),
        "counted": 1,
        "tc_first": 1,
        "max_hits": 1,
        "shadow": 1,
        "dry": 0,
        "noted": 0,
        "in_order": 0,
    }
    loaded = stock(whole)
    names = fastpath.recipe().source().parameters()
    loaded.say(".rodata", b"".join(struct.pack("<Q", parameters[name]) for name in names))
    assert loaded.load() == 0
    assert libbpf.test_run(loaded.program("read_clock"), bytes(64)).retval == libbpf.XDP_PASS


def test_libbpf_runs_what_we_write(file: bytes, stock: Callable[[bytes], Stock]) -> None:
    """Without the program that the verifier refuses."""
    compiled, label = elf.read(file)
    programs = {n: one for n, one in compiled.programs.items() if n != "reads_too_far"}
    loaded = stock(elf.write(msgspec.structs.replace(compiled, programs=programs), label))
    assert loaded.load() == 0
    assert libbpf.test_run(loaded.program("says"), bytes(64)).retval == 5


def test_damaged_files_are_refused(file: bytes) -> None:
    chance = random.Random(16)
    for number in range(TIMES):
        wrong = damaged(file, chance)
        if wrong == file:
            continue
        with pytest.raises(elf.Foreign) as refusal:
            elf.read(wrong)
        assert str(refusal.value), number


def test_forged_files_are_refused_or_whole(file: bytes) -> None:
    """With a checksum that is right. Whoever may load programs may load any: no error is ours."""
    chance, read = random.Random(17), 0
    for _ in range(TIMES):
        wrong = damaged(file, chance)
        try:
            at, _ = elf.Reader(wrong).note()
            wrong = elf._sealed(wrong, at)
        except elf.BROKEN:
            continue
        try:
            compiled, _ = elf.read(wrong)
        except elf.Foreign:
            continue
        read += 1
        for program in compiled.programs.values():
            assert program.maps.keys().isdisjoint(program.parameters)
            said = dict.fromkeys(program.parameters.values(), 0)
            program.linked(dict.fromkeys(compiled.maps, 3), said)
    assert read > 100


FOREIGN: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "no object file"),
    "a text": (b"#!/bin/sh\n", "no object file"),
    "a program of this machine": (Path("/bin/true").read_bytes(), "another machine"),
    "the beginning of one": (b"\x7fELF\2\1\1", "another machine"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files(name: str) -> None:
    data, why = FOREIGN[name]
    with pytest.raises(elf.Foreign, match=why):
        elf.read(data)


def put(folder: Path, name: str, file: bytes) -> Path:
    """A file in a folder."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.o"
    path.write_bytes(file)
    return path


def says(recipe: Recipe) -> int:
    """What the loaded program says."""
    with Module(recipe, parameters=Hashes().parameters) as module:
        return libbpf.test_run(module.program("says"), bytes(64)).retval


def relabelled(file: bytes, **changes: str) -> bytes:
    """The same programs, with another label."""
    compiled, label = elf.read(file)
    return elf.write(compiled, msgspec.structs.replace(label, **changes))


class TestWhereItComesFrom:
    """Said by the user, or packaged and of the same sources, or else compiled."""

    @pytest.fixture(autouse=True)
    def folder(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: bytes, nothing_kept: Path
    ) -> Path:
        """Where packaged files are; nothing can be compiled, and nothing was."""

        def compile(_: object) -> None:
            raise CompileError("compiled anew")

        monkeypatch.setattr(objects, "PACKAGED", tmp_path / "packaged")
        monkeypatch.setattr("carom.kernel.compiler.Source.compile", compile)
        return tmp_path / "packaged"

    def test_nothing(self) -> None:
        with pytest.raises(CompileError, match="compiled anew"):
            says(small())

    def test_packaged(self, folder: Path, file: bytes) -> None:
        put(folder, "small", file)
        assert says(small()) == 5

    def test_packaged_of_other_sources(self, folder: Path, file: bytes) -> None:
        """Whoever edits the C gets what he wrote."""
        put(folder, "small", file)
        with pytest.raises(CompileError, match="compiled anew"):
            says(small(6))

    def test_packaged_and_damaged(self, folder: Path, file: bytes) -> None:
        path = put(folder, "small", file[:-10])
        with pytest.raises(ObjectError, match=f"{path} cannot be loaded"):
            says(small())

    @pytest.mark.parametrize("form", ["file", "folder", "layout"])
    def test_said(
        self, tmp_path: Path, file: bytes, monkeypatch: pytest.MonkeyPatch, form: str
    ) -> None:
        """It is taken though the sources are others."""
        path = put(tmp_path / "said", "small", file)
        oci.write(tmp_path / "layout", oci.pack([file]))
        forms = {"file": path, "folder": path.parent, "layout": tmp_path / "layout"}
        monkeypatch.setenv(objects.CHOSEN, str(forms[form]))
        assert says(small(6)) == 5

    def test_said_and_of_another_name(
        self, tmp_path: Path, folder: Path, file: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another one's file does not stand for this; what comes with carom does."""
        path = put(tmp_path / "said", "other", relabelled(file, name="other"))
        monkeypatch.setenv(objects.CHOSEN, str(path))
        put(folder, "small", file)
        assert says(small()) == 5

    def test_of_another_abi(
        self, tmp_path: Path, file: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = put(tmp_path / "said", "small", relabelled(file, abi="0" * 64, version="0.0.9"))
        monkeypatch.setenv(objects.CHOSEN, str(path))
        with pytest.raises(ObjectError) as refusal:
            says(small())
        for word in (str(path), "0.0.9", "0" * 12, objects.abi()[:12]):
            assert word in str(refusal.value)

    def test_a_program_that_it_has_not(
        self, tmp_path: Path, file: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        compiled, label = elf.read(file)
        fewer = msgspec.structs.replace(compiled, programs={})
        monkeypatch.setenv(
            objects.CHOSEN, str(put(tmp_path / "said", "small", elf.write(fewer, label)))
        )
        with pytest.raises(bpf.BPFError, match="has no program says"):
            says(small())
