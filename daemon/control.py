# SPDX-License-Identifier: Apache-2.0
"""The control socket: one JSON request a line over a Unix socket, one JSON answer a line back."""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import stat
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from carom.errors import CaromError, ControlError
from carom.kernel import capabilities, forked
from carom.kernel.resource import Resource
from carom.kernel.waiting import readable

REQUEST_MAX = 2 << 20
"""Bytes of a request: the longest has an object file of a filter."""

_DESCRIPTORS_MAX = 8
"""Of files that come with an answer."""

_LOOK = 0.2
"""Seconds until it is noticed that what is lent has ended by itself."""


class Request(msgspec.Struct):
    """A call by name, with its arguments."""

    call: str
    arguments: dict[str, Any] = {}


class Answer(msgspec.Struct):
    """What a call returned, or what was wrong."""

    result: Any = None
    error: str | None = None
    hint: str | None = None


class Lent(Resource):
    """What a call gives for as long as its connection lasts, and `seconds` at most.

    `result` is the answer's, with copies of these `descriptors`. When the other end has closed its
    half, or is gone in whatever way, it is closed.
    """

    result: Any
    descriptors: Sequence[int]
    seconds: float

    @abstractmethod
    def over(self) -> bool:
        """Whether it has ended by itself."""

    @abstractmethod
    def last(self) -> Any:
        """What is answered once it is closed."""


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
            answer = self._answer(line)
            if isinstance(answer.result, Lent):
                self._lend(answer.result)
            else:
                self.wfile.write(_line(answer))

    def _lend(self, lent: Lent) -> None:
        with lent:
            first = _line(Answer(lent.result))
            socket.send_fds(self.connection, [first], lent.descriptors)
            end = time.monotonic() + lent.seconds
            while (left := end - time.monotonic()) > 0 and not lent.over():
                if readable([self.connection], min(left, _LOOK)):
                    break
        self.wfile.write(_line(Answer(lent.last())))

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


def _line(answer: Answer) -> bytes:
    return msgspec.json.encode(answer) + b"\n"


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
    with _asked(name, pid, timeout, arguments) as (pid, connection), _answering(pid):
        return _next(connection)


class Borrowed:
    """What a carom lends by a call, until `give_back`: the answer's result and descriptors."""

    def __init__(self, pid: int, connection: socket.socket):
        """Raises ControlError."""
        self.pid, self._connection = pid, connection
        with _answering(pid):
            first, descriptors, _, _ = socket.recv_fds(connection, REQUEST_MAX, _DESCRIPTORS_MAX)
            self.descriptors = descriptors
            self.result = _result(first)

    def over(self) -> bool:
        """Whether it has been taken back already."""
        return bool(readable([self._connection], 0))

    def give_back(self) -> Any:
        """Let it end; what is said then. Raises ControlError where that carom is gone."""
        with _answering(self.pid):
            self._connection.shutdown(socket.SHUT_WR)
            return _next(self._connection)


@contextlib.contextmanager
def borrow(
    name: str, pid: int | None = None, timeout: float = 10.0, **arguments: Any
) -> Iterator[Borrowed]:
    """Call a running carom for what it lends; at the end its descriptors are closed.

    Raises ControlError.
    """
    with _asked(name, pid, timeout, arguments) as (pid, connection):
        borrowed = Borrowed(pid, connection)
        try:
            yield borrowed
        finally:
            for descriptor in borrowed.descriptors:
                os.close(descriptor)


@contextlib.contextmanager
def _asked(
    name: str, pid: int | None, timeout: float, arguments: dict[str, Any]
) -> Iterator[tuple[int, socket.socket]]:
    """A connection to a carom that has been asked; and which one."""
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
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(timeout)
        with _answering(pid):
            connection.connect(str(directory() / f"{pid}.sock"))
            connection.sendall(msgspec.json.encode(Request(name, arguments)) + b"\n")
        yield pid, connection


@contextlib.contextmanager
def _answering(pid: int) -> Iterator[None]:
    """Raises ControlError where a carom does not answer."""
    try:
        yield
    except (OSError, msgspec.DecodeError) as error:
        why = "it takes in nobody" if isinstance(error, BlockingIOError) else error
        raise ControlError(
            f"carom {pid} does not answer: {why}", hint="is it still running? see `ps`"
        ) from error


def _next(connection: socket.socket) -> Any:
    with connection.makefile("rb") as lines:
        return _result(lines.readline())


def _result(line: bytes) -> Any:
    """What an answer says. Raises ControlError for the error that it tells, DecodeError."""
    answer = msgspec.json.decode(line, type=Answer)
    if answer.error is not None:
        raise ControlError(answer.error, hint=answer.hint)
    return answer.result
