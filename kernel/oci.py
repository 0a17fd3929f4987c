# SPDX-License-Identifier: Apache-2.0
"""Object files as an OCI image layout: a folder of blobs, each named by the SHA-256 of its bytes.

The layout, its indexes, manifests and configurations are those of the OCI image format
specification 1.0 (image-layout.md, image-index.md, manifest.md, config.md). What an image holds is
as bpfman's bytecode images have it ("Backwards compatible OCI compliant spec"): one layer, with one
object file at its root, and labels that name the programs and maps with their types. Since that is
one object file an image, each of carom's is an image of its own. The set of them is one more index,
of all their manifests and not of their indexes: some tools copy no index of indexes.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import re
import secrets
import shutil
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from carom.kernel import elf
from carom.kernel.compiled import Compiled, Hook

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

REF_NAME = "org.opencontainers.image.ref.name"
TITLE = "org.opencontainers.image.title"
PIN, TOP = "oci-layout", "index.json"
"""The files of a layout that are no blobs."""

ARCHITECTURES = ("amd64", "arm64", "ppc64le", "riscv64")
"""By Go's names, which OCI uses: what BPF's code in little-endian order runs on."""

_TYPES: dict[Hook, str] = {
    "xdp": "xdp",
    "tc": "tc",
    "cgroup": "cgroup_skb",
    "bind4": "cgroup_sock",
    "bind6": "cgroup_sock",
    "create": "cgroup_sock",
    "release": "cgroup_sock",
    "connect4": "cgroup_sock_addr",
    "connect6": "cgroup_sock_addr",
    "sendmsg4": "cgroup_sock_addr",
    "sendmsg6": "cgroup_sock_addr",
    "recvmsg4": "cgroup_sock_addr",
    "recvmsg6": "cgroup_sock_addr",
    "getpeername4": "cgroup_sock_addr",
    "getpeername6": "cgroup_sock_addr",
    "socket": "socket_filter",
    "lookup": "sk_lookup",
}
"""What bpfman calls the programs of each hook."""

_MAP_TYPES = {
    1: "hash",
    2: "array",
    3: "prog_array",
    5: "per_cpu_hash",
    6: "per_cpu_array",
    9: "lru_hash",
    10: "lru_per_cpu_hash",
    11: "lpm_trie",
    12: "array_of_maps",
    13: "hash_of_maps",
    16: "cpumap",
    18: "sockhash",
    19: "cgroup_storage",
    24: "sk_storage",
    27: "ringbuf",
}
"""What bpfman calls those kinds of maps (enum bpf_map_type of linux/bpf.h)."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
"""What an object may be called: it is part of a tag, too."""


class Damaged(elf.Foreign):
    """No image layout with object files, or a damaged one."""


class Platform(msgspec.Struct):
    """What a manifest is for."""

    architecture: str
    os: str


class Descriptor(msgspec.Struct, rename="camel"):
    """Which blob: what it is, the digest of its bytes and their number."""

    media_type: str
    digest: Annotated[str, msgspec.Meta(pattern=r"\Asha256:[0-9a-f]{64}\Z")]
    size: Annotated[int, msgspec.Meta(ge=0)]
    platform: Platform | UnsetType = UNSET
    annotations: dict[str, str] | UnsetType = UNSET

    @property
    def path(self) -> str:
        """Where its blob lies in a layout."""
        return "blobs/" + self.digest.replace(":", "/")

    @property
    def tag(self) -> str:
        """The name that a layout's index.json has for it, or none."""
        return (self.annotations or {}).get(REF_NAME, "")


class Index(msgspec.Struct, rename="camel"):
    """Several manifests, or indexes of such."""

    schema_version: Literal[2]
    manifests: list[Descriptor]
    media_type: str | UnsetType = UNSET


class Manifest(msgspec.Struct, rename="camel"):
    """An image for one platform."""

    schema_version: Literal[2]
    config: Descriptor
    layers: list[Descriptor]
    media_type: str | UnsetType = UNSET
    annotations: dict[str, str] | UnsetType = UNSET


class _Labels(msgspec.Struct):
    labels: dict[str, str] = msgspec.field(name="Labels")


class RootFS(msgspec.Struct):
    """The layers of an image: digests of what they are when unpacked."""

    diff_ids: list[str]
    type: str = "layers"


class Config(msgspec.Struct):
    """An image's configuration."""

    architecture: str
    os: str
    rootfs: RootFS
    config: _Labels | UnsetType = UNSET


class Pin(msgspec.Struct):
    """Which version of the layout's format it is."""

    version: Literal["1.0.0"] = msgspec.field(name="imageLayoutVersion")


def digest(data: bytes) -> str:
    """The name of a blob."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


_T = TypeVar("_T")


def decoded(data: bytes, kind: type[_T], what: str) -> _T:
    """A document of this kind. Raises Damaged."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Damaged(f"{what} is not what it should be: {error}") from error


class _Packer:
    """Blobs, and by its tag what names them from outside."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def blob(self, media_type: str, data: bytes) -> Descriptor:
        blob = Descriptor(media_type, digest(data), len(data))
        self.files[blob.path] = data
        return blob

    def document(self, media_type: str, what: Index | Manifest | Config) -> Descriptor:
        return self.blob(media_type, msgspec.json.encode(what))

    def index(self, manifests: list[Descriptor]) -> Descriptor:
        return self.document(INDEX, Index(2, manifests, INDEX))

    def image(self, file: bytes, compiled: Compiled, label: elf.Label) -> list[Descriptor]:
        """An object's image: a manifest for each architecture."""
        tar = _tar(f"{label.name}.o", file)
        layer = self.blob(LAYER, gzip.compress(tar, 9, mtime=0))
        about = {
            "org.opencontainers.image.licenses": "GPL-2.0-only",
            TITLE: f"carom {label.name}",
            "org.opencontainers.image.version": label.version,
        }
        manifests = []
        for architecture in ARCHITECTURES:
            said = _Labels(labels(compiled) | about)
            config = Config(architecture, "linux", RootFS([digest(tar)]), said)
            manifest = Manifest(2, self.document(CONFIG, config), [layer], MANIFEST, about)
            one = self.document(MANIFEST, manifest)
            one.platform = Platform(architecture, "linux")
            one.annotations = {TITLE: about[TITLE]}
            manifests.append(one)
        return manifests


def labels(compiled: Compiled) -> dict[str, str]:
    """The labels of bpfman's convention, each a JSON object of names and types."""
    programs = {name: _TYPES[one.hook] for name, one in sorted(compiled.programs.items())}
    maps = {n: _MAP_TYPES.get(one.kind, "unspec") for n, one in sorted(compiled.maps.items())}
    said = {"io.ebpf.maps": maps, "io.ebpf.programs": programs}
    return {name: msgspec.json.encode(one).decode() for name, one in said.items()}


def _tar(name: str, file: bytes) -> bytes:
    """An archive with one file; without an owner or a time, which would differ at each packing."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(file), 0o644
        tar.addfile(entry, io.BytesIO(file))
    return out.getvalue()


def pack(objects: Iterable[bytes]) -> dict[str, bytes]:
    """A layout with these objects, of one version of carom's: its files, by their paths.

    Each object's image has the version and its name as its tag: `0.1.0-fastpath`. The set, an index
    of them all, has the version. The same objects give the same files, byte for byte, by the same
    zlib. Raises elf.Foreign, and Damaged for objects that cannot be one set.
    """
    packer, images, versions = _Packer(), dict[str, list[Descriptor]](), set[str]()
    for file in objects:
        compiled, label = elf.read(file)
        if not NAME.fullmatch(label.name):
            raise Damaged(f"an object is called {label.name!r}, which cannot be a part of a tag")
        if label.name in images:
            raise Damaged(f"there are two objects of the name {label.name}")
        images[label.name] = packer.image(file, compiled, label)
        versions.add(label.version)
    if len(versions) != 1:
        said = ", ".join(sorted(versions)) or "none"
        raise Damaged(f"the objects of a set are of one version, and these are of {said}")
    tag = re.sub(r"[^A-Za-z0-9._-]", "_", versions.pop())
    images = dict(sorted(images.items()))
    named = [(tag, packer.index([one for image in images.values() for one in image]))]
    named += [(f"{tag}-{name}", packer.index(image)) for name, image in images.items()]
    return packer.files | frame(named)


def frame(named: Iterable[tuple[str, Descriptor]]) -> dict[str, bytes]:
    """The two files of a layout that say what is in it: tags, or none, and what they stand for."""
    tops = [
        msgspec.structs.replace(one, annotations={REF_NAME: tag} if tag else UNSET)
        for tag, one in named
    ]
    return {
        TOP: msgspec.json.encode(Index(2, tops, INDEX)),
        PIN: msgspec.json.encode(Pin("1.0.0")),
    }


def write(root: Path, files: Mapping[str, bytes]) -> None:
    """Write a layout as a new folder, or none: it comes into being whole.

    Raises OSError, also where there is a file, or a folder that is not empty.
    """
    root = root.absolute()
    root.parent.mkdir(parents=True, exist_ok=True)
    new = root.with_name(f"{root.name}.{secrets.token_hex(4)}")
    new.mkdir()
    try:
        for path, data in files.items():
            (new / path).parent.mkdir(parents=True, exist_ok=True)
            (new / path).write_bytes(data)
        os.rename(new, root)
    except BaseException:
        with contextlib.suppress(OSError):
            shutil.rmtree(new)
        raise
