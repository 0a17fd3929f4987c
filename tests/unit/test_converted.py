# SPDX-License-Identifier: Apache-2.0
"""What is wrong with an option is said with its name, and with what it takes."""

from __future__ import annotations

import enum
from typing import Literal

import msgspec
import pytest

from carom.converted import choices, converted
from carom.errors import UsageError


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


Word = Literal["one", "two"]


class Options(msgspec.Struct, kw_only=True):
    word: Word = "one"
    perhaps: Literal["auto"] | Word | None = None
    colour: Colour = Colour.RED
    several: tuple[Word, ...] = ()
    port_number: int = 0


def test_choices() -> None:
    assert choices(Literal["auto"] | Word | None) == ("auto", "one", "two")
    assert choices(tuple[Colour, ...]) == ("red", "blue")
    assert choices(int) == choices(None) == ()


@pytest.mark.parametrize("word", ["two", "TWO", "Two"])
def test_words_in_any_case(word: str) -> None:
    assert converted({"word": word, "perhaps": word}, Options) == Options(word="two", perhaps="two")


@pytest.mark.parametrize(
    ("values", "said", "hint"),
    [
        ({"word": "three"}, "word 'three' is unknown", "one | two"),
        ({"word": "x - at `$.y"}, "word 'x - at `$.y' is unknown", "one | two"),
        ({"perhaps": ""}, "perhaps '' is unknown", "auto | one | two"),
        ({"colour": "green"}, "colour 'green' is unknown", "red | blue"),
        ({"several": ["one", "six"]}, "several 'six' is unknown", "one | two"),
        ({"word": 1}, "wrong option: word: Expected `str`, got `int`", "one | two"),
        ({"port_number": "x"}, "wrong option: port-number: Expected `int`, got `str`", None),
    ],
)
def test_what_is_wrong(values: dict[str, object], said: str, hint: str | None) -> None:
    with pytest.raises(UsageError) as raised:
        converted(values, Options)
    assert (str(raised.value), raised.value.hint) == (said, hint)
