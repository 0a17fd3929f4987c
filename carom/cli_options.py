# SPDX-License-Identifier: Apache-2.0
"""Options and classes that several commands share."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.models import CommandFunctionType

from carom.errors import CaromError, UsageError

if TYPE_CHECKING:
    from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _choose(path: str | None) -> None:
    """Have programs loaded from there. Raises ObjectError for what holds none."""
    if path is not None:
        from carom.kernel import objects

        list(objects.found([Path(path)]))
        os.environ[objects.CHOSEN] = str(Path(path).absolute())


Programs = Annotated[
    str | None,  # a Path would need pydantic
    typer.Option(
        "--programs",
        metavar="FILE|DIR",
        callback=_choose,
        expose_value=False,
        help="Load these object files (`carom build`, `carom pack`) instead of carom's own.",
    ),
]


class _Option(TyperOption):
    def process_value(self, ctx: Any, value: Any) -> Any:
        return _processed(self, ctx, value, super().process_value)


class _Argument(TyperArgument):
    def process_value(self, ctx: Any, value: Any) -> Any:
        return _processed(self, ctx, value, super().process_value)


_PLAIN: dict[type, type] = {TyperOption: _Option, TyperArgument: _Argument}


def plain(parameters: list[Any]) -> list[Any]:
    """The same parameters, which now take nothing, a text or a default as it is.

    Typer would import pydantic to find that a text is a text. That takes longer than most commands
    do, and a service would keep its memory.
    """
    for parameter in parameters:
        if hasattr(parameter, "type_descriptor"):  # a Typer that has pydantic
            parameter.__class__ = _PLAIN.get(type(parameter), type(parameter))
    return parameters


def _processed(parameter: Any, ctx: Any, value: Any, by_typer: Callable[[Any, Any], Any]) -> Any:
    """What a command gets for a value; what has to be read, or refused, is left to Typer."""
    if value in (None, (), []):
        is_read = not parameter.required
    else:
        kind = parameter.type_descriptor.annotation
        is_read = type(value) is kind or kind == list[str]
    if not is_read:
        return by_typer(ctx, value)
    return parameter.callback(ctx, parameter, value) if parameter.callback else value


class Command(TyperCommand):
    """A command that refuses a second value for an option that takes one.

    Otherwise the last value would win silently.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        """As Typer's own, but plain."""
        return plain(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Raises UsageError."""
        given = list(args)
        rest = super().parse_args(ctx, args)
        for option, values in self._all_values(ctx, given):
            if len(values) > 1:
                raise UsageError(
                    f"{option} is given more than once: {', '.join(map(str, values))}",
                    hint="it takes one value: leave all but one out",
                )
        return rest

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options' help in groups, by the name of their panel; options without first."""
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            standing = "Options" if isinstance(parameter, TyperOption) else "Arguments"
            if record:
                title = getattr(parameter, "rich_help_panel", None) or standing
                groups.setdefault(title, []).append(record)
        for title, records in groups.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def _all_values(self, ctx: Any, args: list[str]) -> list[tuple[str, list[object]]]:
        """For each option that takes one value: its name, and all values that were given."""
        single = [
            parameter
            for parameter in self.get_params(ctx)
            if isinstance(parameter, TyperOption)
            and not (parameter.multiple or parameter.is_flag or parameter.count)
        ]
        for parameter in single:
            parameter.multiple = True  # the parser then keeps them all
        try:
            given, _, _ = self.make_parser(ctx).parse_args(args)
        finally:
            for parameter in single:
                parameter.multiple = False
        return [
            (max(parameter.opts, key=len), given.get(parameter.name, [])) for parameter in single
        ]


class Group(TyperGroup):
    """A group of commands whose own parameters are plain, too."""

    def get_params(self, ctx: Any) -> list[Any]:
        """As Typer's own, but plain."""
        return plain(super().get_params(ctx))


class App(typer.Typer):
    """A group of commands like all of carom's; without a command it shows its help."""

    def __init__(self, **options: Any):
        standing = {"cls": Group, "no_args_is_help": True, "rich_markup_mode": None}
        super().__init__(**{**standing, **options})

    def command(
        self, name: str | None = None, **options: Any
    ) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """As Typer's own, with Command as the class."""
        return super().command(name, **{"cls": Command, **options})


def new_table(*heads: str) -> Table:
    """A table to be filled. rich is imported here: it takes longer than most commands do."""
    from rich.table import Table

    return Table(*heads, box=None, pad_edge=False)


def show_table(table: Table) -> None:
    """Print it, as wide as the terminal is. What stands in it is shown as it is."""
    from rich.console import Console

    Console(markup=False, emoji=False).print(table)


def missing(error: ImportError) -> NoReturn:
    """Raise a CaromError that says which package the lab needs."""
    raise CaromError(
        f"the lab needs the Python package {error.name}",
        hint="install carom with its lab: pip install 'carom[lab]'",
    ) from error


def numbers(text: str, name: str) -> tuple[float, ...]:
    """The numbers of `0,0.5,1`. Raises UsageError."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = (math.nan,)
    if not all(math.isfinite(number) for number in values):
        raise UsageError(f"{name} {text!r} are not numbers", hint="for example 0,0.5,1")
    return values
