# SPDX-License-Identifier: Apache-2.0
"""Image layouts: what is packed is read again, the same each time; what is wrong is refused."""

from __future__ import annotations

import json
import os
import random
import shutil
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from carom.errors import ObjectError
from carom.kernel import elf, images, objects, oci
from carom.kernel.oci import Damaged
from reference.damage import damaged
from unit.layouts import INDEX, MANIFEST, Document, built, small, tar

TIMES = 300
NAMES = ("fast", "slow")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A layout with two objects."""
    oci.write(tmp_path / "layout", oci.pack(small(name) for name in NAMES))
    return tmp_path / "layout"


def documents(root: Path) -> dict[str, Document]:
    """Each JSON document of a layout, by its digest or name."""
    found = {}
    for path in root.rglob("*"):
        if path.is_file() and path.read_bytes()[:1] == b"{":
            found[path.name] = json.loads(path.read_bytes())
    return found


def blob(root: Path, descriptor: Document) -> Any:
    """The document that it stands for."""
    return json.loads((root / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes())


def test_what_is_packed_is_read(root: Path) -> None:
    read = images.read(root)
    assert [(one.name, one.file) for one in read] == [(f"{n}.o", small(n)) for n in NAMES]
    assert {one.architecture for one in read} == {images.architecture()}


@pytest.mark.parametrize("architecture", ["amd64", "arm64", "riscv64", "ppc64le"])
def test_other_machines(root: Path, architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(architecture, architecture)
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert [one.architecture for one in images.read(root)] == [architecture] * 2


def test_two_packs_are_equal() -> None:
    first, second = (oci.pack(small(name) for name in names) for names in (NAMES, NAMES[::-1]))
    assert first == second


def test_nothing_in_it_tells_when_or_by_whom(root: Path) -> None:
    for path in root.rglob("*"):
        text = path.read_bytes() if path.is_file() else b""
        if text[:2] == b"\x1f\x8b":
            assert text[4:8] == bytes(4)
            with tarfile.open(path) as opened:
                (entry,) = opened.getmembers()
            assert (entry.mtime, entry.uid, entry.gid, entry.uname) == (0, 0, 0, "")
        assert b"created" not in text


def test_tags(root: Path) -> None:
    """The set, and each object's own."""
    version = elf.label(small()).version
    tags = [one.tag for one in images.top(root)]
    assert tags == [version, *(f"{version}-{name}" for name in NAMES)]


def test_the_convention(root: Path) -> None:
    """One layer, shared by all architectures; labels; and the object is all that the layer has."""
    _, fast, _ = json.loads((root / "index.json").read_text())["manifests"]
    index = blob(root, fast)
    platforms = [one["platform"] for one in index["manifests"]]
    assert platforms == [{"architecture": a, "os": "linux"} for a in sorted(oci.ARCHITECTURES)]
    manifests = [blob(root, one) for one in index["manifests"]]
    layers = {json.dumps(one["layers"]) for one in manifests}
    assert len(layers) == 1
    ((layer,),) = map(json.loads, layers)
    assert layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
    for manifest, platform in zip(manifests, platforms, strict=True):
        config = blob(root, manifest["config"])
        assert platform.items() <= config.items()
        labels = config["config"]["Labels"]
        assert json.loads(labels["io.ebpf.programs"]) == {"one": "xdp", "two": "tc"}
        assert json.loads(labels["io.ebpf.maps"]) == {"cells": "array"}
    with tarfile.open(root / "blobs" / layer["digest"].replace(":", "/")) as opened:
        assert [(one.name, one.isreg()) for one in opened] == [("fast.o", True)]


def test_the_set_has_every_manifest(root: Path) -> None:
    whole, *each = json.loads((root / "index.json").read_text())["manifests"]
    parts = [one for single in each for one in blob(root, single)["manifests"]]
    assert blob(root, whole)["manifests"] == parts


def test_a_folder_with_something_in_it_is_not_written_to(root: Path) -> None:
    before = sorted(root.parent.rglob("*"))
    with pytest.raises(OSError):
        oci.write(root, {"oci-layout": b"another"})
    assert sorted(root.parent.rglob("*")) == before


PACKS: dict[str, tuple[list[bytes], str]] = {
    "nothing": ([], "of none"),
    "two versions": ([small("a", "0.1"), small("b", "0.2")], "of 0.1, 0.2"),
    "a name twice": ([small("a"), small("a", says=1)], "two objects of the name a"),
    "a name with a path": ([small("../a")], "cannot be a part of a tag"),
    "no object": ([b"#!/bin/sh"], "no object file"),
}


@pytest.mark.parametrize("name", PACKS)
def test_what_is_no_set(name: str) -> None:
    given, why = PACKS[name]
    with pytest.raises(elf.Foreign, match=why):
        oci.pack(given)


def test_a_version_that_is_no_tag() -> None:
    files = oci.pack([small(version="0.1.0+here")])
    assert [
        one["annotations"][oci.REF_NAME] for one in json.loads(files[oci.TOP])["manifests"]
    ] == [
        "0.1.0_here",
        "0.1.0_here-small",
    ]


# Damage


def test_damaged_files_are_refused(root: Path) -> None:
    """In any file. What index.json calls a thing is all that has no checksum."""
    chance = random.Random(18)
    expected = images.read(root)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    refused = 0
    for number in range(TIMES):
        path = files[number % len(files)]
        right = path.read_bytes()
        path.write_bytes(damaged(right, chance))
        try:
            assert images.read(root) == expected
            assert path.parent == root or path.read_bytes() == right, path
        except Damaged as error:
            refused += 1
            assert str(error)
        path.write_bytes(right)
    assert refused > 0.9 * TIMES


@pytest.mark.parametrize("what", ["archive", "layer", "config", "manifest", "index", "top"])
def test_forged_layouts_are_refused_or_read(what: str, tmp_path: Path) -> None:
    """With digests and sizes that are right. Whatever is read is the archive's file."""
    chance, read = random.Random(what), 0
    archive = tar(("small.o", small()))
    for number in range(TIMES):
        root = tmp_path / str(number)
        change = lambda data: damaged(data, chance)  # noqa: E731
        if what == "archive":
            built(root, change(archive))
        elif what == "layer":
            built(root, archive, layer=change)
        else:
            built(root, archive, bytes_of=(what, change))
        try:
            (one,) = images.read(root)
            read += 1
            assert what in ("archive", "layer") or one.file == small()
        except Damaged as error:
            assert str(error)
        shutil.rmtree(root)
    assert read < TIMES


@pytest.mark.parametrize("name", ["oci-layout", "index.json", "blobs"])
def test_something_missing(root: Path, name: str) -> None:
    path = root / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ObjectError, match=f"{root} cannot be loaded: .* cannot be read"):
        list(objects.found([root]))


@pytest.mark.parametrize("kind", ["pipe", "folder", "zeros", "link to nowhere"])
def test_a_blob_that_is_no_file(root: Path, kind: str) -> None:
    """Nothing is waited for, and nothing is read without an end."""
    path = next((root / "blobs/sha256").iterdir())
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "zeros" else "/nowhere/at/all")
    with pytest.raises(Damaged, match=r"is no file|cannot be read"):
        images.read(root)


def entry(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    """An entry without a content."""
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def sparse() -> bytes:
    """A file of 8 GB, all of it a hole, as GNU tar writes it."""
    header = bytearray(tar(entry("small.o", tarfile.GNUTYPE_SPARSE))[:512])
    header[483:495] = b"100000000000"
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header) + bytes(1024)


FILE = small()
ARCHIVES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "no archive"),
    "no archive": (b"x" * 2000, "no archive"),
    "no entry": (tar(), "0 entries"),
    "two": (tar(("a.o", FILE), ("b.o", FILE)), "2 entries"),
    "a path": (tar(("usr/small.o", FILE)), "at its root"),
    "a path upwards": (tar(("../../etc/small.o", FILE)), "at its root"),
    "an absolute path": (tar(("/etc/small.o", FILE)), "at its root"),
    "a path upwards, by PAX": (
        tar(("../" * 60 + "small.o", FILE), format=tarfile.PAX_FORMAT),
        "at its root",
    ),
    "another name": (tar(("small.so", FILE)), "at its root"),
    "a terminal's escape": (tar(("\x1b[2Jsmall.o", FILE)), r"\\x1b"),
    "a link": (tar(entry("small.o", tarfile.SYMTYPE, linkname="/etc/passwd")), "at its root"),
    "a hard link": (tar(entry("small.o", tarfile.LNKTYPE, linkname="small.o")), "at its root"),
    "a device": (tar(entry("small.o", tarfile.CHRTYPE, devmajor=1, devminor=5)), "at its root"),
    "a folder": (tar(entry("small.o", tarfile.DIRTYPE)), "at its root|no archive"),
    "a hole of 8 GB": (sparse(), "at its root|no archive"),
    "a file that is cut short": (tar(("small.o", FILE))[:900], "no archive|cut short"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives(name: str, tmp_path: Path) -> None:
    archive, why = ARCHIVES[name]
    with pytest.raises(Damaged, match=why):
        images.read(built(tmp_path / "layout", archive))


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["small.o", "./small.o"])
def test_archives_of_others(name: str, format: int, tmp_path: Path) -> None:
    (one,) = images.read(built(tmp_path / "layout", tar((name, FILE), format=format)))
    assert one.name == "small.o"
    assert one.file == FILE


def bomb(_: bytes) -> bytes:
    """64 MB of zeros in 64 kB."""
    packer = zlib.compressobj(9, wbits=31)
    parts = [packer.compress(bytes(1 << 24)) for _ in range(4)]
    return b"".join([*parts, packer.flush()])


LAYERS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a bomb": (bomb, "more than 33,554,432 bytes when unpacked"),
    "cut short": (lambda data: data[:-9], "cut short"),
    "no gzip": (lambda data: zlib.compress(data), "cannot be unpacked"),
    "two, one behind the other": (lambda data: data + data, "behind its end"),
    "nothing": (lambda data: b"", "cut short"),
    "too large": (lambda data: bytes(33 << 20), "33,554,432 are taken"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str, tmp_path: Path) -> None:
    change, why = LAYERS[name]
    with pytest.raises(Damaged, match=why):
        images.read(built(tmp_path / "layout", layer=change))


def said(**fields: object) -> Callable[[Document], None]:
    """A change of a document's fields."""
    return lambda document: document.update(fields)


def of_first(key: str, **fields: object) -> Callable[[Document], None]:
    """A change of the first descriptor of a list."""
    return lambda document: document[key][0].update(fields)


def twice(key: str) -> Callable[[Document], None]:
    return lambda document: document.update({key: document[key] * 2})


UP = "sha256:../../../../etc/passwd"
DOCUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "no manifests": ({"index": said(manifests=[])}, "no object file in it"),
    "nothing at all": ({"top": said(manifests=[])}, "names nothing"),
    "manifests that are none": ({"index": said(manifests={})}, "Expected `array`"),
    "another version": ({"index": said(schemaVersion=1)}, "Invalid enum value 1"),
    "no index": ({"index": said(mediaType="text/plain")}, "says that it is 'text/plain'"),
    "no index at the top": ({"top": said(mediaType=MANIFEST)}, "index.json says"),
    "an unknown kind": ({"top": of_first("manifests", mediaType="text/plain")}, "no index and no"),
    "a manifest as an index": ({"top": of_first("manifests", mediaType=MANIFEST)}, "missing requi"),
    "an index as a manifest": ({"index": of_first("manifests", mediaType=INDEX)}, "missing requir"),
    "two layers": ({"manifest": twice("layers")}, "has 2 layers"),
    "no layer": ({"manifest": said(layers=[])}, "has 0 layers"),
    "a layer of bytes": (
        {"manifest": of_first("layers", mediaType="application/octet-stream")},
        "no tar.gzip",
    ),
    "a path as a digest": ({"manifest": of_first("layers", digest=UP)}, "matching regex"),
    "a path as an index": ({"top": of_first("manifests", digest=UP)}, "matching regex"),
    "a line end behind a digest": (
        {"top": of_first("manifests", digest=f"sha256:{'0' * 64}\n")},
        "matching regex",
    ),
    "another digest": (
        {"top": of_first("manifests", digest=f"sha256:{'0' * 64}")},
        "sha256/0{64} cannot be read",
    ),
    "a size too small": ({"top": of_first("manifests", size=5)}, "more than the 5 bytes"),
    "a size too large": ({"manifest": of_first("layers", size=9999)}, "and should have 9,999"),
    "a size beyond all": ({"manifest": of_first("layers", size=1 << 62)}, "are taken"),
    "a negative size": ({"manifest": of_first("layers", size=-1)}, ">= 0"),
    "another system": ({"config": said(os="windows")}, "for 'windows'"),
    "another platform in the index": (
        {"index": of_first("manifests", platform={"architecture": "s390x", "os": "linux"})},
        "another platform than its index",
    ),
    "another machine": (
        {
            "config": said(architecture="s390x"),
            "index": of_first("manifests", platform={"architecture": "s390x", "os": "linux"}),
        },
        "small.o for s390x only, and this machine is",
    ),
    "another layer's digest": (
        {"config": said(rootfs={"type": "layers", "diff_ids": [f"sha256:{'0' * 64}"]})},
        "another layer than there is",
    ),
    "no JSON": ({"bytes_of": ("index", lambda _: b"\xff\xfe{")}, "not what it should be"),
    "far too deep": ({"bytes_of": ("top", lambda _: b'{"a":' * 10**5)}, "not what it should"),
    "far too large": ({"bytes_of": ("index", lambda _: bytes(5 << 20))}, "4,194,304 are taken"),
    "a larger top": (
        {"bytes_of": ("top", lambda data: data + b" " * (5 << 20))},
        "4,194,304 bytes",
    ),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents(name: str, tmp_path: Path) -> None:
    changes, why = DOCUMENTS[name]
    root = built(tmp_path / "layout", **changes)
    with pytest.raises(Damaged, match=why):
        images.read(root)
    with pytest.raises(ObjectError, match=f"{root} cannot be loaded: "):
        list(objects.found([root]))


def test_another_format(root: Path) -> None:
    (root / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}')
    with pytest.raises(Damaged, match=r"oci-layout is not .*2\.0\.0"):
        images.read(root)


def test_docker_s_names(tmp_path: Path) -> None:
    """What a tool has converted is the same in other words."""
    docker = "application/vnd.docker.distribution.manifest"
    layer = "application/vnd.docker.image.rootfs.diff.tar.gzip"

    def index(document: Document) -> None:
        document.update(mediaType=f"{docker}.list.v2+json")
        document["manifests"][0].update(mediaType=f"{docker}.v2+json")

    def manifest(document: Document) -> None:
        document.update(mediaType=f"{docker}.v2+json")
        document["layers"][0].update(mediaType=layer)

    top = of_first("manifests", mediaType=f"{docker}.list.v2+json")
    root = built(tmp_path / "layout", index=index, manifest=manifest, top=top)
    assert [one.file for one in images.read(root)] == [FILE]


def nested(root: Path, times: int) -> Path:
    """A layout whose index is in an index, so many times."""
    built(root)
    top = json.loads((root / "index.json").read_text())
    for _ in range(times):
        data = json.dumps({"schemaVersion": 2, "manifests": top["manifests"]}).encode()
        (root / "blobs" / oci.digest(data).replace(":", "/")).write_bytes(data)
        one = {"mediaType": INDEX, "digest": oci.digest(data), "size": len(data)}
        top["manifests"] = [one]
    (root / "index.json").write_text(json.dumps(top))
    return root


def test_indexes_of_indexes(tmp_path: Path) -> None:
    assert len(images.read(nested(tmp_path / "some", 2))) == 1
    with pytest.raises(Damaged, match="nested more than"):
        images.read(nested(tmp_path / "many", 3))


def test_an_index_that_names_one_very_often(tmp_path: Path) -> None:
    """It is gone through once: nobody waits for what multiplies at each level."""

    def often(document: Document) -> None:
        document["manifests"] *= 10_000

    assert len(images.read(built(tmp_path / "layout", index=often, top=often))) == 1


def test_all_together_has_a_bound(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setattr(images, "_TOTAL", 5000)
    with pytest.raises(Damaged, match="all of it would have more than 5,000 bytes"):
        images.read(root)


def test_one_object_is_for_another_machine_only(root: Path) -> None:
    """That is said, and not passed over."""
    found = list(images.in_layout(root).images(images.top(root)))
    own = [one for one in found if (one.name, one.architecture) != ("slow.o", "arm64")]
    assert len(images.chosen(own, "amd64")) == 2
    with pytest.raises(Damaged, match=r"slow\.o for amd64, ppc64le, riscv64 only.* arm64"):
        images.chosen(own, "arm64")


# Where programs come from


@pytest.fixture
def chosen(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That layout is what --programs says."""
    monkeypatch.setenv(objects.CHOSEN, str(root))
    return root


def test_a_layout_is_chosen(chosen: Path) -> None:
    compiled = objects.chosen("slow")
    assert compiled
    assert set(compiled.programs) == {"one", "two"}
    assert objects.chosen("another") is None


def test_of_another_abi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(objects, "abi", lambda: "0" * 64)
        oci.write(tmp_path / "old", oci.pack([small("fast", "0.0.9")]))
    monkeypatch.setenv(objects.CHOSEN, str(tmp_path / "old"))
    with pytest.raises(ObjectError, match=r"old: fast\.o is of carom 0\.0\.9 with the ABI 0{12}"):
        objects.chosen("fast")


def test_two_of_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of them was meant nobody can know."""
    folder = tmp_path / "both"
    folder.mkdir()
    for number in (1, 2):
        (folder / f"{number}.o").write_bytes(small("fast", says=number))
    monkeypatch.setenv(objects.CHOSEN, str(folder))
    with pytest.raises(ObjectError, match=r"several objects called fast: .*1\.o, .*2\.o"):
        objects.chosen("fast")
