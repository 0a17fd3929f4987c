# SPDX-License-Identifier: Apache-2.0
"""Objects and image layouts, right and wrong, made without a compiler and without root."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from carom import __version__
from carom.kernel import btf, elf, images, objects, oci
from carom.kernel.compiled import Compiled, Program
from carom.kernel.libbpf import MapShape

EXIT = bytes((0xB7, 0, 0, 0, 2, 0, 0, 0, 0x95, *bytes(7)))  # r0 = XDP_PASS; exit
INDEX, MANIFEST = oci.INDEX, oci.MANIFEST


def small(name: str = "small", version: str = __version__, says: int = 2) -> bytes:
    """An object file with a program for XDP and one for TC, and a map."""
    code = EXIT[:4] + bytes((says,)) + EXIT[5:]
    maps = {"cells": MapShape(2, 4, 8, 4, 0, 0, 0)}
    programs = {"one": Program("xdp", code, {}, {}), "two": Program("tc", code, {}, {})}
    compiled = Compiled("by hand", "GPL", btf.complete(b"", maps, []), maps, programs)
    label = elf.Label(name, "0" * 64, objects.abi(), version, "by hand", ["6.1"])
    return elf.write(compiled, label)


def tar(*entries: tarfile.TarInfo | tuple[str, bytes], format: int = tarfile.USTAR_FORMAT) -> bytes:
    """An archive with these, files by name and bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as opened:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                opened.addfile(entry)
                continue
            info = tarfile.TarInfo(entry[0])
            info.size = len(entry[1])
            opened.addfile(info, io.BytesIO(entry[1]))
    return out.getvalue()


Document = dict[str, Any]
Change = Callable[[Document], None]
Bytes = Callable[[bytes], bytes]


def unchanged(_: object) -> None:
    """Does nothing."""


def same(data: bytes) -> bytes:
    """The very bytes."""
    return data


def built(
    root: Path,
    archive: bytes | None = None,
    *,
    layer: Bytes = same,
    config: Change = unchanged,
    manifest: Change = unchanged,
    index: Change = unchanged,
    top: Change = unchanged,
    bytes_of: tuple[str, Bytes] = ("", same),
) -> Path:
    """A layout with one image for this machine, changed somewhere; digests and sizes are right.

    `bytes_of` changes the bytes of a document, by its name.
    """

    def blob(kind: str, data: bytes) -> Document:
        digest = hashlib.sha256(data).hexdigest()
        path = root / "blobs/sha256" / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    def written(name: str, document: Document, change: Change) -> bytes:
        change(document)
        data = json.dumps(document).encode()
        return bytes_of[1](data) if bytes_of[0] == name else data

    archive = tar(("small.o", small())) if archive is None else archive
    platform = {"architecture": images.architecture(), "os": "linux"}
    a_config = {
        **platform,
        "config": {"Labels": {}},
        "rootfs": {"type": "layers", "diff_ids": [oci.digest(archive)]},
    }
    a_manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": blob(oci.CONFIG, written("config", a_config, config)),
        "layers": [blob(oci.LAYER, layer(gzip.compress(archive, mtime=0)))],
    }
    one = blob(MANIFEST, written("manifest", a_manifest, manifest)) | {"platform": platform}
    an_index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [one]}
    whole = blob(INDEX, written("index", an_index, index))
    a_top = {"schemaVersion": 2, "manifests": [whole]}
    (root / "index.json").write_bytes(written("top", a_top, top))
    (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return root
