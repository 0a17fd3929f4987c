# SPDX-License-Identifier: Apache-2.0
"""`carom pack`, `push` and `pull`: object files as OCI images, in a folder and in registries."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from carom.cli_build import recipes
from carom.cli_options import App, Json
from carom.errors import CaromError, ObjectError, UsageError

app = App()

_Plain = Annotated[bool, typer.Option("--plain-http", help="The registry speaks HTTP without TLS.")]
_Ref = Annotated[str, typer.Argument(metavar="REF", help="HOST[:PORT]/NAME[:TAG][@DIGEST]")]


def _own() -> Iterator[bytes]:
    """The objects that come with carom, or else are built."""
    from carom.kernel import bpf, objects

    for recipe in recipes():
        source = recipe.source()
        comes = objects.packaged(recipe.packaged, source.digest())
        yield comes.file if comes else bpf.build(recipe, source)


def _packed(programs: Path | None) -> dict[str, bytes]:
    """A layout with the objects that are there, or else carom's own. Raises ObjectError."""
    from carom.kernel import elf, objects, oci

    held = (one.file for one in objects.found([programs])) if programs else _own()
    try:
        return oci.pack(held)
    except elf.Foreign as error:
        raise ObjectError(f"these objects cannot be packed: {error}") from error


def _free(folder: Path, option: str) -> None:
    """Raises UsageError unless a layout may be written there."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"{folder} is there already, and is not empty", hint=f"{option} another folder"
        )


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    from carom.kernel import oci

    try:
        oci.write(folder, files)
    except OSError as error:
        raise CaromError(f"cannot write {folder}: {error.strerror}") from error


def _show(tags: Mapping[str, str], where: str, json: bool) -> None:
    if json:
        print(msgspec.json.encode(tags).decode())
        return
    for tag, digest in tags.items():
        print(f"{where}{tag} {digest}")


@app.command()
def pack(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, or an empty one.")],
    programs: Annotated[
        Path | None,
        typer.Option(
            "--programs", metavar="FILE|DIR", help="These object files instead of carom's own."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write object files as an OCI image layout, for registries and for --programs."""
    from carom.kernel import images

    _free(folder, "name")
    _write(folder, _packed(programs))
    _show({one.tag: one.digest for one in images.top(folder)}, "", json)


@app.command()
def push(
    ref: Annotated[str, typer.Argument(metavar="REF", help="HOST[:PORT]/NAME")],
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="What `carom pack` wrote; none: pack anew.")
    ] = None,
    plain_http: _Plain = False,
    json: Json = False,
) -> None:
    """Put an image layout into a registry, under its own tags."""
    from carom.kernel.oci import Damaged
    from carom.registry import Registry, reference

    where = reference(ref)
    if where.tag or where.digest:
        raise UsageError(
            f"{ref!r} has a tag, and the layout says its own",
            hint=f"carom push {where.repository}",
        )
    registry = Registry(where, plain_http)
    with tempfile.TemporaryDirectory() as made:
        if folder is None:
            folder = Path(made) / "layout"
            _write(folder, _packed(None))
        try:
            tags = registry.push(folder)
        except Damaged as error:
            raise ObjectError(f"{folder} cannot be pushed: {error}") from error
    _show(tags, f"{where.repository}:", json)


@app.command()
def pull(
    ref: _Ref,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="A new folder, or an empty one."),
    ] = Path("programs"),
    plain_http: _Plain = False,
    json: Json = False,
) -> None:
    """Get an image layout from a registry, for --programs. Without a tag: this version's."""
    from carom import __version__
    from carom.kernel import images
    from carom.kernel.oci import Damaged
    from carom.registry import Registry, reference

    where = reference(ref)
    _free(output, "-o says")
    try:
        files = Registry(where, plain_http).pull(where.digest or where.tag or __version__)
    except Damaged as error:
        raise ObjectError(f"{ref} is not taken: {error}") from error
    _write(output, files)
    _show({one.tag: one.digest for one in images.top(output)}, f"{output}:", json)
