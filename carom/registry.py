# SPDX-License-Identifier: Apache-2.0
"""Image layouts to a registry and from it, by oras (the extra `oci`), which no other file imports.

By the OCI distribution specification 1.0. oras does what HTTP, TLS and logging in want. What comes
is gone through by carom (kernel/images.py), which writes nothing before all is checked: oras takes
names of files from whoever answers.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from carom.errors import RegistryError, UsageError
from carom.kernel import images, oci
from carom.kernel.oci import Damaged, Descriptor

TIMEOUT = 60.0
"""Seconds without a byte after which a registry is given up."""

_LOGIN = "`docker login` or `oras login` writes ~/.docker/config.json, which is read"

_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"  # spec.md, Pulling manifests
_REFERENCE = re.compile(
    r"(?P<host>[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+(?::\d+)?|[A-Za-z0-9-]+:\d+|\[[0-9a-f:]+\](?::\d+)?)"
    rf"/(?P<name>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)


class Reference(NamedTuple):
    """A repository of a registry, and what of it: a tag, or a digest, or neither."""

    host: str
    name: str
    tag: str
    digest: str

    @property
    def repository(self) -> str:
        """Without what of it."""
        return f"{self.host}/{self.name}"


def reference(text: str) -> Reference:
    """What `HOST[:PORT]/NAME[:TAG][@DIGEST]` says. Raises UsageError."""
    parts = _REFERENCE.fullmatch(text)
    if not parts:
        raise UsageError(
            f"{text!r} names no repository of a registry",
            hint="HOST/NAME[:TAG] or HOST/NAME@sha256:DIGEST; the host has a dot or a port",
        )
    return Reference(*(parts[name] or "" for name in ("host", "name", "tag", "digest")))


@contextlib.contextmanager
def _asked(host: str, what: str) -> Iterator[None]:
    """What goes wrong with a request, in words. Raises RegistryError."""
    import requests

    try:
        yield
    except requests.exceptions.SSLError as error:
        raise RegistryError(
            f"{host} has no TLS, or no certificate that is trusted here",
            hint="--plain-http is for a registry without TLS; REQUESTS_CA_BUNDLE names a CA",
            details=str(error),
        ) from error
    except requests.exceptions.Timeout as error:
        raise RegistryError(f"{host} does not answer ({what})", details=str(error)) from error
    except requests.exceptions.RequestException as error:
        raise RegistryError(
            f"{host} cannot be reached, or breaks off ({what})",
            hint="-v shows why",
            details=str(error),
        ) from error
    except (ValueError, AttributeError, KeyError, OSError) as error:  # oras' own
        raise RegistryError(
            f"{host} refuses ({what})", hint=f"-v shows why; {_LOGIN}", details=str(error)
        ) from error


def _container(where: Reference) -> Any:
    """A repository as oras has it. Its own parser takes some hosts for parts of names."""
    import oras.container

    container = oras.container.Container("carom")
    container.registry, container.namespace, container.repository = where.host, "", where.name
    return container


def _client(where: Reference, plain: bool) -> Any:
    """oras' client, with the login for that registry. Raises RegistryError."""
    try:
        import oras  # first: its name is the one to tell
        import oras.auth
        import oras.logger
        import oras.provider
    except ImportError as error:
        raise RegistryError(
            f"registries need the Python package {error.name}",
            hint="install carom with it: pip install 'carom[oci]'",
        ) from error

    class Client(oras.provider.Registry):  # type: ignore[misc]
        """Asks once: oras would ask five times in two minutes, also after a refusal."""

        do_request = inspect.unwrap(oras.provider.Registry.do_request)

    oras.logger.setup_logger(quiet=True)
    with _asked(where.host, "GET /v2/"):
        client = Client(hostname=where.host, insecure=plain)
        session = client.session
        session.request = functools.partial(session.request, timeout=TIMEOUT)
        first = session.get(f"{client.prefix}://{where.host}/v2/", stream=True)
        first.close()
    basic = first.headers.get("Www-Authenticate", "").lower().startswith("basic")
    if basic:
        client.auth = oras.auth.get_auth_backend("basic", session, plain)
    try:
        client.auth.load_configs(_container(where))
    except Exception as error:  # whatever there is in that file, and what helpers give
        raise RegistryError(
            f"what ~/.docker/config.json has for {where.host} cannot be read", details=repr(error)
        ) from error
    if basic and not getattr(client.auth, "_basic_auth", None):
        raise RegistryError(f"{where.host} wants a login", hint=_LOGIN)
    return client


class Registry:
    """A repository of a registry."""

    def __init__(self, where: Reference, plain: bool = False):
        """`plain` is HTTP without TLS. Raises RegistryError."""
        self.where = where
        self._client = _client(where, plain)
        self._container = _container(where)

    def _asked(self, what: str) -> contextlib.AbstractContextManager[None]:
        return _asked(self.where.host, what)

    def _url(self, kind: str, name: str) -> str:
        at = f"{self._client.prefix}://{self.where.host}/v2/{self.where.name}"
        return f"{at}/{kind}/{name}"

    def _get(self, kind: str, name: str, most: int) -> tuple[bytes, str]:
        """So many bytes of what is there, or less, and its type. Raises RegistryError."""
        headers = {"Accept": ", ".join(images.DOCUMENTS)} if kind == "manifests" else {}
        with self._asked(f"GET {kind} {name}"):
            answer = self._client.do_request(self._url(kind, name), headers=headers, stream=True)
            with answer:
                self._check(answer, f"{self.where.repository} has no {name}")
                data = bytearray()
                for part in answer.iter_content(1 << 16):
                    data += part
                    if len(data) > most:
                        break
        return bytes(data[:most]), answer.headers.get("Content-Type", "").partition(";")[0].strip()

    def _check(self, answer: Any, missing: str, good: tuple[int, ...] = (200,)) -> None:
        """Raises RegistryError for another answer than a good one."""
        code = answer.status_code
        if code in good:
            return
        if code == 404:
            raise RegistryError(f"{missing} (404)", hint="is the name right, and are you let in?")
        hint = _LOGIN if code in (401, 403) else None
        text = next(answer.iter_content(2000), b"")
        raise RegistryError(
            f"{self.where.host} refuses: {code} {answer.reason}", hint=hint, details=repr(text)
        )

    def pull(self, name: str) -> dict[str, bytes]:
        """The layout of what has this tag or digest: its files, by their paths.

        Raises RegistryError, and Damaged for what carom does not take.
        """
        data, kind = self._get("manifests", name, images.DOCUMENT)
        one = Descriptor(kind, oci.digest(data), len(data))
        if name.startswith("sha256:") and one.digest != name:
            raise Damaged("what came has another digest than was asked for")

        def fetch(wanted: Descriptor, most: int) -> bytes:
            if wanted.digest == one.digest:
                return data
            where = "manifests" if wanted.media_type in images.DOCUMENTS else "blobs"
            return self._get(where, wanted.digest, most)[0]

        walk = images.Walk(fetch)
        for _ in walk.images([one]):
            pass
        tag = "" if name.startswith("sha256:") else name
        return {at.path: blob for at, blob in walk.blobs.values()} | oci.frame([(tag, one)])

    def push(self, root: Path) -> dict[str, str]:
        """Put a layout there; the digest of each of its tags. Raises RegistryError, Damaged."""
        named, walk = images.top(root), images.in_layout(root)
        for _ in walk.images(named):
            pass
        for one, _ in walk.blobs.values():
            if one.media_type not in images.DOCUMENTS:
                self._put_blob(root, one)
        for one in walk.documents:
            self._put(one.digest, one, walk.blobs[one.digest][1])
        for one in named:
            if one.tag:
                self._put(one.tag, one, walk.blobs[one.digest][1])
        return {one.tag or one.digest: one.digest for one in named}

    def _put_blob(self, root: Path, one: Descriptor) -> None:
        layer: Mapping[str, object] = {"digest": one.digest, "size": one.size}
        with self._asked(f"PUT blob {one.digest}"):
            answer = self._client.upload_blob(str(root / one.path), self._container, layer)
            self._check(answer, f"{self.where.repository} takes no blobs", (200, 201, 202))

    def _put(self, name: str, one: Descriptor, data: bytes) -> None:
        headers = {"Content-Type": one.media_type}
        with self._asked(f"PUT manifest {name}"):
            answer = self._client.do_request(
                self._url("manifests", name), "PUT", headers=headers, data=data
            )
            self._check(answer, f"{self.where.repository} takes no manifests", (201,))
