# SPDX-License-Identifier: Apache-2.0
"""A user's own filter in the kernel: its program, its maps, and what its ring buffers give."""

from __future__ import annotations

import threading
import time
from typing import Any

from carom.errors import ObjectError, VerifierError
from carom.filters.declared import RING, Declared
from carom.filters.entries import WALK_MAX, Table, read, record
from carom.filters.own import SHARED, Own, parts
from carom.kernel import bpf, libbpf
from carom.kernel.compiled import Compiled
from carom.kernel.resource import Resource

EVENT_SECONDS = 2.0
"""Seconds without a look at events, after which the next look begins with those that come then."""

_LOG_LINES = 6


class OwnFilter(Resource):
    """An own filter's program and maps in the kernel, until this is closed."""

    def __init__(self, own: Own, beside: bpf.Module):
        """Load it with the maps that it shares with carom's own filters.

        Raises ObjectError, VerifierError (the end of the verifier's log in its message), BPFError.
        """
        program, compiled, self.maps = parts(own)
        apart = compiled.maps.keys() - SHARED
        _check_shared(own, compiled, beside)
        self._lock = threading.Lock()
        self._rings: list[_Events] = []
        self._module = bpf.Module(own.object, beside=beside, apart=apart)
        try:
            shown = {one.name: self._module.map(one.name) for one in self.maps}
            self.program = self._loaded(program)
            for one in self.maps:
                if one.shape.kind == RING:
                    self._rings.append(_Events(shown[one.name], one))
        except BaseException:
            self.close()
            raise

    def _loaded(self, program: str) -> int:
        try:
            return self._module.program(program)
        except VerifierError as error:
            raise VerifierError(
                f"{error}\n{_end(error.details or '')}",
                hint="an object that clang made (CAROM_COMPILER=clang) has the lines of C in that",
                details=error.details,
            ) from error

    def tables(self, most: int) -> list[Table]:
        """What is in its maps, up to `most` entries of each."""
        holding = [one for one in self.maps if one.shape.kind != RING]
        return [read(self.map(one.name), one, most, WALK_MAX // len(holding)) for one in holding]

    def map(self, name: str) -> int:
        """The descriptor of a map."""
        return self._module.map(name)

    def events(self, most: int) -> list[dict[str, Any]]:
        """Up to `most` records of its ring buffers since the last call, each with its map's name.

        They are taken out: two that ask share them.
        """
        with self._lock:
            found: list[dict[str, Any]] = []
            for events in self._rings:
                found += events.take(most - len(found))
            return found

    def close(self) -> None:
        """Free program and maps; what is attached stays until it is replaced."""
        for events in self._rings:
            events.close()
        self._module.close()


class _Events:
    """The records of a ring buffer. Nobody has read it while nobody looked: those are old."""

    def __init__(self, descriptor: int, one: Declared):
        self._map = one
        self._room, self._found = 0, list[dict[str, Any]]()
        self._ring = libbpf.Ring(descriptor, self._keep)
        self._looked = -EVENT_SECONDS

    def _keep(self, data: bytes) -> bool:
        if self._room:
            self._found.append({"map": self._map.name, "value": record(self._map, data)})
        return not self._room or len(self._found) < self._room

    def take(self, most: int) -> list[dict[str, Any]]:
        now = time.monotonic()
        if now - self._looked > EVENT_SECONDS:
            self._room = 0
            self._ring.drain()
        self._looked = now
        self._room, self._found = most, []
        if most > 0:
            self._ring.drain()
        at = {"seconds": time.time()}
        return [{**one, **at} for one in self._found]

    def close(self) -> None:
        self._ring.close()


def _check_shared(own: Own, compiled: Compiled, beside: bpf.Module) -> None:
    """Raises ObjectError where its filter.h is not the one of this carom."""
    for name in sorted(SHARED & compiled.maps.keys()):
        mine, theirs = beside.shape(name), compiled.maps[name]
        if mine is None or mine[:3] != theirs[:3]:  # kind, key, value
            raise ObjectError(
                f"{own.object.where} was made with another filter.h: its {name} differs",
                hint="`carom filter build` makes one that fits",
            )


def _end(log: str) -> str:
    """The last lines of the verifier's log that tell of the program."""
    return "\n".join(f"  {line}" for line in bpf.told(log)[-_LOG_LINES:])
