# SPDX-License-Identifier: Apache-2.0
"""Pictures of the same run are drawn once: most of what a page of runs takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from carom.lab import registry
from carom.lab.record import Run
from carom.lab.shown import Shown

Plots = Callable[[Shown[Any], Run[Any], Path], list[Path]]


def drawn_once(plots: Plots) -> Plots:
    """The same, but that what was drawn of an equal run before is written again."""
    known: dict[tuple[int, bytes], list[tuple[str, bytes]]] = {}

    def plot(shown: Shown[Any], run: Run[Any], folder: Path) -> list[Path]:
        key = id(shown), msgspec.msgpack.encode(run)  # the registry keeps what shows runs
        if key not in known:
            known[key] = [(path.name, path.read_bytes()) for path in plots(shown, run, folder)]
        for name, picture in known[key]:
            (folder / name).write_bytes(picture)
        return [folder / name for name, _ in known[key]]

    return plot


@pytest.fixture(scope="session", autouse=True)
def draw_once() -> Iterator[None]:
    """For all that shows runs."""
    kinds = {type(one) for one in (*registry.experiments().values(), *registry.kinds().values())}
    owners = {next(base for base in kind.__mro__ if "plots" in vars(base)) for kind in kinds}
    with pytest.MonkeyPatch.context() as patch:
        for owner in owners:
            patch.setattr(owner, "plots", drawn_once(vars(owner)["plots"]))
        yield
