# SPDX-License-Identifier: Apache-2.0
"""What a killed process leaves of its pair is removed, and nobody else's is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from carom.daemon import control
from carom.vm import namespace
from carom.vm.netns import NamespacePair
from netns.line import of_pair
from netns.process import DEADLINE, HERE, Carom, attached, environment, until
from netns.wire import Client

NAMED = Path("/run/netns")
CLAIMS = control.directory() / "namespaces"


class Owner:
    """A process that owns a pair."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(HERE / "owner.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert self.process.stdout
        self.made: dict[str, Any] = json.loads(self.process.stdout.readline())
        self.namespaces: set[str] = set(self.made["namespaces"])

    def there(self) -> set[str]:
        """Those of its namespaces that are there."""
        return {name for name in self.namespaces if (NAMED / name).exists()}

    def leave(self) -> int:
        """Let it end by itself."""
        self.process.communicate(timeout=DEADLINE)
        return self.process.returncode

    def kill(self) -> None:
        """Give it no chance."""
        self.process.kill()
        self.process.communicate(timeout=DEADLINE)


@contextmanager
def owner() -> Iterator[Owner]:
    """An owner, gone at the end."""
    made = Owner()
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.leave()


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def test_clean_after_kill_9() -> None:
    with owner() as killed, owner() as living:
        assert killed.there() == killed.namespaces
        killed.kill()
        assert killed.there() == killed.namespaces, "nobody removes them by itself"
        assert _alive(killed.made["orphan"])

        removed = namespace.clean()
        assert all(name in removed for name in killed.namespaces)
        assert not any(name in removed for name in living.namespaces)
        assert killed.there() == set()
        assert not any((CLAIMS / name).exists() for name in killed.namespaces)
        until(lambda: not _alive(killed.made["carom"]), "its carom to end")
        until(lambda: not _alive(killed.made["orphan"]), "its orphan to end")
        assert not (control.directory() / f"{killed.made['carom']}.sock").exists()

        assert living.there() == living.namespaces
        assert _alive(living.made["orphan"])
        assert (
            control.call("status", living.made["carom"])["ready"]["interfaces"][0]["mode"]
            == "generic"
        )
        assert living.leave() == 0
        assert living.there() == set()


def test_clean_has_nothing_to_do(straight: Any) -> None:
    """A pair that its own process still has stays."""
    namespace.clean()
    assert namespace.clean() == []
    assert (NAMED / straight.server.name).exists()


def test_leaving_ends_what_runs_inside() -> None:
    with ExitStack() as stack:
        pair = stack.enter_context(NamespacePair())
        names = {pair.client.namespace.name, pair.server.namespace.name}
        line = of_pair(pair)
        carom = Carom(line.server)
        orphan = subprocess.Popen(line.client.argv(["sleep", "600"]))
        with Client(line.client, line.address) as client:
            assert client.ask(b"there") == b"there"
        assert attached(line.server)
        assert names <= {path.name for path in NAMED.iterdir()}
    assert orphan.wait(DEADLINE) != 0
    assert carom.wait().code == 0
    assert not names & {path.name for path in NAMED.iterdir()}
    assert not names & {path.name for path in CLAIMS.iterdir()}


def test_failed_pair_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pair that cannot be finished takes away what it had made."""

    def fail(*_: object) -> int:
        raise OSError("no program today")

    before = {path.name for path in CLAIMS.iterdir()}
    monkeypatch.setattr("carom.vm.netns.attach_pass", fail)
    with pytest.raises(OSError, match="no program today"):
        NamespacePair()
    assert {path.name for path in CLAIMS.iterdir()} - before == set()
