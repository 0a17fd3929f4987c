# SPDX-License-Identifier: Apache-2.0
"""The control socket: one JSON request a line over a Unix socket, one JSON answer a line back."""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from carom.errors import CaromError, ControlError
from carom.kernel import capabilities, forked

REQUEST_MAX = 65_536


class Request(msgspec.Struct):
    """A call by name, with its arguments."""

    call: str
    arguments: dict[str, Any] = {}


class Answer(msgspec.Struct):
    """What a call returned, or what was wrong."""

    result: Any = None
    error: str | None = None
    hint: str | None = None


def directory() -> Path:
    """Where control sockets are: /run/carom for root, a folder of one's own for others.

    $CAROM_RUN names another. Raises ControlError for one that somebody else owns or may write to.
    """
    if os.environ.get("CAROM_RUN"):
        return Path(os.environ["CAROM_RUN"])
    if os.geteuid() == 0:
        return Path("/run/carom")
    if os.environ.get("XDG_RUNTIME_DIR"):
        return Path(os.environ["XDG_RUNTIME_DIR"]) / "carom"
    folder = Path(f"/tmp/carom-{os.geteuid()}")
    with contextlib.suppress(FileNotFoundError):
        status = folder.lstat()
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
            raise ControlError(
                f"{folder} belongs to somebody else, or others may write to it",
                hint="remove it, or set XDG_RUNTIME_DIR or CAROM_RUN to a folder of this user's",
            )
    return folder


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    calls: dict[str, Callable[..., Any]]


class _Connection(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        # A forked child that held it too would leave the other end waiting.
        forked.keep(self.connection.fileno())
        try:
            self._serve()
        finally:
            forked.forget(self.connection.fileno())

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            line = self.rfile.readline(REQUEST_MAX)
            self.wfile.write(msgspec.json.encode(self._answer(line)) + b"\n")

    def _answer(self, line: bytes) -> Answer:
        try:
            request = msgspec.json.decode(line, type=Request)
            return Answer(self.server.calls[request.call](**request.arguments))
        except CaromError as error:
            return Answer(error=str(error), hint=error.hint)
        except (msgspec.DecodeError, TypeError, ValueError) as error:
            return Answer(error=f"wrong request: {error}")
        except KeyError as error:
            return Answer(error=f"unknown call {error}")


class Control:
    """Serves calls on `<directory>/<pid>.sock` until it is closed."""

    def __init__(self, calls: dict[str, Callable[..., Any]]):
        """Raises ControlError, RuntimeError for no thread; then there is no socket."""
        self.path = directory() / f"{os.getpid()}.sock"
        with contextlib.ExitStack() as stack:
            self._server = self._listening(stack)
            self._server.calls = calls
            self._closing = False
            self._thread = threading.Thread(target=self._serve, name="control", daemon=True)
            self._thread.start()
            stack.pop_all()

    def _listening(self, stack: contextlib.ExitStack) -> _Server:
        folder = self.path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            running()  # removes the sockets of killed caroms
            self.path.unlink(missing_ok=True)
            server = _Server(str(self.path), _Connection)
            stack.callback(self._remove, server)
            forked.keep(server.fileno())
            self.path.chmod(stat.S_IRUSR | stat.S_IWUSR)
        except OSError as error:
            raise ControlError(
                f"cannot make the control socket {self.path}: {error.strerror or error}",
                hint=f"{folder} must be a folder that this user may write to, and its path short: "
                "CAROM_RUN names another",
            ) from error
        return server

    def _serve(self) -> None:
        capabilities.shed()
        while not self._closing:
            self._server.handle_request()

    def close(self) -> None:
        """Stop serving and remove the socket; one that cannot be removed, `running` does."""
        self._closing = True
        self._server.socket.shutdown(socket.SHUT_RDWR)  # ends the wait for a connection at once
        self._thread.join()
        self._remove(self._server)

    def _remove(self, server: _Server) -> None:
        forked.forget(server.fileno())
        server.server_close()
        with contextlib.suppress(OSError):  # another user's folder, and root no more; read-only
            self.path.unlink(missing_ok=True)


def running() -> list[int]:
    """The pids of caroms that are there; sockets that a killed one left behind are removed."""
    pids = []
    try:
        paths = sorted(directory().glob("*.sock"))
    except PermissionError:
        paths = []
    for path in paths:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
            probe.setblocking(False)
            try:
                with contextlib.suppress(BlockingIOError):  # it is stopped, and many have asked it
                    probe.connect(str(path))
                pids.append(int(path.stem))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
            except OSError:
                continue
    return pids


def seen() -> bool:
    """Whether this user may see which caroms run."""
    try:
        os.listdir(directory())
    except PermissionError:
        return False
    except OSError:  # there is none
        pass
    return True


def _none() -> ControlError:
    """The error where no carom is found; perhaps one runs that this user may not see."""
    if not seen():
        return ControlError(
            f"this user may not look at the caroms of {directory()}",
            hint="ask as theirs: sudo carom ..., for root's",
        )
    hint = "start one with `carom serve`, as the same user"
    if os.geteuid() and not os.environ.get("CAROM_RUN"):
        hint = "root's are seen by root alone: sudo carom ...; or " + hint
    return ControlError("no carom of this user is running here", hint=hint)


def call(name: str, pid: int | None = None, timeout: float = 10.0, **arguments: Any) -> Any:
    """Call a running carom: the only one, or the one of that pid. Raises ControlError."""
    if pid is None:
        pids = running()
        if not pids:
            raise _none()
        if len(pids) > 1:
            raise ControlError(
                f"{len(pids)} caroms are running",
                hint="choose one with --pid: " + ", ".join(map(str, pids)),
            )
        pid = pids[0]
    path = directory() / f"{pid}.sock"
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(path))
            connection.sendall(msgspec.json.encode(Request(name, arguments)) + b"\n")
            with connection.makefile("rb") as lines:
                answer = msgspec.json.decode(lines.readline(), type=Answer)
        except (OSError, msgspec.DecodeError) as error:
            why = "it takes in nobody" if isinstance(error, BlockingIOError) else error
            raise ControlError(
                f"carom {pid} does not answer: {why}", hint="is it still running? see `ps`"
            ) from error
    if answer.error is not None:
        raise ControlError(answer.error, hint=answer.hint)
    return answer.result
