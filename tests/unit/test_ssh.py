# SPDX-License-Identifier: Apache-2.0
"""What is made of an ssh that fails, by way of one that is made up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from carom.errors import HostError, HostKeyError, LoginError, UnreachableError
from carom.vm.ssh import Machine, SSHHost

MACHINE = Machine(host="right", interface="lo", address="127.0.0.1")


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that comes before the real one."""
    path = tmp_path / "ssh"
    path.touch()
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return path


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("ssh: connect to host right port 22: Connection refused", UnreachableError, "refused"),
        ("ssh: Could not resolve hostname right: Name not known", UnreachableError, "resolve"),
        ("kex_exchange: Connection closed by remote host", UnreachableError, "closed"),
        ("one@right: Permission denied (publickey,password).", LoginError, "let us in"),
        ("No ED25519 host key is known for right and you have requested strict checking.\n"
         "Host key verification failed.", HostKeyError, "not known"),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nOffending key in hosts:1\n"
         "Host key verification failed.", HostKeyError, "another host key"),
        ("", UnreachableError, "says nothing"),
    ],
)  # fmt: skip
def test_refusals(ssh: Path, said: str, kind: type[HostError], words: str) -> None:
    ssh.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{said}\nEND\nexit 255\n")
    with pytest.raises(kind, match=words) as caught:
        SSHHost("server", MACHINE).check()
    assert type(caught.value) is kind
    assert "server (right)" in str(caught.value)
    assert caught.value.hint


def _here(ssh: Path, before: str = "") -> SSHHost:
    """A host that is this one, behind some command."""
    ssh.write_text(f'#!/bin/sh\nfor last; do :; done\nexec {before} sh -c "$last"\n')
    return SSHHost("server", MACHINE)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
NOBODY = "setpriv --reuid=65534 --regid=65534 --clear-groups"


@needs_root
def test_a_host_as_it_must_be(ssh: Path) -> None:
    host = _here(ssh)
    host.check()
    assert host.run("sh", "-c", "exit 3").returncode == 3
    assert host.run("cat", input=b"\0\n").stdout == b"\0\n"


@needs_root
def test_no_way_to_become_root(ssh: Path) -> None:
    with pytest.raises(LoginError, match=r"cannot become root: .*sudo"):
        _here(ssh, NOBODY).check()


@needs_root
def test_not_root(ssh: Path) -> None:
    host = _here(ssh, NOBODY)
    other = SSHHost("server", Machine(host="h", interface="lo", address="127.0.0.1", sudo=False))
    with pytest.raises(LoginError, match="we are not root"):
        other.check()
    assert host.machine.sudo


@needs_root
def test_no_shell(ssh: Path) -> None:
    ssh.write_text("#!/bin/sh\necho This account is not available.\nexit 1\n")
    with pytest.raises(LoginError, match="does not do as it is told: This account"):
        SSHHost("server", MACHINE).check()


@needs_root
@pytest.mark.parametrize(
    ("interface", "address", "words"),
    [
        ("nope0", "127.0.0.1", "no interface 'nope0' on the server"),
        ("lo", "198.18.0.9", "lo of the server .* has not the address 198.18.0.9"),
    ],
)
def test_another_interface(ssh: Path, interface: str, address: str, words: str) -> None:
    _here(ssh)
    machine = Machine(host="h", interface=interface, address=address)
    with pytest.raises(HostError, match=words):
        SSHHost("server", machine).check()


@needs_root
def test_a_python_without_carom(ssh: Path) -> None:
    _here(ssh)
    machine = Machine(host="h", interface="lo", address="127.0.0.1", python="/bin/false")
    with pytest.raises(HostError, match=r"/bin/false of the server .* cannot run carom's lab"):
        SSHHost("server", machine).deploy(print)


def test_setting_up_that_fails(ssh: Path) -> None:
    ssh.write_text("#!/bin/sh\necho first\necho no network >&2\nexit 100\n")
    lines: list[str] = []
    with pytest.raises(HostError, match="cannot be set up: no network"):
        SSHHost("server", MACHINE).stream("true", progress=lines.append)
    assert lines == ["server: first", "server: no network"]


@pytest.mark.parametrize("status", [255, -9, -15])
def test_a_connection_that_breaks(status: int) -> None:
    error = SSHHost("server", MACHINE).ended(status)
    assert isinstance(error, UnreachableError)
    assert "the connection to the server (right) broke" in str(error)


def test_an_agent_that_ends() -> None:
    error = SSHHost("server", MACHINE).ended(1)
    assert not isinstance(error, UnreachableError)
    assert "status 1" in str(error)
