# SPDX-License-Identifier: Apache-2.0
"""Registries on loopback: a small one that does what it is told, and Debian's docker-registry."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

PROGRAM = shutil.which("docker-registry", path="/usr/bin:/usr/local/bin:/bin")
DEADLINE = 60.0


class Answer(NamedTuple):
    """What is answered to a request."""

    code: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class Stub:
    """The part of the OCI distribution specification that clients need to push and pull."""

    def __init__(self) -> None:
        self.stored: dict[str, tuple[bytes, str]] = {}
        """Blobs and manifests with their types, by the path that they are got by."""
        self.asked: list[str] = []
        self.instead: Callable[[str, str], Answer | None] = lambda method, path: None
        """What is answered in place of what would be."""
        self.host = self.authorization = ""

    def answer(self, method: str, path: str, kind: str, body: bytes) -> Answer:
        """Raises LookupError for what no client should ask."""
        self.asked.append(f"{method} {path}")
        if (instead := self.instead(method, path)) is not None:
            return instead
        path, _, query = path.partition("?")
        if method in ("GET", "HEAD"):
            if path == "/v2/":
                return Answer(200)
            if path not in self.stored:
                return Answer(404, b'{"errors": []}')
            data, kind = self.stored[path]
            return Answer(200, data, (("Content-Type", kind),))
        if method == "POST" and path.endswith("/blobs/uploads/"):
            return Answer(202, b"", (("Location", f"{path}1"),))
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if method == "PUT" and path.endswith("/blobs/uploads/1"):
            if digest != query.removeprefix("digest=").replace("%3A", ":"):
                return Answer(400)
            self.stored[path.replace("uploads/1", digest)] = body, "application/octet-stream"
            return Answer(201, b"", (("Location", path),))
        if method == "PUT" and "/manifests/" in path:
            return self._manifest(path, kind, body, digest)
        raise LookupError(f"{method} {path}")

    def _manifest(self, path: str, kind: str, body: bytes, digest: str) -> Answer:
        """Taken if all that it names is there, as registries have it."""
        base = path.partition("/manifests/")[0]
        document = json.loads(body)
        named = [f"manifests/{one['digest']}" for one in document.get("manifests", ())]
        config = [document["config"]] if "config" in document else []
        named += [f"blobs/{one['digest']}" for one in document.get("layers", []) + config]
        if any(f"{base}/{one}" not in self.stored for one in named):
            return Answer(400, b'{"errors": [{"code": "MANIFEST_BLOB_UNKNOWN"}]}')
        for name in (path, f"{base}/manifests/{digest}"):
            self.stored[name] = body, kind
        return Answer(201, b"", (("Location", path),))


def _handler(stub: Stub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Says nothing."""

        def handle(self) -> None:
            with contextlib.suppress(OSError):  # a client that has seen enough
                super().handle()

        def _do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            kind = self.headers.get("Content-Type") or ""
            stub.authorization = self.headers.get("Authorization") or ""
            answer = stub.answer(self.command, self.path, kind, self.rfile.read(length))
            self.send_response(answer.code)
            names = {name for name, _ in answer.headers}
            for name, value in answer.headers:
                self.send_header(name, value)
            if "Content-Length" not in names:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_GET = do_HEAD = do_POST = do_PUT = _do

    return Handler


@contextlib.contextmanager
def stub() -> Iterator[Stub]:
    """A stub that answers on loopback."""
    one = Stub()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(one)) as server:
        one.host = f"127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield one
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def debian(folder: Path, users: str = "") -> Iterator[str]:
    """Debian's registry on loopback, with its data in that folder: its host and port."""
    assert PROGRAM
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"127.0.0.1:{free.getsockname()[1]}"
    (folder / "users").write_text(users)
    config = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": host},
    }
    if users:
        config["auth"] = {"htpasswd": {"realm": "here", "path": str(folder / "users")}}
    (folder / "config.yml").write_text(json.dumps(config))  # which is YAML, too
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [PROGRAM, "serve", str(folder / "config.yml")], stdout=log, stderr=log
        )
    try:
        _wait(host, process)
        yield host
    finally:
        process.terminate()
        process.wait()


def _wait(host: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + DEADLINE
    name, port = re.split(":", host)
    while True:
        with contextlib.suppress(OSError), socket.create_connection((name, int(port))):
            return
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
