# SPDX-License-Identifier: Apache-2.0
"""Options from untyped values, and messages about wrong ones."""

from __future__ import annotations

import enum
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeVar

import msgspec

from carom.errors import UsageError

T = TypeVar("T", bound=msgspec.Struct)


def converted(values: Mapping[str, Any], to: type[T]) -> T:
    """A struct with these values. An option's word may also be written in capitals.

    Raises UsageError that names the option and what it takes.
    """
    kinds = typing.get_type_hints(to)
    small = {name: _small(value, kinds.get(name)) for name, value in values.items()}
    try:
        return msgspec.convert(small, to)
    except msgspec.ValidationError as error:
        raise _explained(str(error), kinds) from error


def converted_field(name: str, value: Any, of: type[msgspec.Struct]) -> Any:
    """A value as one field of a struct. Raises UsageError as `converted` does."""
    kind = typing.get_type_hints(of)[name]
    one = msgspec.defstruct("One", [(name, kind)])
    return getattr(converted({name: value}, one), name)


def _small(value: Any, kind: Any) -> Any:
    if isinstance(value, str) and value not in (words := choices(kind)) and value.lower() in words:
        return value.lower()
    return value


def choices(kind: Any) -> tuple[str, ...]:
    """The words that a type allows: those of its Literals and enumerations, each once."""
    return tuple(dict.fromkeys(_words(kind)))


def _words(kind: Any) -> Iterator[str]:
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        yield from (str(member.value) for member in kind)
    elif typing.get_origin(kind) is Literal:
        yield from map(str, typing.get_args(kind))
    else:
        for part in typing.get_args(kind):
            yield from _words(part)


def _explained(error: str, kinds: Mapping[str, Any]) -> UsageError:
    """msgspec's message (`Invalid enum value 'x' - at `$.field[...]``; x: any text), reworded."""
    problem, _, where = error.rpartition(" - at `$.") if " - at `$." in error else (error, "", "")
    field = re.split(r"[.\[`]", where)[0]
    name = field.replace("_", "-")
    hint = " | ".join(choices(kinds.get(field))) or None
    _, separator, value = problem.partition("Invalid enum value ")
    if separator:
        return UsageError(f"{name} {value} is unknown", hint=hint)
    return UsageError(f"wrong option: {name}: {problem}", hint=hint)
