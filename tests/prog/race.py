# SPDX-License-Identifier: Apache-2.0
"""Two CPUs at once in race.c or flights.c, built as it is or with one thing broken."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Mapping
from enum import IntEnum, auto
from pathlib import Path

from carom import cgroup, protocols, xdp
from carom.daemon.clock import jiffies_per_second
from carom.daemon.store import Extent, Policy, Store
from carom.kernel import libbpf
from carom.kernel.bpf import Module
from carom.kernel.hashes import Hashes
from carom.kernel.recipe import INCLUDE, Expansion, Recipe
from carom.kernel.resource import Resource
from carom.kernel.timing import timing

HERE = Path(__file__).resolve().parent
CHUNK = 250_000
"""Rounds of one system call. Between two the kernel waits for its readers, and no race is run."""

PATIENCE = 10_000_000
"""Rounds after which a broken build counts as not found out."""


def folder(package: object) -> Path:
    """Where a room's files are."""
    return Path(str(package.__file__)).resolve().parent  # type: ignore[attr-defined]


class Tally(IntEnum):
    """tally.h's enum tally."""

    WRITES = 0
    FLUSHES = auto()
    FILLS = auto()
    DENIED = auto()
    HITS = auto()
    ABSENT = auto()
    VOID = auto()
    REPLACED = auto()
    OTHER = auto()
    STALE = auto()
    TORN = auto()
    LEFT = auto()


Tallies = Mapping[Tally, int]


def found(tally: Tally) -> Callable[[Tallies], bool]:
    """Has any been counted?"""
    return lambda tallies: tallies[tally] > 0


def broken(text: str, changes: Mapping[str, str]) -> str:
    """The same C with parts replaced, each of which must be there: a mutant."""
    for old, new in changes.items():
        assert old in text, f"there is nothing to break any more: {old!r}"
        text = text.replace(old, new)
    return text


class Race(Resource):
    """A C file, loaded with empty maps; `changes` are made to its text, the headers' in it too."""

    def __init__(
        self,
        where: Path,
        changes: Mapping[str, str],
        defines: Mapping[str, str | int],
        name: str = "race.c",
        cache: tuple[Policy, int] | None = None,
        test_clock: bool = False,
    ):
        """With a `cache`, by its policy and capacity, it has a store too."""
        rooms = (*protocols.INCLUDE, folder(xdp), folder(cgroup))
        text = Expansion((INCLUDE, *rooms, HERE), protocols.headers()).of(HERE / name)
        source = where / name
        source.write_text(broken(text, changes))
        hashes = Hashes()
        extent = Extent(cache[1], "always") if cache else None
        self._module = Module(
            Recipe(source, defines=defines),
            parameters={
                **timing(jiffies_per_second(), test_clock=test_clock),
                **hashes.parameters,
                "languages": 0,
                "counted": 1,
                "dry": 0,
                "noted": 0,
                "shadow": 0,
            },
            entries=extent.sizes() if extent else {},
        )
        if cache and extent:
            self.store = Store(self._module, hashes, extent, cache[0], drafts=False)
            while self.store.grow():
                pass
        self._tallies = self._module.map("tallies")

    def tallies(self) -> Tallies:
        """What was done and found so far, over all CPUs."""
        cpus = libbpf.possible_cpus()
        found = {}
        for tally in Tally:
            value = libbpf.lookup(self._tallies, struct.pack("=I", tally), 8 * cpus)
            found[tally] = sum(struct.unpack(f"={cpus}Q", value or bytes(8 * cpus)))
        return found

    def once(self, program: str) -> None:
        """Run a program once."""
        libbpf.test_run(self._module.program(program), bytes(64))

    def run(
        self,
        *programs: str,
        rounds: int,
        until: Callable[[Tallies], bool] | None = None,
    ) -> Tallies:
        """Run two programs, each on a CPU of its own, for so many rounds or until something is.

        Neither leaves before the other has done its rounds, however the CPUs are shared.
        """
        loaded = [self._module.program(name) for name in programs]
        done = [0, 0]
        errors: list[BaseException] = []
        start = threading.Barrier(2)

        def wanted() -> bool:
            if errors or (until and until(self.tallies())):
                return False
            return min(done) < rounds

        def drive(i: int, cpu: int) -> None:
            try:
                os.sched_setaffinity(0, {cpu})  # of this thread alone
                start.wait()
                while wanted():
                    libbpf.test_run(loaded[i], bytes(64), CHUNK)
                    done[i] += CHUNK
            except BaseException as error:
                errors.append(error)
                start.abort()

        cpus = sorted(os.sched_getaffinity(0))[:2]
        threads = [
            threading.Thread(target=drive, args=(i, cpu), name=f"cpu {cpu}")
            for i, cpu in enumerate(cpus)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return self.tallies()

    def close(self) -> None:
        """Free programs and maps."""
        self._module.close()
