# SPDX-License-Identifier: Apache-2.0
"""What the fields of a settings struct say of themselves: help, range, how a text is read.

A field's type is `Annotated[type, Option(...)]`. From that alone come its option of the command
line, its check, and the words of what is wrong with a value.
"""

from __future__ import annotations

import functools
import math
import operator
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from carom.converted import choices
from carom.errors import UsageError

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


class Option(NamedTuple):
    """What an option is for, and what it takes; of several values, what each of them may be."""

    help: str
    low: float | None = None
    high: float | None = None
    example: str = ""
    order: Literal["any", "once", "rising"] = "any"
    """Whether several values are to be different, or to rise."""
    read: Callable[[str], Any] | None = None
    """What makes a value of a text that is no plain number or word, as one with a unit."""
    unit: str = ""
    """Behind a number in messages: ` s`."""
    metavar: str = ""
    """What it takes, where its type does not say it."""
    standing: str | None = None
    """What stands where it is left out, in words; None: the field's default."""
    group: str = ""
    """Under which its help stands."""
    short: str = ""
    """One letter that it may be given by: `-p`."""
    only: str = ""
    """The one command that has it, where others with these settings have not."""
    repeats: bool = False
    """Whether several values are given one by one, each behind the option."""


class Field(NamedTuple):
    """A field of a struct that is an option."""

    name: str
    kind: Any
    """Its type; of several values, that of one."""
    several: bool
    option: Option
    default: Any

    @property
    def words(self) -> str:
        """Its name in messages: `hit-rates`."""
        return self.name.replace("_", "-")

    @property
    def flag(self) -> str:
        """As it is given: `--hit-rates`."""
        return f"--{self.words}"

    def told(self, **changes: Any) -> Field:
        """The same with other words for the command line; `default` may be among them."""
        default = changes.pop("default", self.default)
        return self._replace(option=self.option._replace(**changes), default=default)

    @property
    def example(self) -> str:
        """How it may be given."""
        return f"for example {self.flag} {self.option.example or shown(self.default)}"

    def read(self, text: str) -> Any:
        """The value of a text, or the values. Raises UsageError."""
        if self.option.read:
            return self.option.read(text)
        if not self.several:
            return self._read(text)
        return tuple(self._read(part) for part in text.split(","))

    def _read(self, text: str) -> Any:
        if self.kind not in (int, float):
            return text
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise UsageError(f"{self.words} {text!r} is not a number", hint=self.example)
        if self.kind is int and not number.is_integer():
            raise UsageError(f"{self.words} {text!r} is not a whole number", hint=self.example)
        return self.kind(number)

    def check(self, value: Any) -> None:
        """Raises UsageError where a value is out of range, or several are not as they are to be."""
        if self.several:
            self._check_order(value)
        for item in value if self.several else (value,):
            self._check_range(item)

    def _check_order(self, values: Sequence[Any]) -> None:
        if not values and self.default:
            raise UsageError(f"{self.words} must name at least one", hint=self.example)
        if self.option.order == "rising" and list(values) != sorted(set(values)):
            raise UsageError(f"{self.words} must rise", hint="from the smallest on, each once")
        if self.option.order == "once" and len(set(values)) < len(values):
            raise UsageError(f"{self.words} has something twice", hint="name each once")

    def _check_range(self, value: Any) -> None:
        low, high = self.option.low, self.option.high
        if not isinstance(value, int | float) or low is None:
            return
        if not low <= value <= (math.inf if high is None else high):
            unit = self.option.unit
            hint = f"{shown(low)} to {shown(high)}{unit}"
            raise UsageError(
                f"{self.words} {shown(value)}{unit} is out of range",
                hint=hint if high is not None else f"from {shown(low)}{unit} on",
            )


def fields(kind: type[msgspec.Struct]) -> dict[str, Field]:
    """The fields of a struct that are options, by name, in the struct's order."""
    hints = typing.get_type_hints(kind, include_extras=True)
    options = {}
    for field in msgspec.structs.fields(kind):
        hint = hints[field.name]
        for extra in getattr(hint, "__metadata__", ()):
            if isinstance(extra, Option):
                inner, several = _each(hint.__origin__)
                options[field.name] = Field(field.name, inner, several, extra, field.default)
    return options


def _each(kind: Any) -> tuple[Any, bool]:
    """The type of a value, or of each of several, and whether there are several."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        members = [member for member in typing.get_args(kind) if member is not type(None)]
        kind = functools.reduce(operator.or_, members)
    if typing.get_origin(kind) is tuple:
        return typing.get_args(kind)[0], True
    return kind, False


def check(struct: msgspec.Struct) -> None:
    """Raises UsageError that names the first field whose value cannot be."""
    for name, field in fields(type(struct)).items():
        field.check(getattr(struct, name))


def words(field: Field) -> tuple[str, ...]:
    """Those that a field takes, if it takes words."""
    return choices(field.kind)


def shown(value: Any) -> str:
    """A value as it may be given: `0,0.5,1`, `10000`."""
    if isinstance(value, tuple | list):
        return ",".join(shown(item) for item in value)
    if isinstance(value, float):
        return f"{value:.15g}"
    return str(value)


def read(kind: type[msgspec.Struct], given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of texts, of those given that are fields of a struct. Raises UsageError."""
    known = fields(kind)
    return {
        name: known[name].read(value) if isinstance(value, str) else value
        for name, value in given.items()
        if name in known
    }


def sizes(text: str) -> tuple[int, int]:
    """The shortest and the longest of `32` or `4-256`. Raises UsageError."""
    low, _, high = text.partition("-")
    try:
        return int(low), int(high or low)
    except ValueError as error:
        raise UsageError(f"{text!r} is not a size", hint="for example 32, or 1-256") from error


def size(text: str) -> int:
    """Bytes, from `64M`, `1.5G`, `512K` or plain bytes; units are powers of 1024. UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)i?B?", text.strip(), re.IGNORECASE)
    if not match:
        raise UsageError(f"{text!r} is not a size", hint="for example 64M or 1.5G")
    return int(float(match[1]) * 1024 ** " KMG".index(match[2].upper() or " "))


def seconds(text: str) -> float:
    """A duration such as `2ms`, `500us`, `1.5s`, `10m`, or plain seconds. Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|)", text.strip())
    if not match:
        raise UsageError(f"{text!r} is not a duration", hint="for example 2ms, 500us, 1.5s or 10m")
    return float(match[1]) * _UNITS[match[2]]
