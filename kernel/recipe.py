# SPDX-License-Identifier: Apache-2.0
"""What is compiled as one: C files, where their headers are, and where each program runs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from carom.errors import CompileError
from carom.kernel.compiled import Hook
from carom.kernel.compiler import BCC, Source

CHOSEN = "CAROM_COMPILER"
"""The environment variable that names another compiler than BCC: a clang."""

INCLUDE = Path(__file__).resolve().parent.parent / "include"


class Recipe:
    """C files to compile as one. It is the same for all that is only said when they are loaded."""

    def __init__(
        self,
        *sources: Path,
        include: tuple[Path, ...] = (),
        defines: Mapping[str, str | int | None] | None = None,
        written: Mapping[str, str] | None = None,
        hooks: Mapping[str, Hook] | None = None,
        packaged: str = "",
    ):
        """`written` are files that exist only as text, by name; `hooks` where programs run
        (compiled.hook_of). What is `packaged` comes under this name with carom (objects.py).
        """
        self.sources, self.packaged = sources, packaged
        self._folders = (INCLUDE, *include)
        self._written = written or {}
        self._hooks = dict(hooks or {})
        self._flags = [
            f"-D{name}" if value is None else f"-D{name}={value}"
            for name, value in (defines or {}).items()
        ]

    def __str__(self) -> str:
        return ", ".join("/".join(source.parts[-2:]) for source in self.sources)

    def source(self, compiler: str = "") -> Source:
        """One text of all that it is made of. Raises CompileError for a header that is missing.

        The compiler is the one that the environment says, or else BCC.
        """
        compiler = compiler or os.environ.get(CHOSEN) or BCC
        before = () if compiler == BCC else (INCLUDE / "clang.h",)
        seen: set[Path] = set()
        texts = (
            expand(source, self._folders, seen, self._written)
            for source in (*before, *self.sources)
        )
        return Source("\n".join(texts), self._flags, self._hooks, compiler)


def expand(
    source: Path,
    include: Sequence[Path],
    seen: set[Path] | None = None,
    written: Mapping[str, str] | None = None,
) -> str:
    """A C file with its own `#include "..."` lines replaced by those files, each once.

    BCC only recognises maps in the main file, so what is shared has to be part of it. Lines keep
    their file (FOLDER/FILE) and number for messages. `written` are headers that exist only as
    text, by name. Raises CompileError for an included file that is missing.
    """
    seen = set() if seen is None else seen
    written = written or {}
    if source in seen:
        return ""
    seen.add(source)
    text = written[source.name] if source.name in written else source.read_text()
    name = "/".join(source.parts[-2:])
    lines = [f'#line 1 "{name}"']
    for number, line in enumerate(text.splitlines(), 1):
        quoted = re.match(r'#include "(.+)"', line) if line.startswith("#") else None
        if not quoted:
            lines.append(line)
            continue
        paths = (folder / quoted[1] for folder in include if (folder / quoted[1]).exists())
        path = Path(quoted[1]) if quoted[1] in written else next(paths, None)
        if path is None:
            raise CompileError(f"{source.name} includes {quoted[1]}, which is not there")
        lines += [expand(path, include, seen, written), f'#line {number + 1} "{name}"']
    return "\n".join(lines)
