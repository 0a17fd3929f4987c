# SPDX-License-Identifier: Apache-2.0
"""How the fields of a settings struct describe themselves: help, range, how a text is read.

A field's type is `Annotated[type, Option(...)]`. Its option of the command line, its check and the
messages about wrong values all come from that.
"""

from __future__ import annotations

import functools
import math
import operator
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from carom.converted import choices, converted_field
from carom.errors import UsageError

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


class Option(NamedTuple):
    """What an option is for, and what it takes; if it takes several values, what each may be."""

    help: str
    low: float | None = None
    high: float | None = None
    example: str = ""
    order: Literal["any", "once", "rising"] = "any"
    """Whether several values have to differ, or to rise."""
    read: Callable[[str], Any] | None = None
    """Reads a text that is no plain number or word, such as one with a unit."""
    unit: str = ""
    """What follows a number in messages: ` s`."""
    metavar: str = ""
    """How help shows the value, where the type does not say it."""
    standing: str | None = None
    """How help shows the default; None: the field's default itself."""
    group: str = ""
    """The heading that its help is under."""
    short: str = ""
    """A short form: `-p`."""
    only: str = ""
    """The only command that has it, if not all commands with these settings do."""
    repeats: bool = False
    """Whether several values are given one by one, each after the option's name."""
    valid: Callable[[Any], object] | None = None
    """Raises UsageError for a value of the right type that is none; of several, for each."""
    complete: Callable[[str], Iterable[str]] | None = None
    """Values that begin so, for shells, where the type does not say them."""


class Field(NamedTuple):
    """A field of a struct that is an option."""

    name: str
    kind: Any
    """The type of a value; if there are several, of each."""
    several: bool
    option: Option
    default: Any

    @property
    def words(self) -> str:
        """Its name in messages: `hit-rates`."""
        return self.name.replace("_", "-")

    @property
    def flag(self) -> str:
        """The option's name on the command line: `--hit-rates`."""
        return f"--{self.words}"

    def told(self, **changes: Any) -> Field:
        """The same field with changes to its Option; `default` changes the field's default."""
        default = changes.pop("default", self.default)
        return self._replace(option=self.option._replace(**changes), default=default)

    @property
    def example(self) -> str:
        """A hint with an example of the option."""
        return f"for example {self.flag} {self.option.example or shown(self.default)}"

    def read(self, text: str) -> Any:
        """The value of a text, or a tuple of its values. Raises UsageError."""
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
        """Raises UsageError if a value is out of range, or several are not in the right order."""
        if self.several:
            self._check_order(value)
        for item in value if self.several else (value,):
            self._check_range(item)
            if self.option.valid:
                self.option.valid(item)

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
    return dict(_fields(kind))


@functools.cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, Field]:
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
    """The type of a value, or of each of several values; and whether there are several."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        members = [member for member in typing.get_args(kind) if member is not type(None)]
        kind = functools.reduce(operator.or_, members)
    if typing.get_origin(kind) is tuple:
        return typing.get_args(kind)[0], True
    return kind, False


def check(struct: msgspec.Struct) -> None:
    """Raises UsageError that names the first field whose value is not allowed."""
    for name, field in fields(type(struct)).items():
        field.check(getattr(struct, name))


def taken(field: Field, value: Any, kind: type[msgspec.Struct]) -> Any:
    """A field's value of an untyped one, a text perhaps with its unit. Raises UsageError."""
    if field.option.read and isinstance(value, str):
        value = field.option.read(value)
    value = converted_field(field.name, value, kind)
    if value is not None:
        field.check(value)
    return value


def words(field: Field) -> tuple[str, ...]:
    """The words that a field takes; empty if it takes other values."""
    return choices(field.kind)


def shown(value: Any) -> str:
    """A value as a user may write it: `0,0.5,1`, `10000`."""
    if isinstance(value, tuple | list):
        return ",".join(shown(item) for item in value)
    if isinstance(value, float):
        return f"{value:.15g}"
    return str(value)


def read(kind: type[msgspec.Struct], given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of those given that are fields of a struct; texts are read. Raises UsageError."""
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
    bytes = float(match[1]) * 1024 ** " KMG".index(match[2].upper() or " ")
    if not math.isfinite(bytes):
        raise UsageError("a size of so many digits is none", hint="for example 64M or 1.5G")
    return int(bytes)


def seconds(text: str) -> float:
    """A duration such as `2ms`, `500us`, `1.5s`, `10m`, or plain seconds. Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|)", text.strip())
    if not match:
        raise UsageError(f"{text!r} is not a duration", hint="for example 2ms, 500us, 1.5s or 10m")
    return float(match[1]) * _UNITS[match[2]]
