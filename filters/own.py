# SPDX-License-Identifier: Apache-2.0
"""A filter of the user's own: a C file or an object file, checked before anything is touched."""

from __future__ import annotations

import base64
import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from carom import protocols
from carom.errors import BPFError, CompileError, ObjectError, UsageError
from carom.filters.declared import Declared, declared
from carom.filters.names import NAMES, PLACES, Place
from carom.kernel import bpf, elf
from carom.kernel.compiled import Compiled, Refused
from carom.kernel.objects import Object
from carom.kernel.recipe import Recipe

SIZE_MAX = 1 << 20
"""Bytes of a file: the longest of carom's own filters has 13 kB of C, and 50 kB as an object."""

SUFFIXES = (".c", ".o")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_PACKAGED = "own-filter-"
"""What an object with a filter of a user's own is called, before its place."""

SHARED = frozenset(
    {"filtered", "settings", "tallies", "capture_budget", "captures", "accepted", "clock"}
)
"""The maps of filter.h: all filters at a place have them in common."""


class Own(NamedTuple):
    """A filter of the user's own, by its file's name, at one place."""

    name: str
    place: Place
    object: Object

    def told(self) -> dict[str, str]:
        """The same as arguments of a call over the control socket."""
        return {"filter": self.name, "object": base64.b64encode(self.object.file).decode()}


def is_path(text: str) -> bool:
    """Whether a filter is named by its file: a path has a slash, or ends in .c or .o."""
    return "/" in text or text.endswith(SUFFIXES)


def check(text: str | None) -> None:
    """Raises UsageError for what is neither a filter's name nor a file that may hold one."""
    if text is None or text in NAMES:
        return
    if not is_path(text):
        raise UsageError(
            f"there is no filter {text!r}",
            hint=f"there are {', '.join(NAMES)}; a file of your own is named by its path: ./mine.c",
            about=("filter",),
        )
    _read(Path(text))


def _wrong(path: Path, what: str, hint: str) -> UsageError:
    return UsageError(f"filter {path} {what}", hint=hint, about=("filter",))


def _read(path: Path) -> bytes:
    """The bytes of a file. Raises UsageError that names what is wrong with it."""
    mine = "a filter is a C file (.c), or an object file (.o) by `carom filter build`"
    try:
        if "\0" in str(path):
            raise _wrong(path, "has a NUL in its name", mine)
        if path.is_dir():
            raise _wrong(path, "is a folder", mine)
        if path.suffix not in SUFFIXES:
            raise _wrong(path, "is neither C nor an object file", mine)
        if path.exists() and not path.is_file():
            raise _wrong(path, "is no regular file", mine)
        with path.open("rb") as file:
            data = file.read(SIZE_MAX + 1)
    except OSError as error:
        who = f"carom runs as user {os.geteuid()}, who has to read it"
        raise _wrong(path, f"cannot be read: {error.strerror}", who) from error
    if len(data) > SIZE_MAX:
        raise _wrong(path, f"has more than {SIZE_MAX:,} bytes", mine)
    if not _NAME.fullmatch(path.stem):
        raise _wrong(
            path, "has a name that cannot be shown", "up to 64 of a-z, A-Z, 0-9, _, - and ."
        )
    if path.suffix == ".c":
        try:
            data.decode()
        except UnicodeDecodeError as error:
            raise _wrong(path, "is no text: it has bytes that are not UTF-8", mine) from error
    return data


def recipe(path: Path, place: Place, text: str) -> Recipe:
    """A filter's C file, for one place."""
    here = Path(__file__).resolve().parent
    return Recipe(
        path,
        include=(here, *protocols.INCLUDE, path.absolute().parent),
        defines={"PLACE": PLACES.index(place)},
        written={path.name: text},
        hooks={"": place},
        packaged=_PACKAGED + place,
    )


def made(path: Path, place: Place, compiler: str = "") -> Own:
    """The filter of a C file, compiled, or of an object file.

    Raises UsageError, PrivilegeError, CompileError, ObjectError, BPFError.
    """
    data = _read(path)
    if path.suffix == ".o":
        return checked(Own(path.stem.removesuffix(f"-{place}"), place, _object(path, data)))
    one = recipe(path.absolute(), place, data.decode())
    try:
        source = one.source(compiler)
    except CompileError as error:
        hint = f"a header of carom's, or one in {path.absolute().parent}"
        raise CompileError(str(error), hint=hint) from error
    except (OSError, UnicodeDecodeError) as error:
        raise CompileError(
            f"a file that {path} includes cannot be read: {error}", hint="leave it out, or mend it"
        ) from error
    try:
        file = bpf.build(one, source)
    except CompileError as error:
        raise _not_compiled(path, error) from error
    except BPFError as error:  # a map; BCC makes them while it compiles
        hint = (
            "an array's index is u32, a ring buffer has 1, 2, 4, 8 ... pages, fewer entries need "
            "less memory; -v shows all that was said"
        )
        raise BPFError(str(error), hint=hint, details=error.details) from error
    return checked(Own(path.stem, place, _object(path, file)))


def _not_compiled(path: Path, error: CompileError) -> CompileError:
    """With all errors that clang names; or, where there is no compiler, with a way without one."""
    if not isinstance(error.__cause__, Refused):
        hint = (
            f"{error.hint}; or compile it on a host with a compiler: `carom filter build "
            f"{path.name}`, and name the object file that it writes"
        )
        return CompileError(str(error), hint=hint, details=error.details)
    wrong = [line for line in (error.details or "").splitlines() if "error:" in line]
    if len(wrong) < 2:
        return error
    more = f"\n... and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    return CompileError(
        f"clang refused {path}:\n" + "\n".join(wrong[:5]) + more,
        hint=error.hint,
        details=error.details,
    )


def _object(where: Path | str, data: bytes) -> Object:
    """Raises ObjectError for what is no object of carom's."""
    try:
        return Object(str(where), data, elf.label(data))
    except elf.Foreign as error:
        raise ObjectError(
            f"{where} cannot be loaded: {error}",
            hint="`carom filter build FILE.c` makes an object file of a filter, with BCC or clang",
        ) from error


def told(name: str, place: Place, object: str) -> Own:
    """A filter as Own.told() says it. Raises UsageError, ObjectError, BPFError."""
    try:
        data = base64.b64decode(object, validate=True)
    except ValueError as error:
        raise UsageError("an object file is told in base64") from error
    return checked(Own(name, place, _object(name, data)))


def checked(own: Own) -> Own:
    """The same. Raises ObjectError or BPFError for what is no filter for its place."""
    if not _NAME.fullmatch(own.name) or own.name in NAMES:
        raise UsageError(
            f"a filter of your own cannot be called {own.name!r}",
            hint="carom has filters of these names: " + ", ".join(NAMES),
        )
    parts(own)
    return own


def parts(own: Own) -> tuple[str, Compiled, list[Declared]]:
    """The name of its program, all that it is made of, and the maps that are shown.

    Raises ObjectError, BPFError.
    """
    where, label = own.object.where, own.object.label
    for place in PLACES:
        if label.name == _PACKAGED + place != _PACKAGED + own.place:
            raise ObjectError(
                f"{where} is a filter for {place}, and this one is to be at {own.place}",
                hint=f"`carom filter build` makes an object for {own.place}, too",
            )
    if label.name != _PACKAGED + own.place:
        raise ObjectError(
            f"{where} holds {label.name}, and no filter of your own",
            hint="`carom filter build FILE.c` makes an object file of a filter",
        )
    compiled = own.object.loadable()
    programs = sorted(compiled.programs)
    if len(programs) != 1:
        found = f"{len(programs)} programs ({', '.join(programs)})" if programs else "no program"
        raise BPFError(
            f"{where} has {found}, and a filter has one",
            hint="int NAME(CONTEXT *context) { return filter(context, accepts); } is its program; "
            "other functions are static __always_inline",
        )
    try:
        maps = declared(compiled, SHARED)
    except BPFError as error:
        raise BPFError(f"{where}: {error}", hint=error.hint) from error
    except elf.BROKEN as error:
        raise ObjectError(f"{where} has types that cannot be read: {error}") from error
    return programs[0], compiled, maps


def completions(incomplete: str) -> Iterator[str]:
    """Filters, and files that may hold one, that begin like this: for shells."""
    yield from (name for name in NAMES if name.startswith(incomplete))
    folder, _, begun = incomplete.rpartition("/")
    where = Path(folder or ("/" if incomplete.startswith("/") else "."))
    before = incomplete[: len(incomplete) - len(begun)]
    with contextlib.suppress(OSError):
        for path in sorted(where.iterdir()):
            if path.name.startswith(begun) and path.is_dir():
                yield f"{before}{path.name}/"
            elif path.name.startswith(begun) and path.suffix in SUFFIXES:
                yield f"{before}{path.name}"
