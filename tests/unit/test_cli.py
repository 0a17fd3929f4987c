# SPDX-License-Identifier: Apache-2.0
"""The command line without root: what it prints, refuses, and exits with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import carom as carom_package
from carom import __version__
from carom.daemon.service import Service
from unit.commands import Commands


def carom(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "carom", *argv],
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """For commands by the dozen."""
    with Commands(tmp_path_factory.mktemp("said")) as commands:
        yield commands


def test_version() -> None:
    assert carom("--version").stdout == f"carom {__version__}\n"


def test_a_command_of_the_lab_imports_nothing_that_draws_or_estimates() -> None:
    imported = _imported("from carom.lab import registry; registry.experiments()")
    assert not imported & {"matplotlib", "scipy"}


def _imported(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_what_a_program_imports() -> None:
    assert carom_package.Service is Service
    with pytest.raises(AttributeError, match="has no attribute 'service'"):
        carom_package.service  # noqa: B018


def test_lab_list_names_the_experiments() -> None:
    assert set(json.loads(carom("lab", "list", "--json").stdout)) == {
        "bounce",
        "cache",
        "load",
        "memcached",
        "nsd",
        "beside",
        "interference",
        "filter-throughput",
        "filter-loss",
        "concurrency",
        "demux",
        "filter-throughput-loss",
        "hooks",
        "sizes",
        "clients",
        "knee",
        "minutes",
    }


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["quux"], 2, "quux"),
        (["serve", "--port", "0", "-i", "lo"], 2, "port 0 is out of range"),
        (["serve", "--port", "x"], 2, "--port"),
        (["serve", "--ttl", "soon"], 2, "'soon' is not a duration"),
        (["serve", "--mode", "turbo"], 2, "hint: auto | native | generic"),
        (["serve", "--protocol", "RAW"], 2, "no interface"),
        (["front"], 2, "name one with -i\n"),
        (["front", "--hook", "none"], 2, "hint: --hook xdp | tc\n"),
        (["front", "--protocol", "http"], 2, "hint: memcached | dns"),
        (["front", "--protocol", "http", "-p", "80"], 2, "protocol 'http' is unknown"),
        (["front", "--protocol", "DNS"], 2, "no interface"),
        (["front", "--protocol", "raw"], 2, "front cannot learn raw"),
        (["front", "-p", "0"], 2, "port 0 is out of range"),
        (["serve"], 2, "no interface"),
        (["serve", "-p", "9", "--port=10"], 2, "--port is given more than once: 9, 10\n"),
        (["serve", "-p", "9", "-p9"], 2, "--port is given more than once: 9, 9\n"),
        (["serve", "-i", "lo", "-i", "lo", "--json", "--json"], 1, "lo is not an Ethernet"),
        (["front", "--protocol", "memcached", "--protocol", "dns"], 2, "once: memcached, dns\n"),
        (["front", "--config", "a", "--config", "b"], 2, "--config is given more than once: a, b"),
        (["front", "--allow", "198.18.0.0/24", "--allow", "198.18.1.0/24"], 2, "no interface"),
        (["cache", "get", "-p", "4", "key", "-p", "5"], 2, "--port is given more than once"),
        (["filter", "show", "--pid", "4", "--pid", "5"], 2, "--pid is given more than once"),
        (["lab", "run", "bounce", "--packets", "5", "--packets", "6"], 2, "--packets is given"),
        (["ping", "127.0.0.1", "9", "--size", "5", "--size", "6"], 2, "--size is given more"),
        (["serve", "--app", "nowhere:service"], 2, "no module 'nowhere'"),
        (["serve", "--app", "carom.apps:nothing"], 2, "no Service named 'nothing'"),
        (["lab", "run", "quux"], 2, "no experiment 'quux'"),
        (["lab", "run", "cache", "--hit-rates", "0,2"], 2, "hit-rates 2 is out of range"),
        (["lab", "run", "cache", "--hit-rates", "a"], 2, "hit-rates 'a' is not a number"),
        (["lab", "run", "cache", "--waits", "never"], 2, "waits 'never' is unknown"),
        (["lab", "run", "cache", "--on", "moon"], 2, "no pair 'moon'"),
        (["lab", "run", "load", "--hit-rates", "1"], 2, "load has no --hit-rates"),
        (["lab", "run", "bounce", "--packets", "9"], 2, "bounce has no --packets"),
        (["lab", "run", "load", "--full"], 2, "load has no --full"),
        (["lab", "run", "filter-loss", "--mode", "native"], 2, "filter-loss has no --mode"),
        (["lab", "run", "load", "--seconds", "1,2"], 2, "one of --seconds"),
        (["lab", "run", "bounce", "load", "--keys", "0"], 2, "keys 0"),
        (["lab", "run", "beside", "--keys", "9"], 2, "beside has no --keys"),
        (["lab", "run", "bounce", "--seconds", "nan"], 2, "seconds 'nan' is not a number"),
        (["lab", "run", "bounce", "cache", "--seconds", "1,2"], 2, "cache takes one of --seconds"),
        (["lab", "run", "bounce", "--size", "0"], 2, "size 0 is out of range"),
        (["lab", "run", "cache", "--hit-rates", "0,0,1"], 2, "hit-rates has something twice"),
        (["lab", "run", "filter-loss", "--percents", "9,9"], 2, "percents has something twice"),
        (["lab", "run", "demux", "--loops", "1,2,3,4"], 2, "demux has no --loops"),
        (["lab", "run", "cache", "--queue", "9"], 2, "cache has no --queue"),
        (["lab", "run", "concurrency", "--keys", "9"], 2, "concurrency has no --keys"),
        (["lab", "run", "concurrency", "--loops", "1,2,3"], 2, "wrong option"),
        (["lab", "run", "demux", "concurrency", "--sleeps", "1,2,3,4"], 2, "sleeps 1 is out of"),
        (["lab", "run", "demux", "--seconds", "1,2"], 2, "one of --seconds"),
        (["lab", "run", "hooks", "cache", "--sizes", "9"], 2, "hooks and cache have no --sizes"),
        (["lab", "run", "sizes", "--sizes", "1,2000"], 2, "sizes 2000 is out of range"),
        (["lab", "run", "clients", "--clients", "1.5"], 2, "is not a whole number"),
        (["lab", "run", "clients", "--waits", "one-cpu"], 2, "clients has no wait one-cpu"),
        (["lab", "run", "knee", "--rates", "0"], 2, "rates 0 is out of range"),
        (["lab", "run", "minutes", "--windows", "1"], 2, "windows 1 is out of range"),
        (["lab", "run", "hooks", "--series", "socket"], 2, "series 'socket' is unknown"),
        (["lab", "run", "bounce", "--output", "/dev/null"], 1, "cannot write the results under"),
        (["lab", "run", "filter-loss", "--rates", "9,0,8"], 2, "rising"),
        (["lab", "bench", "--entries", "some"], 2, "are not numbers"),
        (["lab", "bench", "--entries", "inf"], 2, "are not numbers"),
        (["ping", "::1", "9"], 1, "nothing listens on ::1 port 9\n"),
        (["ping", "2001:db8::x", "9"], 2, "cannot send to 2001:db8::x"),
        (["ping", "127.0.0.1", "9", "--size", "big"], 2, "is not a size"),
        (["ping", "127.0.0.1", "9", "--rate", "5", "--interval", "1s"], 2, "same thing"),
        (["ping", "127.0.0.1", "9", "--draw", "lots"], 2, "draw 'lots' is unknown"),
        (["ping", "127.0.0.1", "9", "--draw", "unique", "--size", "1"], 2, "too few requests"),
        (["ping", "127.0.0.1", "9", "--rate", "nan"], 2, "rate 'nan' is not a number"),
        (["ping", "127.0.0.1", "9", "--timeout", "0.5us"], 2, "timeout 5e-07 s is out of range"),
        (["ping", "127.0.0.1", "9", "--timeout", "99h"], 2, "timeout 356400 s is out of range"),
        (["load", "127.0.0.1", "9"], 2, "--interface"),
        (["load", "127.0.0.1", "9", "-i", "lo", "--rate", "lots"], 2, "'lots' is not a rate"),
        (["load", "127.0.0.1", "9", "-i", "lo", "--draw", "lots"], 2, "draw 'lots' is unknown"),
        (["load", "127.0.0.1", "9", "-i", "lo", "--mode", "turbo"], 2, "auto | native | generic"),
        (["load", "127.0.0.1", "9", "-i", "lo", "--size", "9-3"], 2, "size 9-3"),
        (["load", "127.0.0.1", "9", "-i", "lo", "--file", "nowhere"], 2, "cannot read nowhere"),
        (["load", "127.0.0.1", "9", "-i", "lo", "--writes", "0.1"], 2, "belong together"),
        (["load", "127.0.0.1", "9", "-i", "lo", "--burst", "0"], 2, "burst 0 is out of range"),
        (["load", "nowhere", "9", "-i", "lo"], 2, "'nowhere' is not an IPv4 address"),
        (["load", "127.0.0.1", "9", "-i", "lo"], 1, "lo is not an Ethernet interface"),
        (["cache", "get", "0xzz"], 2, "not hexadecimal"),
        (["status", "--pid", "1"], 1, "does not answer"),
    ],
)
def test_a_mistake_is_one_clear_message(
    commands: Commands, argv: list[str], code: int, words: str
) -> None:
    done = commands.run(*argv)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "argv",
    [
        ("serve", "--ttl", "soon"),
        ("serve",),
        ("front", "--protocol", "raw"),
        ("front",),
        ("cache", "get", "0xzz"),
        ("filter", "show", "--pid", "4", "--pid", "5"),
        ("status", "--pid", "1"),
        ("ping", "::1", "9"),
        ("load", "127.0.0.1", "9", "-i", "lo"),
        ("lab", "run", "quux"),
        ("lab", "run", "bounce", "--size", "0"),
        ("lab", "bench", "--entries", "some"),
    ],
    ids=" ".join,
)
def test_a_fork_says_what_a_command_does_that_imports_for_itself(
    commands: Commands, argv: tuple[str, ...]
) -> None:
    done = carom(*argv)
    assert commands.run(*argv) == (done.returncode, done.stdout, done.stderr)
    assert done.returncode


def test_an_app_that_cannot_be_imported_shows_its_author_why(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import not_there_at_all\n")
    serve = ("serve", "--app", "broken:service")
    quiet, verbose = (carom(*v, *serve, PYTHONPATH=str(tmp_path)) for v in ((), ("-v",)))
    for done in (quiet, verbose):
        assert done.returncode == 2
        assert "broken cannot be imported: ModuleNotFoundError" in done.stderr
    assert "Traceback" not in quiet.stderr
    assert "Traceback" in verbose.stderr
