# SPDX-License-Identifier: Apache-2.0
"""Options of the command line that come from the fields of settings structs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
import typer
import typer.main

from carom.cli_options import Command
from carom.settings import Field, shown, words

Fields = Callable[[Sequence[str]], Mapping[str, tuple[Field, str]]]
"""The fields that are options, by name, each with the group that its help is in.

They are asked for with the arguments of a call for help, or with none for all of them.
"""

GIVEN = "carom.given"
"""Where in a context's `meta` the given values are, by field."""


def command(fields: Fields) -> type[Command]:
    """A command that has these options as well; they are asked for when it is parsed, not before.

    What was given of them is in the context's `meta[GIVEN]`: texts, several of what repeats, and
    True for flags.
    """

    class WithSettings(Command):
        def get_params(self, ctx: Any) -> list[Any]:
            if _OPTIONS not in ctx.meta:
                ctx.meta[_OPTIONS] = options(fields(ctx.meta.get(_HELP, ())))
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
    """The options of fields, as Typer makes those of a function's parameters."""

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
    )
    kind: Any = bool | None if flag else list[str] | None if told.repeats else str | None
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind, option],
    )


def _metavar(field: Field) -> str:
    """What it takes: words, or what an example or a type says."""
    if field.option.metavar:
        return field.option.metavar
    if words(field):
        return ",".join(words(field)) if field.several else "|".join(words(field))
    kind = {int: "NUMBER", float: "NUMBER"}.get(field.kind, "TEXT")
    return f"{kind},..." if field.several and not field.option.repeats else kind


def _standing(field: Field) -> str:
    """What stands where the option is left out, if that is plain."""
    told = field.option.standing
    if told is None:
        told = (
            ""
            if field.default in (None, False, (), "", msgspec.NODEFAULT)
            else shown(field.default)
        )
    return f"[default: {told}]" if told else ""
