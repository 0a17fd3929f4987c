# SPDX-License-Identifier: Apache-2.0
"""`carom push` and `carom pull`: layouts through registries on loopback, and what lies there."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from carom import __version__
from carom.errors import RegistryError, UsageError
from carom.kernel import images, oci
from unit import registries
from unit.commands import Commands
from unit.layouts import MANIFEST, Document, built, small
from unit.registries import PROGRAM, Answer, Stub

registry = pytest.importorskip("carom.registry")
pytest.importorskip("oras", reason="oras (the extra oci) is not installed")

NAMES = ("fast", "slow")
UNKNOWN = "sha256:" + "0" * 64
no_debian = pytest.mark.skipif(not PROGRAM, reason="Debian's docker-registry is not installed")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nobody's logins are read, and no proxy is asked."""
    (tmp_path / "home/.docker").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "*")
    return tmp_path / "home"


@pytest.fixture
def stub() -> Iterator[Stub]:
    with registries.stub() as one:
        yield one


@pytest.fixture(params=["stub", pytest.param("debian", marks=no_debian)])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A registry of each kind."""
    if request.param == "stub":
        with registries.stub() as one:
            yield one.host
    else:
        with registries.debian(tmp_path) as host:
            yield host


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    oci.write(tmp_path / "layout", oci.pack(small(name) for name in NAMES))
    return tmp_path / "layout"


def at(host: str, name: str = "some/where/carom") -> Any:
    return registry.Registry(registry.reference(f"{host}/{name}"), plain=True)


def pulled(host: str, name: str, to: Path) -> dict[str, bytes]:
    """The object files of what has this tag or digest, by their names."""
    oci.write(to, at(host).pull(name))
    return {one.name: one.file for one in images.read(to)}


def test_there_and_back(host: str, layout: Path, tmp_path: Path) -> None:
    tags = at(host).push(layout)
    assert list(tags) == [__version__, *(f"{__version__}-{name}" for name in NAMES)]
    both = {f"{name}.o": small(name) for name in NAMES}
    assert pulled(host, __version__, tmp_path / "set") == both
    assert pulled(host, f"{__version__}-slow", tmp_path / "one") == {"slow.o": small("slow")}
    assert pulled(host, tags[__version__], tmp_path / "by digest") == both
    (top,) = images.top(tmp_path / "set")
    assert (top.tag, top.digest) == (__version__, tags[__version__])
    with pytest.raises(RegistryError, match=r"has no 9\.9"):
        at(host).pull("9.9")
    assert at(host).push(layout) == tags  # again, which changes nothing


def test_what_was_pulled_is_pushed(host: str, layout: Path, tmp_path: Path) -> None:
    """To another repository, whatever it was pulled by."""
    tags = at(host).push(layout)
    oci.write(tmp_path / "pulled", at(host).pull(tags[__version__]))
    assert at(host, "other").push(tmp_path / "pulled") == {tags[__version__]: tags[__version__]}
    assert at(host, "other").pull(tags[__version__]) == at(host).pull(tags[__version__])


def test_what_is_there_is_not_sent_again(stub: Stub, layout: Path) -> None:
    at(stub.host).push(layout)
    stub.asked.clear()
    at(stub.host).push(layout)
    assert not [one for one in stub.asked if one.startswith("POST")]


def test_by_the_command_line(stub: Stub, layout: Path, tmp_path: Path) -> None:
    ref = f"{stub.host}/carom"
    to = tmp_path / "to"
    with Commands(tmp_path) as commands:
        done = commands.run("push", ref, str(layout), "--plain-http")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"{ref}:{__version__} sha256:")
        done = commands.run("pull", ref, "-o", str(to), "--plain-http", "--json")
        assert (done.returncode, done.stderr) == (0, "")
        assert list(json.loads(done.stdout)) == [__version__]
        shown = json.loads(commands.run("programs", str(to), "--json").stdout)
        assert [one["name"] for one in shown] == list(NAMES)
        done = commands.run("pull", ref, "-o", str(to), "--plain-http")
        assert (done.returncode, done.stdout) == (2, "")
        assert "is not empty" in done.stderr
        done = commands.run("push", f"{ref}:latest", str(layout), "--plain-http")
        assert done.returncode == 2
        assert "the layout says its own" in done.stderr
        next((layout / "blobs/sha256").iterdir()).write_bytes(b"")
        done = commands.run("push", ref, str(layout), "--plain-http")
        assert done.returncode == 1
        assert f"{layout} cannot be pushed: " in done.stderr


WITHOUT = """
import sys

sys.modules["oras"] = None  # an import of it fails
from carom.cli import main

main()
"""


@pytest.mark.parametrize("command", ["push", "pull"])
def test_without_oras(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", WITHOUT, command, "localhost:1/carom"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "carom: registries need the Python package oras\n"
        "  hint: install carom with it: pip install 'carom[oci]'\n"
    )


REFERENCES = {
    "localhost:5000/carom": ("localhost:5000", "carom", "", ""),
    "some.where/a/b_c/d-e:0.1.0-fastpath": ("some.where", "a/b_c/d-e", "0.1.0-fastpath", ""),
    f"127.0.0.1:5000/carom@{UNKNOWN}": ("127.0.0.1:5000", "carom", "", UNKNOWN),
    f"[::1]:5000/dotted.name/carom:1@{UNKNOWN}": ("[::1]:5000", "dotted.name/carom", "1", UNKNOWN),
}


@pytest.mark.parametrize("text", REFERENCES)
def test_references(text: str) -> None:
    assert tuple(registry.reference(text)) == REFERENCES[text]


@pytest.mark.parametrize(
    "text",
    [
        *("", "carom", "carom:0.1.0", "some/carom", "localhost/carom", "some.where", "some.where/"),
        *("http://some.where/carom", "some.where/Carom", "some.where/../carom", "some.where/a//b"),
        *("some.where/carom:", "some.where/carom@sha256:12", "some.where/carom\n", "a b.c/carom"),
        *("user@some.where/carom", "some.where:port/carom", "some.where/carom:../x"),
    ],
)
def test_what_names_no_repository(text: str) -> None:
    """Nothing is sent to a registry that was not named."""
    with pytest.raises(UsageError, match="names no repository"):
        registry.reference(text)


def test_nobody_is_there() -> None:
    with pytest.raises(RegistryError, match=r"127\.0\.0\.1:1 cannot be reached"):
        at("127.0.0.1:1")


def test_no_tls(stub: Stub) -> None:
    with pytest.raises(RegistryError, match="no TLS") as refusal:
        registry.Registry(registry.reference(f"{stub.host}/carom"))
    assert "--plain-http" in str(refusal.value.hint)


def test_no_answer(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "TIMEOUT", 0.2)
    short = {"Content-Length": "100"}
    stub.instead = lambda method, path: Answer(200, b"{", tuple(short.items()))
    with pytest.raises(RegistryError, match=r"does not answer|breaks off"):
        at(stub.host).pull("1")


@pytest.mark.parametrize("code", [400, 401, 403, 404, 429, 500, 503])
def test_refusals(stub: Stub, layout: Path, code: int) -> None:
    """At once, in words, whatever is asked."""
    stub.instead = lambda method, path: Answer(code) if path != "/v2/" else None
    with pytest.raises(RegistryError):
        at(stub.host).pull("1")
    with pytest.raises(RegistryError):
        at(stub.host).push(layout)
    assert len(stub.asked) < 15


# Logins


def logged_in(home: Path, host: str, login: str) -> None:
    auth = base64.b64encode(login.encode()).decode()
    config = {"auths": {host: {"auth": auth}}}
    (home / ".docker/config.json").write_text(json.dumps(config))


def guard(stub: Stub, login: str) -> None:
    """Have it answer those alone that tell this name and password with each request."""
    wanted = (("WWW-Authenticate", 'Basic realm="here"'),)
    right = f"Basic {base64.b64encode(login.encode()).decode()}"
    stub.instead = lambda method, path: (
        None if stub.authorization == right else Answer(401, b"{}", wanted)
    )


LOGIN = "me:this"
USERS = "me:$2b$04$RlZRndMNFyFYRCqpIoCruuW58ZcIMaOb1iHjPJafov3mBJ3HkUCMS\n"
"""The same, as bcrypt has it."""


@pytest.fixture(params=["stub", pytest.param("debian", marks=no_debian)])
def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A registry of each kind, which wants that login."""
    if request.param == "stub":
        with registries.stub() as one:
            guard(one, LOGIN)
            yield one.host
    else:
        with registries.debian(tmp_path, USERS) as host:
            yield host


def test_a_login(guarded: str, layout: Path, home: Path, tmp_path: Path) -> None:
    logged_in(home, guarded, LOGIN)
    at(guarded).push(layout)
    assert len(pulled(guarded, __version__, tmp_path / "to")) == len(NAMES)


def test_a_login_is_wanted(guarded: str) -> None:
    with pytest.raises(RegistryError, match="wants a login") as refusal:
        at(guarded)
    assert "docker login" in str(refusal.value.hint)


def test_a_wrong_login(guarded: str, layout: Path, home: Path) -> None:
    logged_in(home, guarded, "me:that")
    for asking in (lambda: at(guarded).pull("1"), lambda: at(guarded).push(layout)):
        with pytest.raises(RegistryError, match="refuses"):
            asking()


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": []}', '{"auths": {"%s": 1}}', "\xff"])
def test_a_broken_login(stub: Stub, home: Path, text: str) -> None:
    (home / ".docker/config.json").write_text(text.replace("%s", stub.host))
    guard(stub, LOGIN)
    with pytest.raises(RegistryError, match=r"config\.json .* cannot be read|wants a login"):
        at(stub.host)


def test_a_token(stub: Stub, layout: Path) -> None:
    """As large registries have it: who asks is sent elsewhere, to be given a token."""
    realm = f'Bearer realm="http://{stub.host}/token",service="here"'

    def instead(method: str, path: str) -> Answer | None:
        if path.startswith("/token"):
            return Answer(200, b'{"token": "a"}', (("Content-Type", "application/json"),))
        first = sum(one.startswith("GET /token") for one in stub.asked) == 0
        return Answer(401, b"{}", (("WWW-Authenticate", realm),)) if first else None

    stub.instead = instead
    tags = at(stub.host).push(layout)
    assert oci.TOP in at(stub.host).pull(tags[__version__])


# Whoever answers may be anybody


def served(stub: Stub, root: Path) -> None:
    """A layout's blobs, as they are, behind the tag 1."""
    (top,) = json.loads((root / "index.json").read_text())["manifests"]
    for path in (root / "blobs/sha256").iterdir():
        data = path.read_bytes()
        kind = json.loads(data).get("mediaType", "") if data[:1] == b"{" else ""
        where = "manifests" if kind else "blobs"
        name = f"/v2/some/where/carom/{where}"
        stub.stored[f"{name}/sha256:{path.name}"] = data, kind
        if top["digest"] == f"sha256:{path.name}":
            stub.stored[f"{name}/1"] = data, kind


def test_a_good_one(stub: Stub, tmp_path: Path) -> None:
    served(stub, built(tmp_path / "layout"))
    assert pulled(stub.host, "1", tmp_path / "to") == {"small.o": small()}


def up(document: Document) -> None:
    """A path in place of a digest."""
    for one in document.get("layers") or document["manifests"]:
        one["digest"] = "sha256:../../../../../../tmp/carom-was-here"


@pytest.mark.parametrize("where", ["manifest", "index"])
def test_digests_that_are_paths(stub: Stub, tmp_path: Path, where: str) -> None:
    changes: Any = {where: up}
    served(stub, built(tmp_path / "layout", **changes))
    with pytest.raises(oci.Damaged, match="matching regex"):
        at(stub.host).pull("1")
    assert not Path("/tmp/carom-was-here").exists()


@pytest.mark.parametrize("kind", ["blobs", "manifests"])
def test_other_bytes_than_named(stub: Stub, tmp_path: Path, kind: str) -> None:
    served(stub, built(tmp_path / "layout"))
    for path, (data, media_type) in stub.stored.items():
        if f"/{kind}/sha256:" in path:
            stub.stored[path] = data[:-1] + b" ", media_type
    with pytest.raises(oci.Damaged, match="digest is another one"):
        at(stub.host).pull("1")


def test_another_digest_than_asked_for(stub: Stub, tmp_path: Path) -> None:
    served(stub, built(tmp_path / "layout"))
    stub.stored[f"/v2/some/where/carom/manifests/{UNKNOWN}"] = stub.stored[
        "/v2/some/where/carom/manifests/1"
    ]
    with pytest.raises(oci.Damaged, match="another digest than was asked for"):
        at(stub.host).pull(UNKNOWN)


def test_a_blob_without_an_end(stub: Stub, tmp_path: Path) -> None:
    """No more than its size is read, though there would be a TB."""
    served(stub, built(tmp_path / "layout"))
    endless = Answer(200, bytes(1 << 20), (("Content-Length", str(1 << 40)),))
    stub.instead = lambda method, path: endless if "/blobs/" in path else None
    with pytest.raises(oci.Damaged, match="more than the"):
        at(stub.host).pull("1")


def test_a_manifest_without_an_end(stub: Stub) -> None:
    endless = Answer(200, bytes(6 << 20), (("Content-Length", str(1 << 40)),))
    stub.instead = lambda method, path: endless if "/manifests/" in path else None
    with pytest.raises(oci.Damaged):
        at(stub.host).pull("1")


@pytest.mark.parametrize("kind", ["", "text/html", MANIFEST, "application/json; charset=utf-8"])
def test_another_type(stub: Stub, tmp_path: Path, kind: str) -> None:
    served(stub, built(tmp_path / "layout"))
    where = "/v2/some/where/carom/manifests/1"
    stub.stored[where] = stub.stored[where][0], kind
    with pytest.raises(oci.Damaged):
        at(stub.host).pull("1")


def test_a_page_for_people(stub: Stub, layout: Path) -> None:
    """As a portal in between gives for everything."""
    stub.instead = lambda method, path: Answer(
        200, b"<html>Log in", (("Content-Type", "text/html"),)
    )
    with pytest.raises(RegistryError, match="refuses: 200"):
        at(stub.host).push(layout)
    with pytest.raises(oci.Damaged):
        at(stub.host).pull("1")
