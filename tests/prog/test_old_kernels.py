# SPDX-License-Identifier: Apache-2.0
"""No program has edges that kernels before 6.8 refuse, whatever kernel this is.

clang lays a loop out one way in one set of options and another in the next: so each set is looked
at that `carom` compiles. Without edge programs, `admit` changes none.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import carom.lab
from carom import protocols
from carom.daemon.fastpath import FastPath
from carom.filters.filter import Filter
from carom.filters.names import PLACES, Place
from carom.kernel.bpf import Module
from carom.kernel.recipe import Recipe
from carom.lab.experiments.ports import ports
from carom.protocols import SPECS
from carom.protocols.spec import Spec
from prog.old_kernels import Instruction, back_edges, programs, refused

KV, MEMCACHED, DNS = map(protocols.spec, ("kv", "memcached", "dns"))
LEARNED = [(one,) for one in SPECS.values() if one.learned]
LAB = Path(str(carom.lab.__file__)).parent

EXIT, PLAIN, CALL = Instruction(0x95), Instruction(0xB7), Instruction(0x85)


def always(offset: int) -> Instruction:
    return Instruction(0x05, offset=offset)


def if_equal(offset: int) -> Instruction:
    return Instruction(0x16, offset=offset)  # of 32 bits


@pytest.mark.parametrize(
    ("program", "wanted"),
    [
        ([PLAIN, if_equal(1), PLAIN, EXIT], []),  # no loop
        ([PLAIN, if_equal(-2), EXIT], []),  # back by a jump with a condition
        ([if_equal(1), always(-2), EXIT], []),  # back by one without
        ([if_equal(2), PLAIN, always(1), PLAIN, if_equal(-2), EXIT], [(3, 4)]),  # on into it
        ([if_equal(2), PLAIN, always(1), CALL, if_equal(-2), EXIT], [(3, 4)]),
        ([PLAIN, Instruction(0x85, registers=0x10, number=-2), EXIT], [(1, 0)]),  # its own caller
    ],
)
def test_a_walk(program: list[Instruction], wanted: list[tuple[int, int]]) -> None:
    assert list(back_edges(program)) == wanted


def test_a_loop_that_is_entered_past_its_head() -> None:
    """As clang makes it of C, and as this kernel may take it."""
    with Module(Recipe(Path(__file__).with_name("back_edge.c"))) as module:
        assert list(programs(module)) == ["by_its_head", "past_its_head"]
        assert list(refused(module)) == ["past_its_head"]


def _named(languages: tuple[Spec, ...]) -> str:
    return "-".join(one.name for one in languages) or "RAW"


@pytest.mark.parametrize("languages", [(), (KV,)], ids=_named)
def test_serve(languages: tuple[Spec, ...]) -> None:
    with FastPath(languages=languages) as fastpath:
        assert not refused(fastpath._module)


@pytest.mark.parametrize("admit", ["always", "second"])
@pytest.mark.parametrize("languages", [*LEARNED, (MEMCACHED, DNS)], ids=_named)
def test_front(languages: tuple[Spec, ...], admit: str) -> None:
    with FastPath(languages=languages, edge=True, admit=admit) as fastpath:
        assert not refused(fastpath._module)


@pytest.mark.parametrize("place", PLACES)
def test_filters(place: Place) -> None:
    with Filter("simple", place, 1) as one:
        assert not refused(one._module)


@pytest.mark.parametrize(
    ("source", "defines"),
    [
        ("tools/again.c", {}),
        ("experiments/ports/demux.c", {"QUEUE": 64}),
        ("experiments/ports/steer.c", {"CPU": 0}),
        ("experiments/ports/concurrency.c", {f"LOOPS_{which}": 1000 for which in ports.PORTS}),
        ("hosts/swap.c", {}),
        ("clients/load.c", {}),
    ],
)
def test_the_labs(source: str, defines: dict[str, int]) -> None:
    defines = {**defines, "FIRST_PORT": ports.FIRST_PORT}
    with Module(Recipe(path := LAB / source, include=(path.parent,), defines=defines)) as module:
        assert programs(module)
        assert not refused(module)
