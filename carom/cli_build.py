# SPDX-License-Identifier: Apache-2.0
"""`carom build` and `carom programs`: object files, which hosts without a compiler load."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from carom.cli_options import App, Json, new_table, show_table
from carom.errors import CaromError

if TYPE_CHECKING:
    from carom.kernel.recipe import Recipe

app = App()


def recipes() -> Iterator[Recipe]:
    """All that has an object file."""
    from carom.daemon import fastpath
    from carom.filters import filter
    from carom.filters.names import PLACES
    from carom.lab.clients.recipes import load
    from carom.lab.hosts.recipes import swap
    from carom.routes import account, programs

    yield fastpath.recipe()
    for place in PLACES:
        yield filter.recipe(place)
    yield load()
    yield swap()
    yield programs.recipe()
    yield account.recipe()


@app.command()
def build(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where to, as NAME.o.")
    ] = Path("programs"),
    compiler: Annotated[
        str, typer.Option(envvar="CAROM_COMPILER", help="bcc, or the name of a clang.")
    ] = "bcc",
    json: Json = False,
) -> None:
    """Compile all programs into object files: with them carom needs no compiler."""
    from carom.kernel import bpf, objects

    files = {}
    for recipe in recipes():
        files[recipe.packaged] = path = output / (recipe.packaged + objects.SUFFIX)
        write(path, bpf.build(recipe, recipe.source(compiler)))
    if json:
        print(msgspec.json.encode({name: str(path) for name, path in files.items()}).decode())
        return
    for path in files.values():
        print(f"{path}: {path.stat().st_size:,} bytes")


def write(path: Path, data: bytes) -> None:
    """Write a file: whoever reads it finds the old one or the new one, whole. CaromError."""
    new = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(data)
        os.replace(new, path)
    except OSError as error:
        raise CaromError(
            f"cannot write {path}: {error.strerror}", hint="-o says another folder"
        ) from error


class _Row(msgspec.Struct):
    """An object file, as it is shown."""

    file: str
    name: str
    version: str
    compiler: str
    size: int
    source: str
    these_sources: bool
    """Whether it is of the C files that are here."""
    abi: str
    this_abi: bool
    """Whether this carom can load it."""
    kernels: list[str]
    programs: dict[str, dict[str, Any]]
    """Each with its hook and its number of instructions."""
    maps: dict[str, dict[str, int]]


@app.command()
def programs(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE|DIR]...", help="Those that come with carom, if none is."),
    ] = None,
    long: Annotated[
        bool, typer.Option("--long", "-l", help="Name the programs and maps, too.")
    ] = False,
    json: Json = False,
) -> None:
    """Show object files: what is in them, of which sources, and for which carom."""
    from carom.kernel import objects

    if not paths and not any(objects.PACKAGED.glob(f"*{objects.SUFFIX}")):
        raise CaromError(
            "this carom comes without object files: it compiles its programs",
            hint="`carom build` makes some; or name a file",
        )
    rows = list(_rows(paths or [objects.PACKAGED]))
    if json:
        print(msgspec.json.encode(rows).decode())
        return
    table = new_table("name", "bytes", "programs", "maps", "carom", "its sources", "its ABI")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.size:,}",
            str(len(row.programs)),
            str(len(row.maps)),
            row.version,
            "this one's" if row.these_sources else "others",
            "this one's" if row.this_abi else "another",
        )
    show_table(table)
    for row in rows if long else ():
        _show_parts(row)


def _rows(paths: list[Path]) -> Iterator[_Row]:
    """Raises ObjectError."""
    from carom.kernel import objects
    from carom.kernel.compiler import BCC

    sources = {
        recipe.packaged: {recipe.source(one).digest() for one in (BCC, "clang")}
        for recipe in recipes()
    }
    for one in objects.found(paths):
        label, compiled = one.label, one.compiled()
        yield _Row(
            one.where,
            label.name,
            label.version,
            label.compiler,
            len(one.file),
            label.source,
            label.source in sources.get(label.name, ()),
            label.abi,
            label.abi == objects.abi(),
            label.kernels,
            {
                name: {"hook": program.hook, "instructions": len(program.code) // 8}
                for name, program in compiled.programs.items()
            },
            {
                name: {"kind": shape.kind, "key": shape.key_size, "value": shape.value_size}
                for name, shape in compiled.maps.items()
            },
        )


def _show_parts(row: _Row) -> None:
    hooks = Counter(program["hook"] for program in row.programs.values())
    print(f"\n{row.file}")
    print(f"  made with {row.compiler}; tested on Linux {', '.join(row.kernels)}")
    print(f"  sources {row.source}\n  ABI     {row.abi}")
    for hook in hooks:
        inside = {n: one for n, one in row.programs.items() if one["hook"] == hook}
        listed = (f"{name} ({one['instructions']:,})" for name, one in inside.items())
        print(f"  {hook}: {', '.join(listed)}")
    print(f"  maps: {', '.join(row.maps)}")
