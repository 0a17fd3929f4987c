# SPDX-License-Identifier: Apache-2.0
"""dns: one question over UDP, its reply learned from the server.

`dns.h` says what is answered from the cache and why. A server whose answer depends on who asks
(views, answers by address) is not supported.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from enum import IntFlag
from pathlib import Path

from carom.protocols.dns.types import TYPES
from carom.protocols.spec import (
    Around,
    CookieKeeping,
    Filled,
    Informed,
    RequestId,
    Sample,
    Spec,
    Stream,
)

PORT = 53
REQUEST_MAX = 326
"""Bytes of the longest read: header, name, type and class, an OPT with a COOKIE of 40 bytes."""

LABEL_MAX = 63

_HEADER = struct.Struct("!6H")  # RFC 1035 4.1.1
_RD, _CLASS_IN = 0x0100, 1


class KeyFlag(IntFlag):
    """The last byte of a key: what a request says besides its question."""

    EDNS = 1
    DO = 2
    RD = 4
    CD = 8
    AD = 16


ASKED_MAX = 2 * KeyFlag.AD
"""One more than the largest value of a key's last byte."""


def keys_named(name: bytes) -> tuple[bytes, ...]:
    """The cache keys of a question as a user writes it, such as `example.org MX` (no type: A).

    One for each combination of flags that requests differ by; none for a name or type that is none.
    """
    words = name.decode("ascii", "replace").split()
    kind = TYPES.get(words[1].upper() if len(words) > 1 else "A")
    labels = [label.encode() for label in words[0].rstrip(".").split(".")] if words else []
    if kind is None or len(words) > 2 or any(len(label) > LABEL_MAX for label in labels):
        return ()
    wire = b"".join(bytes([len(label)]) + label.lower() for label in labels if label) + b"\0"
    return tuple(wire + struct.pack("!HB", kind, flags) for flags in range(ASKED_MAX))


def asking(name: bytes) -> bytes | None:
    """A query as most stubs send it, for a question such as `example.org MX`: with RD, no EDNS."""
    keys = keys_named(name) if name.strip() else ()
    if not keys:
        return None
    return _HEADER.pack(1, _RD, 1, 0, 0, 0) + keys[0][:-1] + struct.pack("!H", _CLASS_IN)


def _check_secrets(path: Path) -> object:
    from carom.protocols.dns.cookies import read_secrets

    return read_secrets(path)


def _keep_cookies(around: Around, file: Path | None) -> Informed:
    from carom.protocols.dns.cookies import Cookies

    return Cookies(around, file)


def _same(key: bytes, cached: bytes, served: bytes) -> bool:
    from carom.protocols.dns.sameness import same

    return same(key, cached, served)


def _gives_cookies(processes: Iterable[Path], port: int) -> bool | None:
    from carom.protocols.dns.cookies import ask

    return ask(processes, port)


def _access_lists(processes: Iterable[int]) -> Iterator[str]:
    from carom.protocols.dns.access import access_lists

    return access_lists(processes)


def _samples(client: str) -> Sequence[Sample]:
    from carom.protocols.dns.samples import samples

    return samples(client)


SPEC = Spec(
    name="dns",
    number=3,
    filled=Filled.LEARNED,
    port=PORT,
    request_max=REQUEST_MAX,
    id=RequestId(0, 2),
    stream=Stream.MESSAGES,
    headers=("dns.h",),
    functions=(
        "request",
        "answer",
        "truncated",
        "cookie",
        "cookie_is_bare",
        "cookie_is_whole",
        "cookie_is_right",
        "cookie_right",
        "cookie_from_end",
        "may_have_cookie",
        "return_cookie",
        "asked",
        "learn",
        "spelled",
        "give_any",
        "answers_more",
        "counts_off",
        "message_answer",
        "what_answer",
    ),
    keys_named=keys_named,
    asking=asking,
    cookies=CookieKeeping(_check_secrets, _keep_cookies, _gives_cookies),
    same=_same,
    access_lists=_access_lists,
    samples=_samples,
)
