# SPDX-License-Identifier: Apache-2.0
"""What is in an OCI image layout (oci.py), or behind a registry's tag: all of it is checked.

Nothing of it is believed: not how long a blob is, not what is in it, not what a file is called.
"""

from __future__ import annotations

import io
import os
import platform
import re
import stat
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from carom.kernel.oci import (
    INDEX,
    LAYER,
    MANIFEST,
    PIN,
    TOP,
    Config,
    Damaged,
    Descriptor,
    Index,
    Manifest,
    Pin,
    decoded,
    digest,
)

INDEXES = (INDEX, "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = (MANIFEST, "application/vnd.docker.distribution.manifest.v2+json")
DOCUMENTS = INDEXES + MANIFESTS
_LAYERS = (LAYER, "application/vnd.docker.image.rootfs.diff.tar.gzip")
"""Each with the name that Docker had for the same."""

DOCUMENT = 4 << 20
"""The most bytes of a JSON document, which registries have as their limit, too."""
_BLOB = 32 << 20
"""The most bytes of a layer, packed or unpacked: the largest object file has less than one MB."""
_TOTAL = 256 << 20
_DEPTH = 3
"""How far indexes may be nested; carom's are not."""

_FILE = re.compile(r"(?:\./)?([A-Za-z0-9][A-Za-z0-9._-]*\.o)", re.ASCII)
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_BROKEN = (
    *(tarfile.TarError, ValueError, LookupError, OverflowError, RuntimeError, EOFError),
    *(OSError, struct.error),
)
"""What reading an archive may raise where it is not as it should be."""

Fetch = Callable[[Descriptor, int], bytes]
"""Gives a blob, of which it need not read more than so many bytes. May raise Damaged."""


class Image(NamedTuple):
    """An object file for one architecture, and what its archive calls it."""

    architecture: str
    name: str
    file: bytes


def architecture() -> str:
    """This machine's, by OCI's name."""
    machine = platform.machine()
    return _MACHINES.get(machine, machine)


class Walk:
    """Goes through indexes and manifests to all that they name."""

    def __init__(self, fetch: Fetch):
        self.blobs: dict[str, tuple[Descriptor, bytes]] = {}
        """What was fetched and checked, by its digest."""
        self.documents: list[Descriptor] = []
        """Its indexes and manifests: each behind those that it names."""
        self._fetch = fetch
        self._room = _TOTAL
        self._walked: set[str] = set()
        self._layers: dict[str, tuple[str, str, bytes]] = {}

    def images(self, named: Iterable[Descriptor], depth: int = 0) -> Iterator[Image]:
        """All images below these, each once. Raises Damaged."""
        for one in named:
            if one.digest in self._walked:
                self.blob(one, DOCUMENT)
                continue
            self._walked.add(one.digest)
            if one.media_type in INDEXES:
                if depth == _DEPTH:
                    raise Damaged(f"its indexes are nested more than {_DEPTH} times")
                index = decoded(self.blob(one, DOCUMENT), Index, one.path)
                _check_kind(index, one)
                yield from self.images(index.manifests, depth + 1)
                self.documents.append(one)
            elif one.media_type in MANIFESTS:
                yield self._image(one)
                self.documents.append(one)
            else:
                raise Damaged(f"{one.path} is {one.media_type!r}, no index and no manifest")

    def blob(self, one: Descriptor, most: int) -> bytes:
        """The bytes of a blob that may be so large. Raises Damaged unless they are what is said."""
        if one.size > most:
            raise Damaged(f"{one.path} would have {one.size:,} bytes; {most:,} are taken")
        if one.digest not in self.blobs:
            self._room -= one.size
            if self._room < 0:
                raise Damaged(f"all of it would have more than {_TOTAL:,} bytes")
            data = self._fetch(one, one.size + 1)
            if len(data) == one.size and digest(data) != one.digest:
                raise Damaged(f"{one.path} is damaged: its digest is another one")
            if len(data) > one.size:
                raise Damaged(f"{one.path} has more than the {one.size:,} bytes that it should")
            if len(data) < one.size:
                raise Damaged(f"{one.path} has {len(data):,} bytes and should have {one.size:,}")
            self.blobs[one.digest] = one, data
        known, data = self.blobs[one.digest]
        if (known.size, known.media_type) != (one.size, one.media_type):
            raise Damaged(f"{one.path} is said to be two things")
        return data

    def _image(self, one: Descriptor) -> Image:
        manifest = decoded(self.blob(one, DOCUMENT), Manifest, one.path)
        _check_kind(manifest, one)
        if len(manifest.layers) != 1:
            raise Damaged(f"{one.path} has {len(manifest.layers)} layers; images of programs: one")
        (layer,) = manifest.layers
        if layer.media_type not in _LAYERS:
            raise Damaged(f"{one.path} has {layer.media_type!r} as its layer, no tar+gzip")
        config = decoded(self.blob(manifest.config, DOCUMENT), Config, manifest.config.path)
        if config.os != "linux":
            raise Damaged(f"{one.path} is for {config.os!r}, not for linux")
        said = one.platform
        if said and (said.os, said.architecture) != (config.os, config.architecture):
            raise Damaged(f"{one.path} is for another platform than its index says")
        unpacked, name, file = self._layer(layer)
        if config.rootfs.diff_ids != [unpacked]:
            raise Damaged(f"{manifest.config.path} tells of another layer than there is")
        return Image(config.architecture, name, file)

    def _layer(self, one: Descriptor) -> tuple[str, str, bytes]:
        """The digest of its archive, and the file in it: name and bytes."""
        if one.digest not in self._layers:
            tar = _unpacked(self.blob(one, _BLOB), one.path)
            self._layers[one.digest] = digest(tar), *_only(tar, one.path)
        else:
            self.blob(one, _BLOB)
        return self._layers[one.digest]


def _check_kind(document: Index | Manifest, one: Descriptor) -> None:
    if document.media_type and document.media_type != one.media_type:
        raise Damaged(f"{one.path} says that it is {document.media_type!r}")


def _unpacked(data: bytes, what: str) -> bytes:
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)  # gzip's frame
    try:
        tar = unpacker.decompress(data, _BLOB)
    except zlib.error as error:
        raise Damaged(f"{what} cannot be unpacked: {error}") from error
    if not unpacker.eof:
        raise Damaged(f"{what} is cut short, or has more than {_BLOB:,} bytes when unpacked")
    if unpacker.unused_data:
        raise Damaged(f"{what} has something behind its end")
    return tar


def _only(tar: bytes, what: str) -> tuple[str, bytes]:
    """The one file of an archive, which must lie at its root: its name and its bytes."""
    try:
        with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
            entries = archive.getmembers()
            if len(entries) != 1:
                raise Damaged(f"{what} has {len(entries)} entries; one object file is expected")
            (entry,) = entries
            name = _FILE.fullmatch(entry.name)
            plain = entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and entry.sparse is None
            if not name or not plain:
                raise Damaged(f"{what} has {entry.name!r}, no object file (NAME.o) at its root")
            opened = archive.extractfile(entry)
            file = opened.read(_BLOB) if opened else b""
    except Damaged:
        raise
    except _BROKEN as error:
        raise Damaged(f"{what} is no archive: {error}") from error
    if len(file) != entry.size:
        raise Damaged(f"{what} is cut short")
    return name[1], file


def _file(root: Path, name: str, most: int) -> bytes:
    """So many bytes of a file in a layout, or less. Raises Damaged where there is none."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe would be waited for
    try:
        with open(os.open(root / name, flags), "rb") as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise Damaged(f"{name} is no file")
            return opened.read(most)
    except OSError as error:
        raise Damaged(f"{name} cannot be read: {error.strerror}") from error


def _document(root: Path, name: str) -> bytes:
    """A file whose size nobody has said. Raises Damaged."""
    data = _file(root, name, DOCUMENT + 1)
    if len(data) > DOCUMENT:
        raise Damaged(f"{name} has more than {DOCUMENT:,} bytes")
    return data


def top(root: Path) -> list[Descriptor]:
    """What a layout's index.json names. Raises Damaged."""
    decoded(_document(root, PIN), Pin, PIN)
    index = decoded(_document(root, TOP), Index, TOP)
    if index.media_type and index.media_type != INDEX:
        raise Damaged(f"{TOP} says that it is {index.media_type!r}")
    if not index.manifests:
        raise Damaged(f"{TOP} names nothing")
    return index.manifests


def in_layout(root: Path) -> Walk:
    """A walk through the blobs of a layout."""
    return Walk(lambda one, most: _file(root, one.path, most))


def chosen(images: Iterable[Image], architecture: str) -> list[Image]:
    """Those for an architecture. Raises Damaged where an object has none for it."""
    found = list(images)
    own = [one for one in found if one.architecture == architecture]
    if not found:
        raise Damaged("there is no object file in it")
    if missing := {one.name for one in found} - {one.name for one in own}:
        others = sorted({one.architecture for one in found if one.name in missing})
        raise Damaged(
            f"it has {', '.join(sorted(missing))} for {', '.join(others)} only, and this machine is"
            f" {architecture}"
        )
    return own


def read(root: Path) -> list[Image]:
    """The object files of a layout for this machine, after a look at all that is in it.

    Raises Damaged.
    """
    return chosen(in_layout(root).images(top(root)), architecture())
