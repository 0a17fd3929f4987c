# SPDX-License-Identifier: Apache-2.0
"""Two hosts that ssh alone reaches: sshds in namespaces, and a third one for the lab."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from carom.vm.namespace import Namespace, join, pids
from carom.vm.netns import CLIENT, INTERFACE, SERVER, NamespacePair
from netns.process import until
from netns.tools import tool

CONTROL = "control"
ADDRESSES = {"client": "198.18.10.2", "server": "198.18.20.2"}
_LAB = {"client": "198.18.10.1", "server": "198.18.20.1"}
_PRIVILEGES = Path("/run/sshd")
_CONFIG = """
ListenAddress 0.0.0.0
HostKey {folder}/{role}_key
AuthorizedKeysFile {folder}/user_key.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM {pam}
StrictModes no
PidFile none
SetEnv {environment}
"""


class Far(NamedTuple):
    """The pair's namespaces, that of the lab, and the folder with keys and configuration."""

    client: Namespace
    server: Namespace
    lab: Namespace
    folder: Path
    idle: dict[str, set[int]]
    """What runs on the hosts when nothing does."""

    def machine(self, role: str, **changes: Any) -> dict[str, Any]:
        """How a pair's file names it."""
        return {
            "host": ADDRESSES[role],
            "user": "root",
            "interface": INTERFACE,
            "address": {"client": CLIENT, "server": SERVER}[role],
            "identity": "user_key",
            "known_hosts": "known_hosts",
            "config": "/dev/null",
            "python": sys.executable,
            **changes,
        }

    def file(
        self, client: dict[str, Any] | None = None, server: dict[str, Any] | None = None
    ) -> Path:
        """A pair's file, with some entries changed; None takes one out."""
        text = ""
        for role, changes in (("client", client), ("server", server)):
            text += f"[{role}]\n"
            for key, value in self.machine(role, **(changes or {})).items():
                if value is not None:
                    quoted = f'"{value}"' if isinstance(value, str) else str(value).lower()
                    text += f"{key} = {quoted}\n"
        path = self.folder / "pair.toml"
        path.write_text(text)
        return path

    def strangers(self, role: str) -> set[int]:
        """What runs on a host beside what always does."""
        return set(pids(getattr(self, role).name)) - self.idle[role]

    def check_nothing_left(self) -> None:
        """Whatever ran on the hosts has ended, or does so now."""
        for role in ADDRESSES:
            until(lambda role=role: not self.strangers(role), f"the {role}'s processes to end")


def _key(path: Path) -> str:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True
    )
    return Path(f"{path}.pub").read_text().strip()


def _locked() -> bool:
    """Without PAM, sshd lets nobody in whose account is locked."""
    line = next(one for one in Path("/etc/shadow").read_text().split("\n") if one[:5] == "root:")
    return line.split(":")[1].startswith("!")


def _listens(address: str) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, 22), 1) as one:
        return one.recv(4) == b"SSH-"
    return False


@contextlib.contextmanager
def _privilege_separation() -> Iterator[None]:
    """A folder that sshd wants, and has where it runs as a service."""
    made = not _PRIVILEGES.exists()
    _PRIVILEGES.mkdir(mode=0o755, exist_ok=True)
    yield
    if made:
        _PRIVILEGES.rmdir()


@contextlib.contextmanager
def far(folder: Path, **environment: str) -> Iterator[Far]:
    """The three; skips the test where there is no sshd. Sessions there have the environment."""
    program = tool("sshd")
    if not shutil.which("ssh"):
        pytest.skip("ssh is not installed")
    _key(folder / "user_key")
    known = []
    said = {"NO_COLOR": "1", **environment}
    with contextlib.ExitStack() as stack:
        stack.enter_context(_privilege_separation())
        pair = stack.enter_context(NamespacePair(bare=True))
        lab = stack.enter_context(Namespace("lab"))
        ends = {"client": pair.client.namespace, "server": pair.server.namespace}
        for role, namespace in ends.items():
            known.append(f"{ADDRESSES[role]} {_key(folder / f'{role}_key')}\n")
            join(lab, role, namespace, CONTROL)
            lab.address(role, _LAB[role], 30)
            namespace.address(CONTROL, ADDRESSES[role], 30)
            config = folder / f"{role}_config"
            config.write_text(
                _CONFIG.format(
                    folder=folder,
                    role=role,
                    pam="yes" if _locked() else "no",
                    environment=" ".join(f"{name}={value}" for name, value in said.items()),
                )
            )
            argv = namespace.argv([program, "-D", "-e", "-f", str(config)])
            with (folder / f"{role}_log").open("w") as log:
                sshd = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=log)
            stack.enter_context(sshd)
            stack.callback(sshd.terminate)
            until(
                lambda address=ADDRESSES[role]: lab.call(lambda: _listens(address)),
                f"the {role}'s sshd",
            )
        (folder / "known_hosts").write_text("".join(known))
        idle = {role: set(pids(one.name)) for role, one in ends.items()}
        yield Far(ends["client"], ends["server"], lab, folder, idle)
