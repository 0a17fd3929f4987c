# SPDX-License-Identifier: Apache-2.0
"""The line of each value of a TOML text, whatever way it is written."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from carom.toml_lines import NotTOML, Path, located, written

TEXT = """\
# a comment = 1
a = 1 # [b]
b."c d".'e' = \"\"\"x
= [
y\"\"\"\"\"

list = [ 1,
  "]", # ]
  [1979-05-27 07:32:00, 3.14], {x = 1, y.z = [2]},
]
[t.u]\r
k = '''
'''
[[service]]
port = 1
[service.inner]
q = "\\"]"
[[ service ]]
port = 2
[[service.more]]
[[service.more]]
z = []
"""
LINES = {
    "a": 2,
    "b": 3,
    "b.'c d'": 3,
    "b.'c d'.e": 3,
    "list": 7,
    "list[0]": 7,
    "list[1]": 8,
    "list[2]": 9,
    "list[2][0]": 9,
    "list[2][1]": 9,
    "list[3]": 9,
    "list[3].x": 9,
    "list[3].y": 9,
    "list[3].y.z": 9,
    "list[3].y.z[0]": 9,
    "t": 11,
    "t.u": 11,
    "t.u.k": 12,
    "service": 14,
    "service[0]": 14,
    "service[0].port": 15,
    "service[0].inner": 16,
    "service[0].inner.q": 17,
    "service[1]": 18,
    "service[1].port": 19,
    "service[1].more": 20,
    "service[1].more[0]": 20,
    "service[1].more[1]": 21,
    "service[1].more[1].z": 22,
}


def paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """The paths to all values inside one."""
    inner: dict[Any, Any] = {}
    if isinstance(value, dict):
        inner = value
    elif isinstance(value, list):
        inner = dict(enumerate(value))
    for part, one in inner.items():
        yield (*path, part)
        yield from paths(one, (*path, part))


def test_each_way_to_write_it() -> None:
    found = located(TEXT)
    assert {written(path): line for path, line in found.lines.items()} == LINES
    assert found.values == tomllib.loads(TEXT)


STRINGS = some.text(some.characters(exclude_characters="\0\r\x7f", exclude_categories=("Cs", "Cc")))
KEYS = some.one_of(
    some.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True),
    STRINGS.map(lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'),
    STRINGS.map(lambda text: "'" + text.replace("'", "") + "'"),
)
SCALARS = some.one_of(
    some.sampled_from(
        [
            *(
                "1",
                "0x1",
                "+1.5e3",
                "inf",
                "true",
                "1979-05-27",
                "07:32:00.5",
                "1979-05-27 07:32:00Z",
            ),
            *('""', "''", '"#"', "'\\'", '"""\n"""', '"""a""""', '"""a""\\"b\n"""""'),
            *("'''a''''", "'''a\n'b'''''", "1979-05-27T07:32:00-07:00", "1979-05-27 07:32:00Z"),
        ]
    ),
    STRINGS.map(lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'),
)
GAPS = some.sampled_from(["", " ", "\n", " # ],}\n", "\n\n\t"])
VALUES = some.recursive(
    SCALARS,
    lambda inner: some.one_of(
        some.lists(some.tuples(GAPS, inner, GAPS), max_size=3).map(
            lambda items: "[" + ",".join(f"{a}{item}{b}" for a, item, b in items) + "]"
        ),
        some.lists(some.tuples(KEYS, inner), max_size=3).map(
            lambda items: "{" + " , ".join(f"{key} = {item}" for key, item in items) + " }"
        ),
    ),
    max_leaves=6,
)
DOTTED = some.lists(KEYS, min_size=1, max_size=3).map(" . ".join)
STATEMENTS = some.one_of(
    some.tuples(DOTTED, VALUES).map(lambda pair: f"{pair[0]}={pair[1]}"),
    DOTTED.map(lambda key: f"[{key}]"),
    some.sampled_from(["[[a]]", "[[ a . b ]]", "[a.c]", "# [x]", ""]),
)


@settings(max_examples=1000, deadline=None)
@given(some.lists(STATEMENTS, max_size=8).map("\n".join))
def test_it_finds_what_tomllib_reads(text: str) -> None:
    """All values and no others, on lines that rise within a table; or both refuse the text."""
    try:
        values = tomllib.loads(text)
    except ValueError:
        with pytest.raises(NotTOML):
            located(text)
        return
    found = located(text)
    assert set(found.lines) == set(paths(values))
    assert all(1 <= line <= 1 + text.count("\n") for line in found.lines.values())


@settings(max_examples=500, deadline=None)
@given(some.text(some.sampled_from("ab=[]{}.,'\"\n\\# 1\0"), max_size=40))
def test_any_text(text: str) -> None:
    try:
        found = located(text)
    except NotTOML as error:
        assert 1 <= error.line <= 1 + text.count("\n")
        return
    assert set(found.lines) == set(paths(found.values))


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a = 1\nb 2", 2, "Expected '='"),
        ("a = 1\n\nb = [1,\n", 3, "Invalid value|Unclosed array"),
        ("\na = 1\na = 2\n", 3, "Cannot overwrite"),
        ("a = " + "[" * 5000 + "]" * 5000, 1, "too deeply"),
        ("a = 1\nb = 0x" + "f" * 5000, 2, "more than 64 bits"),
        ("a = " + "9" * 5000, 1, "4300"),
        ("a = 1\nb.c = [0, 9223372036854775808]", 2, r"b\.c\[1\] is a number of more than 64"),
        ('a = 1\nb = "\\u0000"', 2, "b has a NUL"),
        ("a = 2026-02-30", 1, "date"),
    ],
)
def test_what_is_refused(text: str, line: int, said: str) -> None:
    with pytest.raises(NotTOML, match=said) as raised:
        located(text)
    assert raised.value.line == line
