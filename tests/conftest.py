# SPDX-License-Identifier: Apache-2.0
"""What all tests share: marks by folder, the fast path loaded once, and no silent skip in CI."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from carom.daemon import places
from carom.daemon.fastpath import FastPath
from carom.errors import PrivilegeError
from carom.kernel.bpf import check_privileges
from carom.vm import namespace

pytest.register_assert_rewrite("netns", "prog", "guest")  # what helpers assert says its values too

TESTS = Path(__file__).resolve().parent
PRIVILEGED = ("prog", "netns")
"""Folders whose tests load BPF programs, and the marks that they get."""

EXPERIMENTS = tuple(
    f"test_{name}.py"
    for name in (
        "client",
        "contests",
        "filter_experiments",
        "interference",
        "interrupted",
        "load",
        "ports",
        "soak",
        "ssh",
        "sweeps",
    )
)
"""Tests between namespaces that measure as the lab does."""

SAME_PORTS = tuple(
    f"test_{name}.py"
    for name in (
        *("exptime", "front", "front_hostile", "server", "standing"),
        *("front_coap", "torture_coap"),
    )
)
"""Those that have ports in common, before servers that are looked for in all namespaces."""

_watch = pytest.StashKey["Watch"]()

# No deadline: a busy machine is no bug. No database: tests leave nothing behind.
hypothesis.settings.register_profile("carom", deadline=None, database=None)
hypothesis.settings.load_profile("carom")


def pytest_configure(config: pytest.Config) -> None:
    """A shell ignores Ctrl-C for what it runs in the background, and nohup a terminal that is gone;
    programs started here must not."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker:  # its caroms know nothing of the other's
        os.environ["CAROM_RUN"] = f"/run/carom-test-{worker}"
        os.environ.setdefault("CAROM_CACHE", "/run/carom/compiled")  # they share that
    config.stash[_watch] = Watch()
    config.pluginmanager.register(config.stash[_watch])
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)  # a program that is started forgets a handler


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of our own."""
    parser.addoption(
        "--long",
        action="store_true",
        help="races, torture and fuzz at full length (./run race, fuzz)",
    )


@pytest.fixture(scope="session")
def long_form(pytestconfig: pytest.Config) -> bool:
    """Are races, torture and fuzz to run at full length?"""
    return bool(pytestconfig.getoption("--long"))


def _why_not() -> str | None:
    """Why BPF programs cannot be loaded here, or None."""
    try:
        check_privileges()
        from bcc import BPF  # noqa: F401
    except PrivilegeError as error:
        return f"{error} ({error.hint})"
    except ImportError as error:
        return f"BCC is missing: {error}"
    return None


def _privileged(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(mark) for mark in PRIVILEGED)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark tests by their folder."""
    folder = item.path.relative_to(TESTS).parts[0]
    if folder in PRIVILEGED:
        item.add_marker(folder)


def _part(folder: str, file: str) -> str:
    """What one process runs in one go, of several (pytest -n 4).

    Between namespaces that is a file, but for the lab's experiments, of which a machine takes one
    at a time, and for those that have ports in common. All of prog is one: what is loaded there
    serves many tests.
    """
    if folder == "netns" and file in EXPERIMENTS:
        return "lab"
    if folder == "netns" and file in SAME_PORTS:
        return "same ports"
    return folder if folder == "prog" else f"{folder}/{file}"


FIRST = ("lab", "same ports", "prog")
"""The longest parts."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of several processes, which one runs what: the next part in the order of collection."""
    from xdist.scheduler import LoadScopeScheduling

    class ByPart(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            *_, folder, file = nodeid.split("::")[0].split("/")
            return _part(folder, file)

    config.option.loadscopereorder = False
    return ByPart(config, log)


def _turn(item: pytest.Item) -> int:
    part = _part(item.path.parent.name, item.path.name)
    return FIRST.index(part) if part in FIRST else len(FIRST)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest parts first; and skip tests that cannot run here, with the reason."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        items.sort(key=_turn)
    privileged = [item for item in items if _privileged(item)]
    reason = _why_not() if privileged else None
    if reason:
        for item in privileged:
            item.add_marker(pytest.mark.skip(reason=reason))


class Watch:
    """Notes that a privileged test ran to its end, good or bad, in whichever process."""

    ran = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called where the session is, of every test."""
        if report.when == "call" and not report.skipped:
            self.ran = self.ran or any(mark in report.keywords for mark in PRIVILEGED)


def _nothing_ran(config: pytest.Config) -> bool:
    here = not hasattr(config, "workerinput")  # a worker of xdist's has only a part
    wanted = here and os.environ.get("CI") == "true" and not config.option.collectonly
    return wanted and not config.stash[_watch].ran


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In CI, a session that skipped everything that needs root has failed."""
    if "CAROM_RUN" in os.environ and hasattr(session.config, "workerinput"):
        if os.geteuid() == 0:
            namespace.clean()  # what a test that failed has left
        shutil.rmtree(os.environ["CAROM_RUN"], ignore_errors=True)
    if _nothing_ran(session.config) and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say why."""
    if _nothing_ran(config):
        terminalreporter.write_line(
            f"CI=true, but no test marked {' or '.join(PRIVILEGED)} ran: failed. "
            f"Here: {_why_not() or 'they were not selected'}.",
            red=True,
        )


@pytest.fixture
def nothing_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A run directory of the test's own: what is loaded in it is compiled first."""
    monkeypatch.setenv("CAROM_RUN", str(tmp_path / "run"))
    monkeypatch.delenv("CAROM_CACHE", raising=False)
    return tmp_path / "run"


@pytest.fixture(scope="session")
def load_fastpath() -> Iterator[Callable[..., FastPath]]:
    """FastPath(**options), compiled once a session for each set of options and closed at its end.

    Whoever takes one resets what it relies on: others used it before. No program runs while one
    changes what it looks at, so places need no rest.
    """
    loaded: dict[tuple[tuple[str, object], ...], FastPath] = {}
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setattr(places, "REST", 0.0)

        def load(**options: object) -> FastPath:
            key = tuple(sorted(options.items()))
            if key not in loaded:
                loaded[key] = stack.enter_context(FastPath(**options))  # type: ignore[arg-type]
            return loaded[key]

        yield load
