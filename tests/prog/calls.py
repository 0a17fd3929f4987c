# SPDX-License-Identifier: Apache-2.0
"""Programs of the socket's edge, called one by one: what a call is given lies in a map, `calls`."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

from carom import cgroup, protocols
from carom.kernel import libbpf
from carom.kernel.bpf import Module
from carom.kernel.hashes import Hashes
from carom.kernel.recipe import Recipe
from carom.kernel.resource import Resource
from carom.kernel.timing import timing
from carom.protocols.spec import Spec
from prog.race import HERE, folder

_ONLY = struct.pack("=I", 0)


class Calls(Resource):
    """A file's programs, with a clock that says what it is told; `cells` by the names of maps."""

    def __init__(
        self,
        file: str,
        layout: struct.Struct,
        programs: Iterable[str],
        cells: dict[str, int],
        languages: Iterable[Spec] = (),
    ):
        """`layout` is of the struct in `calls`; the file knows these `languages`."""
        self.layout = layout
        self._module = module = Module(
            Recipe(
                HERE / file,
                include=(*protocols.INCLUDE, folder(cgroup), HERE),
                written=protocols.headers(languages),
            ),
            parameters={
                **timing(1, test_clock=True),
                **Hashes().parameters,
                "languages": protocols.bits(languages),
            },
        )
        self._programs = {name: module.program(name) for name in programs}
        self._calls = module.map("calls")
        with ExitStack() as stack:
            self.cells = {name: module.cells(name, size) for name, size in cells.items()}
            for one in self.cells.values():
                stack.callback(one.release)
            self._stack = stack.pop_all()

    def run(self, name: str, *numbers: int) -> tuple[Any, ...]:
        """Run one with these numbers; what they are behind it."""
        libbpf.update(self._calls, _ONLY, self.layout.pack(*numbers))
        assert libbpf.test_run(self._programs[name], bytes(64)).retval == libbpf.XDP_PASS
        cell = libbpf.lookup(self._calls, _ONLY, self.layout.size)
        assert cell is not None
        return self.layout.unpack(cell)

    def close(self) -> None:
        """Free programs and maps."""
        self._stack.close()
        self._module.close()
