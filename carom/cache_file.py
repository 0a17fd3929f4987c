# SPDX-License-Identifier: Apache-2.0
"""Files of `carom cache save`: a line of JSON on the whole, then one for each reply.

Times are those of the clock on the wall, as a file outlives a boot: whoever sets that clock changes
how long what is in a file still holds.
"""

from __future__ import annotations

import base64
import os
import stat
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec

from carom.errors import UsageError
from carom.kernel.abi import KEY_MAX, REPLY_MAX

_FORMAT = 1
_LINE_MAX = 16_384  # bytes: more than any reply takes
_BATCH = 40_000  # bytes of lines in one call: less than control.REQUEST_MAX

Page = Callable[[int], dict[str, Any]]
Put = Callable[[str, list[Any]], dict[str, int]]


class Head(msgspec.Struct, forbid_unknown_fields=True):
    """The first line: the protocol of the service, and when the file was begun, by Unix time."""

    carom_cache: int
    protocol: str
    saved: float


class Kept(msgspec.Struct, forbid_unknown_fields=True):
    """A reply: its key and itself in base64, and the Unix time until which it holds."""

    key: str
    reply: str
    until: float
    loops: bool


def save(file: Path, page: Page) -> dict[str, int]:
    """Write all pages to a file, which is there whole or not at all; how many were `saved`.

    Raises UsageError for a file that cannot be written.
    """
    written = None
    try:
        descriptor, written = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        with open(descriptor, "wb") as output:
            count = _write(output, page)
            output.flush()
            os.fsync(output.fileno())
        os.replace(written, file)
        written = None
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}") from error
    finally:
        if written:
            os.unlink(written)
    return {"saved": count}


def _write(output: IO[bytes], page: Page) -> int:
    count = 0
    part = page(0)
    _line(output, Head(_FORMAT, part["protocol"], time.time()))
    while True:
        now = time.time()
        for one in part["entries"]:
            _line(output, Kept(one["key"], one["reply"], now + one["seconds"], one["loops"]))
        count += len(part["entries"])
        if part["next"] is None:
            return count
        part = page(part["next"])


def _line(output: IO[bytes], value: Head | Kept) -> None:
    output.write(msgspec.json.encode(value) + b"\n")


def load(file: Path, put: Put) -> dict[str, int]:
    """Put the replies of a file back, and count what became of them.

    Raises UsageError for what is no such file, or is damaged; nothing of it is put back then.
    """
    try:
        for _ in _batches(file):  # the whole file is read before anything is put back
            pass
        became = Counter[str]()
        for protocol, batch in _batches(file):
            became.update(put(protocol, batch))
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    return dict(became)


def _batches(file: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A file's protocol, and its replies by as many as fit a call, as `restore` takes them."""
    with file.open("rb") as lines:
        if not stat.S_ISREG(os.fstat(lines.fileno()).st_mode):
            raise UsageError(f"{file} is no regular file")
        head = _parsed(file, 1, lines.readline(_LINE_MAX), Head)
        if head.carom_cache != _FORMAT:
            raise UsageError(
                f"{file} is of format {head.carom_cache}, and this carom reads {_FORMAT}",
                hint="save it anew, with this carom",
            )
        batch, size = list[dict[str, Any]](), 0
        for number, line in enumerate(iter(lambda: lines.readline(_LINE_MAX), b""), 2):
            kept = _parsed(file, number, line, Kept)
            if size + len(line) > _BATCH:
                yield head.protocol, batch
                batch, size = [], 0
            batch.append(_restorable(kept))
            size += len(line)
        yield head.protocol, batch


def _restorable(kept: Kept) -> dict[str, Any]:
    seconds = kept.until - time.time()
    return {"key": kept.key, "reply": kept.reply, "seconds": seconds, "loops": kept.loops}


T = TypeVar("T", Head, Kept)


def _parsed(file: Path, number: int, line: bytes, kind: type[T]) -> T:
    try:
        value = msgspec.json.decode(line, type=kind)
        if isinstance(value, Kept):
            if not value.key:
                raise ValueError("there is no key")
            for text, most in ((value.key, KEY_MAX), (value.reply, REPLY_MAX)):
                if len(base64.b64decode(text, validate=True)) > most:
                    raise ValueError(f"more than {most} bytes")
    except ValueError as error:  # msgspec's are of that kind
        raise UsageError(
            f"{file}:{number}: {error}", hint="it takes a file of `carom cache save`"
        ) from error
    return value
