# SPDX-License-Identifier: Apache-2.0
"""Clang without BCC: of the same C it makes the same programs and maps, and says more of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from carom.daemon import fastpath
from carom.daemon.fastpath import FastPath
from carom.errors import CompileError, VerifierError
from carom.filters import filter
from carom.filters.names import PLACES
from carom.kernel import bpf, btf, elf, forked, kept, libbpf
from carom.kernel.bpf import Module
from carom.kernel.compiled import Compiled
from carom.kernel.compiler import BCC
from carom.kernel.hashes import Hashes
from carom.kernel.recipe import CHOSEN, Recipe
from carom.kernel.timing import timing
from carom.protocols import SPECS

TESTS = Path(__file__).parent
SOURCE = TESTS / "kept.c"
CLANG = os.environ.get(CHOSEN) or "clang"
RECIPES = {"fastpath": fastpath.recipe()} | {
    f"filters-{place}": filter.recipe(place) for place in PLACES
}
AGAIN, AGAIN_LONG = ("bounce", "memcached"), ("cache", "coap", "dns", "filters", "socket_edge")
"""Files of tests that run on its programs, too, and more with --long. All do so by
`CAROM_COMPILER=clang ./run test tests/prog`."""

pytestmark = pytest.mark.skipif(not shutil.which(CLANG), reason=f"there is no {CLANG}")


@pytest.fixture(autouse=True)
def chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is compiled here is compiled by clang."""
    monkeypatch.setenv(CHOSEN, CLANG)


def small(says: int = 5) -> Recipe:
    """A recipe that is compiled in no time."""
    return Recipe(SOURCE, defines={"SAYS": says}, packaged="small")


def made(recipe: Recipe, compiler: str) -> Compiled:
    """What a compiler makes of it."""
    return elf.read(bpf.build(recipe, recipe.source(compiler)))[0]


@pytest.mark.parametrize("name", RECIPES)
def test_it_makes_what_bcc_makes(name: str) -> None:
    """The maps are alike, but for the types that are known; the programs are at the same hooks."""
    ours, bccs = (made(RECIPES[name], compiler) for compiler in (CLANG, BCC))
    assert "clang" in ours.compiler
    assert "libbcc" in bccs.compiler
    assert {n: shape[:5] for n, shape in ours.maps.items()} == {
        n: shape[:5] for n, shape in bccs.maps.items()
    }
    assert {n: one.hook for n, one in ours.programs.items()} == {
        n: one.hook for n, one in bccs.programs.items()
    }
    assert ours.license == bccs.license


def test_every_program_loads() -> None:
    with FastPath(languages=list(SPECS.values()), edge=True) as loaded:
        module = loaded._module
        assert all(module.program(name) for name in module.programs())
    for place in PLACES:
        with Module(filter.recipe(place), parameters=timing(250)) as module:
            assert all(module.program(name) for name in module.programs())


def test_two_builds_are_equal(nothing_kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bpf.build(filter.recipe("xdp"))
    monkeypatch.setenv("CAROM_CACHE", str(nothing_kept / "another"))
    assert bpf.build(filter.recipe("xdp")) == first
    assert os.fsencode(Path.cwd()) not in first
    assert b"carom-" not in first  # the folder that it was made in


def test_no_compiler_takes_anothers() -> None:
    """Of the same C: what one made is not what the other one would."""
    by_bcc, by_clang = (bpf.build(small(), small().source(one)) for one in (BCC, CLANG))
    for compiler, file in ((BCC, by_bcc), (CLANG, by_clang)):
        assert kept.take(small().source(compiler).name) == (file, elf.label(file))
    assert by_bcc != by_clang


def test_a_refusal_shows_lines_of_c() -> None:
    with pytest.raises(VerifierError) as refusal, Module(small()) as module:
        module.program("reads_too_far")
    assert "; return *(int *)(long)context->data;" in str(refusal.value.details)


def test_lines_are_of_all_files() -> None:
    """Of headers, too, whose functions are inlined."""
    compiled, found = made(RECIPES["fastpath"], CLANG), set[str]()
    for program in compiled.programs.values():
        assert program.origin
        numbers = {file for _, file, _, _ in libbpf.LINE_INFO.iter_unpack(program.origin.lines)}
        files = {btf.name(compiled.btf, number) for number in numbers}
        assert any(file.endswith(".c") for file in files)
        assert all(file.startswith("./") for file in files)
        found |= files
    assert {"./include/parse.h", "./cgroup/stream.h", "./dns/dns.h"} < found


def test_what_it_refuses() -> None:
    """The first error is named with its file, as it is here."""
    with pytest.raises(CompileError, match=r"prog/kept.c:11:\d+: error: use of undeclared") as said:
        made(Recipe(SOURCE, defines={"SAYS": "nothing_of_that_name"}), CLANG)
    assert "return SAYS;" in str(said.value.details)


def test_it_is_not_there() -> None:
    with pytest.raises(CompileError, match="there is no clang-of-nobodys"):
        made(small(), "clang-of-nobodys")


def test_functions_that_stay_functions(tmp_path: Path) -> None:
    """One that is called and not inlined would be a program of its own: carom has no such."""
    source = tmp_path / "calls.c"
    source.write_text(
        "static __attribute__((noinline)) int more(struct xdp_md *context)\n"
        '{ asm volatile(""); return context->data; }\n'
        "int calls(struct xdp_md *context) { return more(context) + 1; }\n"
    )
    with pytest.raises(CompileError, match=r"what clang.* made cannot be loaded"):
        made(Recipe(source), CLANG)


def test_it_needs_no_privilege(nothing_kept: Path) -> None:
    os.seteuid(65534)
    try:
        file = bpf.build(small(3))
    finally:
        os.seteuid(0)
    compiled, label = elf.read(file)
    assert "clang" in label.compiler
    code = compiled.programs["says"].linked({}, Hashes().parameters)
    program = libbpf.load_program(libbpf.Loadable(libbpf.PROG_TYPE_XDP, "says", code, "GPL", 0))
    try:
        assert libbpf.test_run(program, bytes(64)).retval == 3
    finally:
        forked.close(program)


@pytest.mark.slow
@pytest.mark.skipif(CHOSEN in os.environ, reason=f"{CHOSEN} says it for all tests")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", [*AGAIN, *AGAIN_LONG])
def test_the_same_tests_pass(name: str, tmp_path: Path, long_form: bool) -> None:
    if name in AGAIN_LONG and not long_form:
        pytest.skip("with --long")
    file = TESTS / f"test_{name}.py"
    said = {"CAROM_RUN": str(tmp_path / "run"), "CAROM_CACHE": str(kept.folder())}
    inherited = {n: value for n, value in os.environ.items() if not n.startswith("PYTEST_")}
    run = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-q", "-n", "0", "-m", "not slow", str(file)],
        cwd=TESTS.parent.parent,
        env=inherited | said,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not run.returncode, run.stdout[-5000:] + run.stderr[-2000:]
