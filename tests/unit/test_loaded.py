# SPDX-License-Identifier: Apache-2.0
"""loaded.h: what the loader writes of the protocols that programs are to know."""

from __future__ import annotations

import dataclasses
import re

import pytest

from carom.protocols import SPECS, headers
from carom.protocols.loaded import CONTRACT, bits, loaded
from carom.protocols.spec import RequestId, Spec, Stream

WHOLE = [one for one in SPECS.values() if one.whole_key]
LEARNED = [one for one in SPECS.values() if one.learned]
STREAM = next(one for one in LEARNED if one.stream is Stream.COMMANDS)


def other(spec: Spec, **changes: object) -> Spec:
    """A protocol that is like another, with a number and a name of its own."""
    return dataclasses.replace(spec, **{"name": "other", "number": 200} | changes)  # type: ignore[arg-type]


def defined(text: str, name: str) -> str:
    """What a macro stands for."""
    found = re.search(rf"^#define {name}(?:\([^)]*\))? ?(.*)$", text, re.MULTILINE)
    assert found, name
    return found[1]


def test_nothing_but_what_is_loaded_is_there() -> None:
    text = headers()["loaded.h"]
    assert "#include" not in text
    assert all(not defined(text, f"HAVE_{one}") for one in CONTRACT)
    assert defined(text, "WHOLE_KEYS") == f"{bits(WHOLE):#x}ull"


@pytest.mark.parametrize("spec", LEARNED, ids=lambda one: one.name)
def test_one_protocol(spec: Spec) -> None:
    """A function's list has it if its SPEC names the function."""
    text, name = loaded([spec], WHOLE), spec.name.upper()
    assert f"{name} = {spec.number}" in text
    for function in CONTRACT:
        has = f"CASE({name}, {spec.name}, __VA_ARGS__)" in defined(text, f"HAVE_{function}")
        assert has == (function in spec.functions)
    assert defined(text, f"{name}_REQUEST_MAX") == str(spec.request_max)
    assert defined(text, f"{name}_ID_AT") == str(spec.id.at)
    assert ("u64 id_word" in text) == (spec.id.size > 2)


def test_lists_are_in_the_order_of_numbers() -> None:
    """The switches rely on that: the last one is taken without a comparison."""
    more = other(STREAM, number=63)
    text = loaded([more, STREAM], WHOLE)
    names = ((STREAM.name.upper(), STREAM.name), ("OTHER", "other"))
    both = " ".join(f"CASE({upper}, {name}, __VA_ARGS__)" for upper, name in names)
    assert defined(text, "EACH_LEARNED") == defined(text, "HAVE_stream_read") == both
    assert defined(text, "EVERY_LEARNED") == f"{bits([STREAM, more]):#x}ull"
    assert bits([STREAM, more]) == 1 << STREAM.number | 1 << 63


def test_ids_of_any_size_get_a_word_that_takes_them() -> None:
    assert "typedef u16 id_word;" in loaded([STREAM], WHOLE)
    assert "typedef u64 id_word;" in loaded(
        [STREAM, other(STREAM, id=RequestId(4, 8, True))], WHOLE
    )


@pytest.mark.parametrize(
    "functions",
    [
        (*STREAM.functions, "nothing"),
        tuple(one for one in STREAM.functions if one != "stream_read"),
        (*STREAM.functions, "cookie"),
    ],
    ids=["unknown", "a part of a stream", "a part of cookies"],
)
def test_what_a_spec_cannot_say(functions: tuple[str, ...]) -> None:
    with pytest.raises(AssertionError):
        loaded([dataclasses.replace(STREAM, functions=functions)], WHOLE)


def test_numbers_and_ports_are_the_protocols_own() -> None:
    specs = SPECS.values()
    assert len({one.number for one in specs}) == len(specs)
    assert all(0 <= one.number < 64 for one in specs)
    assert all(one.port for one in specs if one.learned)
    assert all(one.why_not_learned for one in specs if not one.learned)
