# SPDX-License-Identifier: Apache-2.0
"""Whom name servers answer, as far as their configuration tells: hits bypass their access lists.

The configuration is a stranger's, who may write something into it that takes for ever to read. So a
process of its own reads it (`python -m carom.protocols.dns.access NAME PID`), with a time limit.
"""

from __future__ import annotations

import itertools
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from carom.kernel import forked
from carom.protocols.dns import access_bind, access_lines, access_unbound
from carom.protocols.dns.configuration import Finding, Tree, Unreadable

PATIENCE = 30
"""Seconds that reading may take; of CPU time, a third of that."""

_MEMORY = 1 << 30
_SHOWN = 3
_LONGEST = 160  # characters of a statement that are shown
_UNBOUND = ("/etc/unbound/unbound.conf", "/usr/local/etc/unbound/unbound.conf")
_KRESD = ("/etc/knot-resolver/kresd.conf", "/etc/knot-resolver/config.yaml")
_RECURSOR = tuple(
    f"/etc/{folder}/recursor.{suffix}"
    for folder in ("powerdns", "pdns-recursor")
    for suffix in ("conf", "yml")
)


class _Server(NamedTuple):
    """A kind of server: its default files, their reader, the options that name other files."""

    files: tuple[str, ...]
    read: Callable[[Tree, Sequence[str]], list[Finding] | None]
    options: tuple[str, ...] = ("-c", "--config")


_SERVERS = {
    "named": _Server(
        ("/etc/bind/named.conf", "/etc/named.conf", "/usr/local/etc/named.conf"), access_bind.read
    ),
    "unbound": _Server(_UNBOUND, access_unbound.read),
    "nsd": _Server(("/etc/nsd/nsd.conf",), access_unbound.read_nsd),
    "knotd": _Server(("/etc/knot/knot.conf",), access_lines.read_knot),
    "kresd": _Server(_KRESD, access_lines.read_kresd),
    "pdns_recursor": _Server(_RECURSOR, access_lines.read_recursor, ("--config-dir",)),
    "dnsmasq": _Server(("/etc/dnsmasq.conf",), access_lines.read_dnsmasq, ("-C", "--conf-file")),
}


def access_lists(pids: Iterable[int]) -> Iterator[str]:
    """Whom these servers refuse or answer differently from others: one warning for each server."""
    reported = set()
    for pid in pids:
        try:
            name = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
        except OSError:  # it has ended
            continue
        name = next((known for known in _SERVERS if name.startswith(known)), name)
        if name not in _SERVERS or name in reported:
            continue
        reported.add(name)
        findings = _read_apart(name, pid)
        if findings is None:
            yield (
                f"the configuration of {name} (pid {pid}) cannot be read, or not all of it: what "
                "it answers to some clients alone, hits give to all; --allow PREFIX bounds them"
            )
        elif findings:
            yield (
                f"the access list of {name} (pid {pid}) does not see what is answered before it; "
                f"repeat it with --allow PREFIX: {'; '.join(findings)}"
            )


def _read_apart(name: str, pid: int) -> list[str] | None:
    argv = [sys.executable, "-P", "-m", __name__, name, str(pid)]
    try:
        findings: list[str] | None = json.loads(forked.run(argv, timeout=PATIENCE))
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return findings


def _bound() -> None:
    """Have the kernel end this process if it takes too much CPU time or memory."""
    resource.setrlimit(resource.RLIMIT_CPU, (PATIENCE // 3, PATIENCE // 3))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


def _main(name: str, pid: int) -> None:
    _bound()
    findings = lists_of(name, *_where(pid, _SERVERS[name]))
    if findings and len(findings) > _SHOWN:  # there may be any number of them
        findings = [*findings[:_SHOWN], f"and {len(findings) - _SHOWN} more"]
    print(json.dumps(findings))


def _where(pid: int, server: _Server) -> tuple[Path, list[str], list[str]]:
    """The root of a server's files, the names of its configuration files, and its arguments."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        folder = str(Path(f"/proc/{pid}/cwd").readlink())
    except OSError:
        return Path("/"), [], []
    given = [str(PurePosixPath(folder, entry)) for entry in _given(words, server.options)]
    if server.options == ("--config-dir",):
        names = dict.fromkeys(PurePosixPath(file).name for file in server.files)
        given = [f"{place}/{name}" for place in given for name in names]
    return Path(f"/proc/{pid}/root"), given or list(server.files), words[1:]


def _given(words: Sequence[str], options: Sequence[str]) -> Iterator[str]:
    """The values of options, as `-c FILE`, `-cFILE`, `--config FILE` and `--config=FILE`."""
    for word, value in itertools.pairwise([*words, ""]):
        for option in options:
            if word == option:
                yield value
            elif word.startswith(f"{option}=" if option.startswith("--") else option):
                yield word.removeprefix(option).removeprefix("=")


def lists_of(
    name: str, root: Path, files: Iterable[str], arguments: Sequence[str] = ()
) -> list[str] | None:
    """The statements that treat clients differently; None: the server's files are unreadable."""
    try:
        findings = _SERVERS[name].read(Tree(root, files), arguments)
    except (Unreadable, RecursionError):
        return None
    if findings is None:
        return None
    return list(
        dict.fromkeys(f"{_short(finding.said)} ({_short(finding.file)})" for finding in findings)
    )


def _short(text: str) -> str:
    """A statement cut for a log, without characters that a terminal would obey."""
    text = "".join(
        character if character.isprintable() else "?" for character in " ".join(text.split())
    )
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
