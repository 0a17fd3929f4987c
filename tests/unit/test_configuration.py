# SPDX-License-Identifier: Apache-2.0
"""A stranger's files: what is no regular file, lies elsewhere, or has no end, is not read."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from carom.protocols.dns import access, configuration
from carom.protocols.dns.configuration import BYTES_MAX, FILES_MAX, Tree, Unreadable


def texts(root: Path, *names: str) -> list[tuple[str, str]]:
    return list(Tree(root, names).texts())


def test_files(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/a.conf").write_bytes(b"a\xff")
    (tmp_path / "etc/b.conf").write_text("b")
    (tmp_path / "etc/.c.conf").write_text("c")
    assert texts(tmp_path, "/etc/b.conf", "/absent", "/etc/a.conf/x", "/etc") == [
        ("/etc/b.conf", "b")
    ]
    both = [("/etc/a.conf", "a�"), ("/etc/b.conf", "b")]
    for pattern in ("/etc/*.conf", "/e*/*.conf", "/etc/**.conf", "/*/[ab].conf"):
        assert texts(tmp_path, pattern) == both, pattern
    assert texts(tmp_path, "/etc/.*") == [("/etc/.c.conf", "c")]
    assert texts(tmp_path, "/etc/[z-a]", "/absent/*", "/etc/a.conf/*") == []
    included = Tree(tmp_path, ()).included("/etc/x.conf", ["b.conf", "/etc/b.conf"], 0)
    assert list(included) == [both[1]] * 2


@pytest.mark.parametrize(
    "name", ["/secret", "/etc/../../secret", "/up", "/absolute", "/magic/secret"]
)
def test_within_the_root(tmp_path: Path, name: str) -> None:
    """By links, too: they lead to what the server itself would find there."""
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (tmp_path / "secret").write_text("of the host")
    (root / "up").symlink_to("../secret")
    (root / "absolute").symlink_to(tmp_path / "secret")
    (root / "magic").symlink_to(f"/proc/{os.getpid()}/root{tmp_path}")
    assert texts(root, name) == []
    (root / "secret").write_text("its own")
    if name not in ("/absolute", "/magic/secret"):
        assert [text for _, text in texts(root, name)] == ["its own"]


def test_only_regular_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    if os.geteuid() == 0:
        os.mknod(tmp_path / "zero", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    for one in tmp_path.iterdir():
        with pytest.raises(Unreadable, match="no regular file"):
            texts(tmp_path, f"/{one.name}")
    with pytest.raises(Unreadable):
        texts(tmp_path, "/a\0b")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(Unreadable):
        texts(tmp_path, "/loop")


@pytest.mark.parametrize("name", ["/proc/version", "/proc/self/maps"])
def test_what_reading_makes(name: str) -> None:
    """Or what it uses up: /proc/kmsg is a regular file, too."""
    with pytest.raises(Unreadable, match="no regular file"):
        texts(Path("/"), name)


def test_a_lease(tmp_path: Path) -> None:
    """Whoever has one on a file keeps others waiting for it, for 45 seconds."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        with (tmp_path / "leased").open("w") as opened:
            fcntl.fcntl(opened, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            with pytest.raises(Unreadable, match="unavailable"):
                texts(tmp_path, "/leased")
    finally:
        signal.signal(signal.SIGIO, before)


def test_so_much_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "large").write_bytes(bytes(BYTES_MAX + 1))
    with pytest.raises(Unreadable):
        texts(tmp_path, "/large")
    (tmp_path / "half").write_bytes(bytes(BYTES_MAX // 2))
    assert len(texts(tmp_path, "/half", "/half")) == 2
    with pytest.raises(Unreadable):
        texts(tmp_path, "/half", "/half", "/half")
    (tmp_path / "empty").touch()
    assert len(texts(tmp_path, *["/empty"] * FILES_MAX)) == FILES_MAX
    with pytest.raises(Unreadable):
        texts(tmp_path, *["/empty"] * (FILES_MAX + 1))
    with pytest.raises(Unreadable):
        texts(tmp_path, *["/absent"] * (FILES_MAX + 1))
    with pytest.raises(Unreadable, match="characters"):
        texts(tmp_path, "/*" * 2049)
    monkeypatch.setattr(configuration, "FILES_MAX", 3)
    for name in "abcd":
        (tmp_path / "many").mkdir(exist_ok=True)
        (tmp_path / "many" / name).touch()
    with pytest.raises(Unreadable, match="more than 3 files"):
        texts(tmp_path, "/many/*")


HOSTILE = {
    "a NUL": 'include: "a\0b"\n',
    "stars": 'include: "/etc/a**b"\n',
    "itself": 'include: "/main.conf"\nconf-file=/main.conf\n' * 30,
    "comments": "/* " * 340_000,
    "strings": '"\\' * 500_000,
    "quotes": "\"'" * 500_000,
    "braces": "{" * 5_000,
    "closing braces": "}" * 500_000,
    "empty lines": "\n" * 1_000_000,
    "blanks": " " * 1_000_000 + "include",
    "lists without an end": "allow-from: [\n" * 70_000,
    "colons": "allow_from:" * 90_000,
    "names": "include: /a\nconf-file=/a\ndofile('/a')\n" * 25_000,
    "one name": "include: " + "*/" * 500_000,
    "names in a line": "include: " + "dofile('" * 120_000,
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files(tmp_path: Path, what: str) -> None:
    """They are read, or said not to be, for all servers in the time that is there for one."""
    (tmp_path / "main.conf").write_text(HOSTILE[what])
    code = (
        "import sys; from pathlib import Path; from carom.protocols.dns import access\n"
        "access._bound()\n"
        "for one in access._SERVERS:\n"
        "    print(one, access.lists_of(one, Path(sys.argv[1]), ['/main.conf']))"
    )
    argv = [sys.executable, "-P", "-c", code, str(tmp_path)]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=access.PATIENCE)
    assert ended.returncode == 0, ended.stdout + ended.stderr
