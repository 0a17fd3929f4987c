# SPDX-License-Identifier: Apache-2.0
"""DNS cookies (RFC 7873, RFC 9018): what the kernel needs to answer queries that have one.

That is: the secrets by which the server makes its cookies, read from a file and again when it
changes; the wall clock; and whether the server gives cookies at all, which it is asked itself.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import stat
import struct
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from carom import log
from carom.errors import UsageError
from carom.kernel import libbpf, netns
from carom.kernel.abi import COOKIE_SECRETS, COOKIE_SIGHT, COOKIES
from carom.kernel.resource import Resource
from carom.kernel.waiting import readable
from carom.protocols.dns import message
from carom.protocols.spec import Around

SECRET = 16
"""Bytes of a secret."""

_FILE_MAX = 65_536
_LINE = re.compile(r'(?:[a-z-]*secret\s*:?\s+|[a-z-]*secret:)?"?(?:0x)?([0-9a-f]{32})"?\s*;?', re.I)
_COMMENT = re.compile(r"(#|//|;\s).*|;$")

_STEP = 0.25  # seconds between looks at the wall clock
_LOOK = 1.0  # and at the file and the server's sockets
_PATIENCE = 0.5  # seconds for a server's reply
_PAUSE_MAX = 60.0  # seconds between two questions to a server that does not tell
_ADDRESSES_MAX = 64  # how many are asked


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; of a pipe, without waiting for its other end."""
    return os.open(path, flags | os.O_NONBLOCK)


def read_secrets(path: Path) -> tuple[bytes, ...]:
    """The secrets in a file: 32 hexadecimal digits a line.

    The server makes its cookies by the first one; it accepts cookies by all of them. A line may be
    written as in name servers' configurations: `cookie-secret "...";`, `cookie-secret: ...`,
    `0x...`. Raises UsageError, whose text has no secret in it.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_FILE_MAX + 1)
    except OSError as error:
        raise UsageError(
            f"cannot read the cookie secrets in {path}: {error.strerror}",
            hint="a file with the server's secret, 32 hexadecimal digits a line",
        ) from error
    if not stat.S_ISREG(mode):
        raise UsageError(f"{path} is no file", hint="cookie-secret-file takes a file")
    if mode & 0o077:
        raise UsageError(
            f"others than its owner may use {path} (mode {stat.S_IMODE(mode):04o}), and who has "
            "the secrets can make cookies",
            hint=f"chmod 600 {path}",
        )
    keys: dict[bytes, None] = {}
    for number, line in enumerate(data.decode("latin-1").splitlines(), 1):
        text = _COMMENT.sub("", line.strip()).strip()
        if not text:
            continue
        match = _LINE.fullmatch(text)
        if not match or len(data) > _FILE_MAX:
            raise UsageError(
                f"line {number} of {path} is no cookie secret",
                hint="a secret is 32 hexadecimal digits, and nothing else stands in its line",
            )
        keys[bytes.fromhex(match[1])] = None
    if not 0 < len(keys) <= COOKIE_SECRETS:
        raise UsageError(
            f"{path} has {len(keys) or 'no'} cookie secrets",
            hint=f"1 to {COOKIE_SECRETS}, of 32 hexadecimal digits, a line each",
        )
    return tuple(keys)


class Sight(NamedTuple):
    """What the kernel saw of the server's cookies: `struct cookie_sight` of abi.h."""

    epoch: int
    given: int
    right: int
    wrong: int


class _Known(NamedTuple):
    """What is known of a server since its last start: its sockets; does it give cookies?"""

    sockets: frozenset[tuple[str, str, str]]
    gives: bool | None


class Cookies(Resource):
    """Keeps the kernel informed of one name server's cookies, in a thread of its own.

    The first step is done when the constructor returns.
    """

    def __init__(self, around: Around, file: Path | None):
        """Raises UsageError for a file that is not usable."""
        self._map = around.map
        self._clock = around.clock
        self._service = around.service
        self._port = around.port
        self._file = file
        self._processes = around.processes
        self._stamp: object = None
        self._secrets: tuple[bytes, ...] = ()
        self._version = 1
        self._before = Sight(0, 0, 0, 0)  # when the secrets were read
        self._fault = ""
        self._epoch = 0
        self._known = _Known(frozenset(), None)
        self._look_at = self._ask_at = 0.0
        self._pause = _LOOK
        self._wrong = False
        if file:
            self._stamp = _stamp(file)
            self._secrets = read_secrets(file)
        self._step()
        self._thread = around.repeat(f"cookies {around.port}", self._step)

    def close(self) -> None:
        """Stop looking."""
        self._thread.close()

    def _step(self) -> float:
        ticks = self._clock.ticks(1.0)
        ahead = int(time.time() * ticks) - self._clock.now()
        libbpf.update(self._map("wall"), bytes(4), struct.pack("=Q", ahead % 2**64))
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK
            self._read_again()
            self._look_at_server()
            self._complain()
        return _STEP

    def _read_again(self) -> None:
        """Take the file's secrets if it has changed; if it cannot be read, the old ones stay."""
        if not self._file or _stamp(self._file) == self._stamp:
            return
        self._stamp = _stamp(self._file)
        try:
            self._secrets = read_secrets(self._file)
        except UsageError as error:
            self._fault = str(error)
            log.warning("the cookie secrets stay as they were", error=str(error), hint=error.hint)
            return
        self._fault = ""
        self._before = self.sight()
        self._wrong = False
        self._version += 1
        self._tell()
        # So that the kernel sees a cookie of its, by the new secrets.
        ask(self._processes(), self._port)
        log.info("new cookie secrets", file=str(self._file), secrets=len(self._secrets))

    def _look_at_server(self) -> None:
        """Ask the server again if it was restarted: it may give cookies now, or none any more."""
        processes = list(self._processes())
        sockets = frozenset(_sockets(processes, self._port))
        if sockets != self._known.sockets:
            self._known = _Known(sockets, None)
            self._epoch += 1
            self._ask_at, self._pause = 0.0, _LOOK
            self._tell()
        if self.gives() is None and sockets and time.monotonic() >= self._ask_at:
            gives = ask(processes, self._port)
            if frozenset(_sockets(processes, self._port)) == sockets:
                self._known = _Known(sockets, gives)
                self._tell()
            self._ask_at = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, _PAUSE_MAX)

    def _tell(self) -> None:
        """Write everything into the kernel's map."""
        unused = COOKIE_SECRETS - len(self._secrets)
        keys = (*self._secrets, *(secrets.token_bytes(SECRET) for _ in range(unused)))
        value = COOKIES.pack(
            self._epoch,
            self._epoch if self._known.gives is False else 0,
            len(self._secrets),
            self._version,
            b"".join(keys),
        )
        service = struct.pack("=I", self._service)
        libbpf.update(self._map("cookies"), service, value)

    def _complain(self) -> None:
        """Say once, in the log, that the server has another secret."""
        wrong = self.secret() == "wrong"
        if wrong and not self._wrong:
            log.warning(self.advice())
        self._wrong = wrong

    def sight(self) -> Sight:
        """What the kernel saw of the server's cookies. Raises OSError."""
        service = struct.pack("=I", self._service)
        value = libbpf.lookup(self._map("cookie_sights"), service, COOKIE_SIGHT.size)
        return Sight(*COOKIE_SIGHT.unpack(value or bytes(COOKIE_SIGHT.size)))

    def gives(self) -> bool | None:
        """Whether the server that runs now gives cookies; None: it is not known."""
        return True if self.sight().epoch == self._epoch else self._known.gives

    def secret(self) -> str:
        """How our secrets fit the server's last cookie: `right`, `wrong`, `untried`; or `none`."""
        if not self._secrets:
            return "none"
        sight = self.sight()
        if sight.given == self._before.given:
            return "untried"
        return "wrong" if sight.wrong == self._version else "right"

    def advice(self) -> str:
        """What the operator should do; empty where there is nothing to do."""
        port = f"the name server on port {self._port}"
        if self._fault:
            return f"{self._fault}; the secrets that were read before are used"
        if self.secret() == "wrong":
            return (
                f"{port} makes its cookies by a secret that is not in {self._file}: queries with a "
                "cookie go up to it; put the server's secret there (docs/dns.md)"
            )
        if self.gives() and not self._secrets:
            return (
                f"{port} gives cookies (RFC 7873): queries that have one go up to it; for hits to "
                "return them give it a secret of its own, and --cookie-secret-file FILE that has "
                "it (docs/dns.md)"
            )
        return ""

    def status(self) -> dict[str, Any]:
        """What is known, for `carom status`."""
        sight, gives = self.sight(), self.gives()
        return {
            "server": {True: "gives", False: "none", None: "unknown"}[gives],
            "file": str(self._file) if self._file else None,
            "secrets": len(self._secrets),
            "secret": self.secret(),
            "given": sight.given,
            "right": sight.right,
            "advice": self.advice(),
        }


def _stamp(path: Path) -> object:
    """A value that is different once a file has changed."""
    try:
        status = path.stat()
    except OSError as error:
        return error.errno
    return status.st_dev, status.st_ino, status.st_size, status.st_mode, status.st_mtime_ns


def _sockets(processes: Iterable[Path], port: int) -> Iterable[tuple[str, str, str]]:
    """Namespace, address and inode of each UDP socket on a port (proc(5))."""
    for process in processes:
        for name in ("udp", "udp6"):
            try:
                namespace = os.readlink(process / "ns/net")
                lines = (process / "net" / name).read_text().splitlines()[1:]
            except OSError:  # it has ended
                continue
            for line in lines:
                _, local, remote, _, *_, inode = line.split()[:10]
                address, _, number = local.rpartition(":")
                if int(number, 16) == port and remote.endswith(":0000"):
                    yield namespace, address, inode


def _address(text: str) -> str:
    """An address in proc's tables: words in hexadecimal, each in host order.

    For the unspecified address it is the loopback address.
    """
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    packed = b"".join(struct.pack("=I", word) for word in words)
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    if not any(packed):
        return "127.0.0.1" if family == socket.AF_INET else "::1"
    return socket.inet_ntop(family, packed)


def ask(processes: Iterable[Path], port: int) -> bool | None:
    """Ask a server with a cookie at each of its addresses: does any of its replies have one?

    None if there is no cookie, and not every address has told.
    """
    told: list[bool | None] = []
    asked: set[tuple[str, str]] = set()
    for process in processes:
        for namespace, address, _ in _sockets([process], port):
            if (namespace, address) not in asked and len(asked) < _ADDRESSES_MAX:
                asked.add((namespace, address))
                told.append(_ask_at(process, _address(address), port))
                if told[-1]:
                    return True
    return False if told and all(gives is False for gives in told) else None


def _ask_at(process: Path, address: str, port: int) -> bool | None:
    """The same for one address, from a process' network namespace."""
    answer: list[bool | None] = [None]

    def ask() -> None:  # in a thread: only that one moves to the namespace
        try:
            netns.enter(process)
            answer[0] = _exchange(address, port)
        except OSError:  # nobody listens there, or there is no way to it
            return

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return answer[0]


def _exchange(address: str, port: int) -> bool | None:
    query = message.cookie_query(secrets.randbits(16), secrets.token_bytes(8))
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.connect((address, port))  # so that no one else can reply
        client.send(query)
        end = time.monotonic() + _PATIENCE
        while readable([client], max(0.0, end - time.monotonic())):
            told = message.answers_cookie(client.recv(65_536), query)
            if told is not None:
                return told
    return None
