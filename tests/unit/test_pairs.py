# SPDX-License-Identifier: Apache-2.0
"""A pair's file: what it may say, and which key is named where it says something else."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import pytest

from carom.errors import UsageError
from carom.vm import pairs
from carom.vm.netns import NamespacePair
from carom.vm.ssh import Machine, SSHHost

CLIENT = '[client]\nhost = "left"\ninterface = "eth1"\naddress = "198.18.0.1"\n'
SERVER = '[server]\nhost = "right"\ninterface = "eth1"\naddress = "198.18.0.2"\n'
DOCS = Path(__file__).resolve().parents[2] / "docs" / "pairs.md"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a pair's file may be."""
    return tmp_path / "pair.toml"


def test_namespaces_are_the_pair_that_needs_no_file() -> None:
    assert pairs.make("netns") is NamespacePair


def test_least(file: Path) -> None:
    file.write_text(CLIENT + SERVER)
    found = pairs.read(file)
    assert found.client == Machine(host="left", interface="eth1", address="198.18.0.1")
    assert found.server.host_keys == "known"
    assert found.server.sudo


def test_the_example_of_the_docs(file: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    file.write_text(example)
    assert pairs.read(file).server.address == "198.18.0.2"


def test_the_docs_name_every_key() -> None:
    for key in Machine.__struct_fields__:
        assert re.search(rf"^\| .*`{key}`.* \|", DOCS.read_text(), re.MULTILINE), key


def test_files_are_beside_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/one")
    more = 'identity = "key"\nknown_hosts = "~/hosts"\nconfig = "/etc/other"\n'
    file.write_text(CLIENT + more + SERVER)
    client = pairs.read(file).client
    assert client.identity == str(file.parent / "key")
    assert client.known_hosts == "/home/one/hosts"
    assert client.config == "/etc/other"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (CLIENT, "missing required field `server`"),
        (CLIENT + SERVER + "[third]\n", "unknown field `third`"),
        (CLIENT + SERVER + "prot = 22\n", "server: .*unknown field `prot`"),
        (CLIENT + SERVER + 'port = "22"\n', "server.port: Expected `int"),
        (CLIENT + SERVER + "port = 70000\n", "server.port cannot be 70000"),
        (CLIENT + SERVER + 'host_keys = "no"\n', "server.host_keys: Invalid enum value 'no'"),
        (CLIENT + SERVER + 'folder = "here"\n', "server.folder cannot be 'here'"),
        (CLIENT + SERVER.replace("198.18.0.2", "right"), "server.address cannot be 'right'"),
        (CLIENT.replace('"left"', '"-oProxyCommand=x"') + SERVER, "client.host cannot be '-o"),
        (CLIENT.replace("eth1", "../eth1") + SERVER, "client.interface cannot be"),
        (CLIENT + 'identity = "~nobody-at-all/key"\n' + SERVER, "client.identity cannot be"),
        (CLIENT + 'config = "c"\nhost_keys = "accept-new"\n' + SERVER, "client.host_keys cannot"),
        ("[client\n", "is not TOML"),
    ],
)
def test_wrong_file(file: Path, text: str, words: str) -> None:
    file.write_text(text)
    with pytest.raises(UsageError, match=words) as caught:
        pairs.make(str(file))
    assert str(file) in str(caught.value)


def test_no_file(file: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*pair\.toml: No such file"):
        pairs.make(str(file))


def _options(argv: list[str]) -> list[str]:
    return [value for flag, value in itertools.pairwise(argv) if flag == "-o"]


def test_ssh_is_told_what_the_file_says() -> None:
    machine = Machine(
        host="right",
        interface="eth1",
        address="198.18.0.2",
        user="one",
        port=2222,
        jump="gate",
        identity="/keys/a key",
        config="/c",
        known_hosts="/known hosts",
    )
    argv = SSHHost("server", machine).ssh("true")
    assert argv[0] == "ssh"
    assert argv[-3:] == ["--", "right", "true"]
    for flag, value in {"-l": "one", "-p": "2222", "-J": "gate", "-i": "/keys/a key"}.items():
        assert argv[argv.index(flag) + 1] == value
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes"} <= set(_options(argv))
    assert 'UserKnownHostsFile="/known hosts"' in _options(argv)


@pytest.mark.parametrize(("keys", "word"), [("known", "yes"), ("accept-new", "accept-new")])
def test_no_key_is_believed_unseen(keys: str, word: str) -> None:
    machine = Machine(host="h", interface="i", address="198.18.0.2", host_keys=keys)  # type: ignore[arg-type]
    said = [one for one in _options(SSHHost("server", machine).ssh("true")) if "Strict" in one]
    assert said == [f"StrictHostKeyChecking={word}"]


@pytest.mark.parametrize("sudo", [True, False])
def test_arguments_arrive_as_they_are(sudo: bool) -> None:
    host = SSHHost("server", Machine(host="h", interface="i", address="198.18.0.2", sudo=sudo))
    program = ["printf", "%s", "a b", "'; rm -rf $HOME", "*"]
    there = shlex.split(host.argv(program)[-1])
    assert there[0] == "exec"
    assert there[-len(program) :] == program
    assert ("sudo" in host.argv(program)[-1]) is sudo
