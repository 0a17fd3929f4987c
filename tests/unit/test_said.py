# SPDX-License-Identifier: Apache-2.0
"""docs/messages.md says what all that carom says means: each table has all of it, and no more."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from carom import errors
from carom.daemon.remedies import REMEDIES
from carom.errors import CaromError
from carom.kernel.abi import Event, Verdict
from unit import said

TEXT = (said.ROOT / "docs/messages.md").read_text()
COUNTERS = (said.ROOT / "docs/counters.md").read_text()


def table(title: str) -> list[list[str]]:
    """The rows of the table under a heading, cell by cell, without its head."""
    _, _, section = TEXT.partition(f"\n## {title}\n")
    assert section, title
    lines = re.findall(r"^\|.*\|$", section.partition("\n## ")[0], re.MULTILINE)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    for row in rows:
        assert len(row) == lines[0].count("|") - 1, row
        assert all(row), f"an empty cell: {row}"
    return rows


def check_whole(there: list[str], wanted: set[str]) -> None:
    """Each once, and nothing else."""
    assert len(there) == len(set(there))
    assert set(there) == wanted, (
        f"docs/messages.md lacks {sorted(wanted - set(there))}, "
        f"and has what is not said any more: {sorted(set(there) - wanted)}"
    )


def test_verdicts() -> None:
    """In the words of `carom why`. After a change: put what this says is wanted into the file."""
    assert set(REMEDIES) == set(Verdict)
    wanted = [
        [f"`{verdict.name.lower()}`", remedy.what, remedy.change or "nothing"]
        for verdict, remedy in REMEDIES.items()
    ]
    assert table("Verdicts") == wanted, "\n".join(f"| {' | '.join(row)} |" for row in wanted)


def test_events_at_the_edge() -> None:
    rows = table("At the socket's edge")
    check_whole([row[0] for row in rows], {f"`{event.name.lower()}`" for event in Event})


@pytest.mark.parametrize("member", [*Verdict, *Event], ids=lambda one: one.name.lower())
def test_each_has_a_counter_that_is_explained(member: Verdict | Event) -> None:
    assert re.search(rf"^\| (?:`\w+`, )*`{member.name.lower()}`", COUNTERS, re.MULTILINE)


def test_the_log() -> None:
    """Each event, with its level; and those whose text is not in their call are notes."""
    levels, elsewhere = said.events()
    rows = table("The log")
    check_whole([row[0] for row in rows], set(levels))
    assert {row[0]: row[1] for row in rows} == levels
    assert sorted(elsewhere) == [
        "daemon/firewall_check.py: words",
        "daemon/run.py: note",
        "protocols/dns/cookies.py: self.advice()",
    ], "an event whose text is not found: the table may lack it"


def test_notes() -> None:
    check_whole([row[0] for row in table("Notes")], said.notes())


def classes(parent: type[CaromError] = CaromError) -> Iterator[type[CaromError]]:
    """An error and those under it, in the order of carom/errors.py."""
    yield parent
    for child in parent.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from classes(child)


def test_errors() -> None:
    """Each class with its exit code, and an example that is in the code."""
    rows = table("Errors")
    wanted = {f"`{one.__name__}`": str(one.exit_code) for one in classes()}
    check_whole([row[0] for row in rows], set(wanted))
    assert {row[0]: row[1] for row in rows} == wanted
    texts = said.texts()
    for _, _, example, *_ in rows:
        words = example.strip(f"`{said.VARIES} ")
        assert any(words in one for one in texts), example


def test_each_change_of_a_host_names_its_tests() -> None:
    """In docs/operating.md: they are there."""
    guide = (said.ROOT / "docs/operating.md").read_text()
    section = guide.partition("\n## Hosts that change\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| .* \| .* \| (`test_.*`) \|$", section, re.MULTILINE)
    assert len(rows) == section.count("\n| ") - 1
    for name in {name for row in rows for name in re.findall(r"`(\w+)`", row)}:
        assert (said.ROOT / "tests/netns" / f"{name}.py").exists(), name
