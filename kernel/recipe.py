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
        expansion = Expansion(self._folders, self._written)
        texts = (expansion.of(source) for source in (*before, *self.sources))
        return Source("\n".join(texts), self._flags, self._hooks, compiler)


_QUOTED = re.compile(r'^#include "(.+)".*$', re.MULTILINE)


class Expansion:
    """C files with their own `#include "..."` lines replaced by those files, each once in all.

    BCC only recognises maps in the main file, so what is shared has to be part of it. Lines keep
    their file (FOLDER/FILE) and number for messages.
    """

    def __init__(self, include: Sequence[Path], written: Mapping[str, str] | None = None):
        """`written` are headers that exist only as text, by name."""
        self._include = include
        self._written = written or {}
        self._seen = set[Path]()
        self._found = dict[str, Path]()

    def of(self, source: Path) -> str:
        """A file expanded; nothing for one that was there before.

        Raises CompileError for an included file that is missing.
        """
        if source in self._seen:
            return ""
        self._seen.add(source)
        written = self._written.get(source.name)
        text = source.read_text() if written is None else written
        name = "/".join(source.parts[-2:])
        parts, at = [f'#line 1 "{name}"\n'], 0
        for quoted in _QUOTED.finditer(text):
            line = text.count("\n", 0, quoted.start()) + 2
            inner = self.of(self._find(quoted[1], source))
            parts += [text[at : quoted.start()], inner, f'\n#line {line} "{name}"']
            at = quoted.end()
        return "".join((*parts, text[at:].removesuffix("\n")))

    def _find(self, header: str, source: Path) -> Path:
        """The file that a source includes by this name. Raises CompileError."""
        if header not in self._found:
            paths = (one for folder in self._include if (one := folder / header).exists())
            path = Path(header) if header in self._written else next(paths, None)
            if path is None:
                raise CompileError(f"{source.name} includes {header}, which is not there")
            self._found[header] = path
        return self._found[header]
