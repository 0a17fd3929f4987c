# SPDX-License-Identifier: Apache-2.0
"""Options of the command line that come from the fields of settings structs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
import typer
import typer.main

from carom.cli_options import Command, plain
from carom.settings import Field, shown, words

Fields = Callable[[Sequence[str]], Mapping[str, tuple[Field, str]]]
"""Gives the fields that are options, by name, each with the group that its help is in.

Its argument are the words of the command line if help is wanted; without any it gives all fields.
"""

GIVEN = "carom.given"
"""The key in a context's `meta` of the values that were given, by field."""


def command(fields: Fields) -> type[Command]:
    """A command class that has these options too; `fields` is only called when it is parsed.

    The values that were given are in the context's `meta[GIVEN]`: texts, a list of texts for an
    option that repeats, and True for a flag.
    """

    class WithSettings(Command):
        def get_params(self, ctx: Any) -> list[Any]:
            if _OPTIONS not in ctx.meta:
                ctx.meta[_OPTIONS] = plain(options(fields(ctx.meta.get(_HELP, ()))))
            return [*super().get_params(ctx), *ctx.meta[_OPTIONS]]

        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            if {"--help", "-h"} & set(args):
                ctx.meta[_HELP] = tuple(args)  # which the parser uses up
            rest = super().parse_args(ctx, args)
            given = {name: ctx.params.pop(name) for name in fields(())}
            ctx.meta[GIVEN] = {
                name: value for name, value in given.items() if value not in (None, [], ())
            }
            return rest

    return WithSettings


_HELP, _OPTIONS = "carom.help", "carom.options"


def options(fields: Mapping[str, tuple[Field, str]]) -> list[Any]:
    """The options for fields, as Typer makes them from a function's parameters."""

    def takes(**_: object) -> None:
        """Never called."""

    parameters = [_parameter(field, group) for field, group in fields.values()]
    takes.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    takes.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app = typer.Typer(add_completion=False)
    app.command()(takes)
    return list(typer.main.get_command(app).params)


def _parameter(field: Field, group: str) -> inspect.Parameter:
    flag, told = field.kind is bool, field.option
    option = typer.Option(
        *(name for name in (field.flag, told.short) if name),
        metavar=None if flag else _metavar(field),
        help=f"{told.help} {_standing(field)}".rstrip(),
        show_default=False,
        rich_help_panel=group or None,
        autocompletion=None if flag else lambda incomplete: _beginning(field, incomplete),
    )
    kind: Any = bool | None if flag else list[str] | None if told.repeats else str | None
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind, option],
    )


def _beginning(field: Field, incomplete: str) -> list[str]:
    """The words that an option takes, for shells: those that begin like this."""
    if field.option.complete:
        return list(field.option.complete(incomplete))
    return [word for word in words(field) or () if word.startswith(incomplete)]


def _metavar(field: Field) -> str:
    """How help shows an option's value: its words, or its type."""
    if field.option.metavar:
        return field.option.metavar
    if words(field):
        return ",".join(words(field)) if field.several else "|".join(words(field))
    kind = {int: "NUMBER", float: "NUMBER"}.get(field.kind, "TEXT")
    return f"{kind},..." if field.several and not field.option.repeats else kind


def _standing(field: Field) -> str:
    """How help shows an option's default; empty if there is none to show."""
    told = field.option.standing
    if told is None:
        told = (
            ""
            if field.default in (None, False, (), "", msgspec.NODEFAULT)
            else shown(field.default)
        )
    return f"[default: {told}]" if told else ""
