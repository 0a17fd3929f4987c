# SPDX-License-Identifier: Apache-2.0
"""How any experiment is run: rounds, orders, refusals, and the record, without a pair."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from carom.errors import ExperimentError
from carom.lab import experiment, registry, results
from carom.lab.experiment import Experiment, Group, Needs, Settings
from carom.lab.experiments.contests.contest import ShownContest
from carom.lab.hosts.environment import environment
from carom.lab.record import Figures, Run, Wait
from carom.lab.testbed import Bed
from carom.xdp.link import REFUSED

HOST = SimpleNamespace(interface="eth0", address="198.18.0.2", driver=lambda: "e1000")
MACHINE = environment("netns", "e1000", None, {})
NATIVE = REFUSED.format(mode="native")


class Toy(ShownContest, Experiment[Settings, Figures]):
    """Servers of three series, each asked thrice; what they do is for a test to say."""

    name = "toy"
    description = "measures nothing"
    full = Settings(repetitions=4)
    short = Settings(repetitions=1)

    def __init__(self, waits: tuple[Wait, ...] = ("blocking",) * 3, **how: Any):
        self.waits = waits
        self.refused = how.get("refused", ())
        self.optional = how.get("optional", True)
        self.fails = how.get("fails", lambda cell: None)
        self.log: list[str] = []

    def groups(self, settings: Settings, index: int) -> list[Group]:
        return [
            Group(name, [f"{name}{number}" for number in range(3)], True, wait, self.optional)
            for name, wait in zip("abc", self.waits, strict=True)
        ]

    @contextlib.contextmanager
    def serving(self, bed: Bed[Settings], group: Group) -> Iterator[str]:
        if group.series in self.refused:
            raise ExperimentError(f"eth0 (driver e1000, MTU 1500) {NATIVE}: no")
        self.log.append(f"start {group.series}")
        bed.modes.add("native")
        yield group.series
        self.log.append(f"stop {group.series}")

    def measure(self, bed: Bed[Settings], server: str, cell: str, index: int) -> Iterator[Figures]:
        assert cell.startswith(server)
        self.fails(cell)
        yield Figures(subject=cell, index=index, figures={"s": 1.0})


def run(toy: Toy, cpus: int = 2, **settings: Any) -> tuple[Run[Figures], list[str]]:
    """The run, and what was said to be measured."""
    said: list[str] = []

    class Agent(contextlib.nullcontext[Any]):
        def __init__(self, host: object):
            super().__init__(self)
            self.host = host

        def call(self, name: str, **_: object) -> list[int]:
            assert name == "cpus"
            return list(range(cpus))

    def pair(*, bare: bool = False) -> Any:
        return contextlib.nullcontext(SimpleNamespace(one_machine=True, client=HOST, server=HOST))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(experiment, "Agent", Agent)
        patched.setattr(experiment, "environments", lambda *_: (MACHINE, None))
        chosen = msgspec.structs.replace(toy.full, **settings)
        found = experiment.run(toy, chosen, lambda what, index: said.append(what), pair)
    return found, said


def test_every_cell_is_measured_in_every_repetition() -> None:
    found, said = run(Toy())
    measured = [(one.index, one.subject) for one in found.measurements]
    wanted = [(n, f"{name}{cell}") for n in range(4) for name in "abc" for cell in range(3)]
    assert sorted(measured) == wanted
    assert said == [subject for _, subject in measured]
    assert found.complete and found.stopped is None
    assert (found.experiment, found.measured, found.seed) == ("toy", "figures", 1)
    assert found.environment.mode == "native"
    assert "left_out" not in found.settings


def test_a_server_runs_while_its_cells_are_measured_and_no_longer() -> None:
    toy = Toy()
    run(toy, repetitions=1)
    assert sorted(toy.log[::2]) == ["start a", "start b", "start c"]
    assert [one.replace("start", "stop") for one in toy.log[::2]] == toy.log[1::2]


def test_the_order_is_the_seeds() -> None:
    orders = {seed: run(Toy(), seed=seed)[1] for seed in range(5)}
    assert orders[3] == run(Toy(), seed=3)[1]
    assert len({tuple(one) for one in orders.values()}) == 5
    rounds = [tuple(orders[1][n : n + 9]) for n in range(0, 36, 9)]
    assert len(set(rounds)) > 1


def test_a_series_that_the_driver_refuses_is_left_out() -> None:
    found, said = run(Toy(refused="b"))
    assert {one[0] for one in said} == {"a", "c"} and len(said) == 24
    assert found.complete and found.settings["left_out"] == ["b"]


def test_but_not_where_it_is_all_or_was_asked_for() -> None:
    found, _ = run(Toy(refused="abc"))
    assert not found.complete and found.measurements == []
    assert found.stopped and NATIVE in found.stopped
    found, _ = run(Toy(refused="b", optional=False))
    assert not found.complete and found.stopped and NATIVE in found.stopped


def test_other_failures_end_a_run_and_keep_what_was_done() -> None:
    def fails(cell: str) -> None:
        if cell == "b2":
            raise ExperimentError("counts disagree", hint="look")

    found, said = run(Toy(fails=fails), seed=2)
    assert found.stopped == "counts disagree (look)" and not found.complete
    assert [one.subject for one in found.measurements] == said[:-1]


def test_an_interrupt_keeps_what_was_done_and_stops_the_server() -> None:
    left = iter(range(5))

    def interrupted(cell: str) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    found, _ = run(Toy(fails=interrupted))
    assert len(found.measurements) == 5
    assert (found.complete, found.stopped) == (False, None)


def test_waits_that_cannot_be() -> None:
    found, said = run(Toy(("blocking", "one-cpu", "spin")), cpus=1)
    assert {one[0] for one in said} == {"a", "b"} and found.complete
    found, _ = run(Toy(("spin",) * 3), cpus=1)
    assert found.stopped and "cannot wait as asked" in found.stopped


def test_steps_are_what_is_said() -> None:
    toy = Toy()
    assert len(run(toy)[1]) == toy.steps(toy.full) == 36
    for name, one in registry.experiments().items():
        assert one.steps(one.short) > 0, name


def test_the_record_of_an_experiment_that_nobody_knows_is_read_and_shown(tmp_path: Path) -> None:
    """By what it measured: a folder that was taken out again leaves its runs readable."""
    found, _ = run(Toy())
    loaded = results.load(results.write(found, tmp_path))
    assert loaded == found
    shown = registry.of(loaded)
    assert shown.tables(loaded)[0].rows and shown.plots(loaded, tmp_path)


def test_needs_are_looked_for_on_the_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    class Agent(contextlib.nullcontext[Any]):
        def __init__(self, _: object):
            super().__init__(self)

        def call(self, name: str, programs: tuple[str, ...] = ()) -> list[Any]:
            return [0] if name == "cpus" else [one for one in programs if one == "gone"]

    def pair(**_: object) -> Any:
        made.append(None)
        return contextlib.nullcontext(SimpleNamespace(one_machine=True, client=HOST, server=HOST))

    monkeypatch.setattr(experiment, "Agent", Agent)
    toy = Toy()
    experiment.check([toy], pair)
    assert not made, "nothing is needed"
    toy.needs = Needs({"gone": "its-package", "there": "x"})
    with pytest.raises(ExperimentError, match=r"gone is not installed .* toy needs it") as error:
        experiment.check([toy], pair)
    assert error.value.hint == "apt install its-package"
    toy.needs = Needs(apart=True)
    with pytest.raises(ExperimentError, match="need a CPU each"):
        experiment.check([toy], pair)
