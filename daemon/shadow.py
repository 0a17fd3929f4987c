# SPDX-License-Identifier: Apache-2.0
"""The shadow check: what the server says now, beside what the cache would have said.

A reply that takes a live one's place is handed over with it (include/shadow.h). It is the server's
to a hit that went up to be compared, or to a request that went up for another reason.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from carom import log
from carom.daemon.backend import Backend
from carom.daemon.fastpath import FastPath
from carom.daemon.key_text import key_text
from carom.daemon.thread import Thread
from carom.kernel import libbpf
from carom.kernel.abi import PAIR, SERVICES_MAX, SLOTS

PAUSE = 0.05
"""Seconds from one look at the pairs to the next: what has no room until then is left out."""

DOUBT = 0.5
"""Seconds until a pair that differs counts: a write on its way has voided it by then."""

DOUBTS_MAX = 1000
"""Pairs that differ and do not count yet; more of them are left out."""

LOG_EVERY = 1.0
"""Seconds from one line about a service's replies to the next."""

_DIGEST = 16  # hexadecimal digits of SHA-256: enough to tell replies apart


class _Doubt(NamedTuple):
    """A pair that differs: until when it may still be voided, and by which cells."""

    until: float
    backend: Backend
    token: int
    cells: tuple[int, int]
    key: bytes
    cached: bytes
    served: bytes


class ShadowCheck:
    """Compares pairs of replies in a thread of its own, and counts them by service.

    Where a service's policy says so, its cache is switched off with its first differing pair:
    `switch_off` is called, by this thread, once its receiver says that it is off.
    """

    def __init__(
        self, fastpath: FastPath, backends: Sequence[Backend], switch_off: Callable[[], None]
    ):
        """Raises OSError."""
        self._versions = fastpath.store.versions
        self._backends = backends
        self._switch_off = switch_off
        self._next_line = [0.0] * len(backends)
        self._doubts = deque[_Doubt]()
        self._ring = libbpf.Ring(fastpath.map("pairs"), self._take)
        with contextlib.ExitStack() as stack:
            stack.callback(self._ring.close)
            self._thread = Thread("shadow", self._step)
            stack.pop_all()

    def _step(self) -> float:
        self._ring.drain()
        while self._doubts and self._doubts[0].until <= time.monotonic():
            self._judge(self._doubts.popleft())
        return PAUSE

    def _take(self, record: bytes) -> None:
        """Compare one pair."""
        token, _, _, slot, length, _, _, _, _, _, service, key_length, *rest = PAIR.unpack(record)
        key, served_length, cached, served = rest
        pair = key[:key_length], cached[:length], served[:served_length]
        backend = self._backends[service % SERVICES_MAX]
        backend.compared += 1
        if not backend.protocol.same(*pair) and len(self._doubts) < DOUBTS_MAX:
            cells = slot, SLOTS + backend.id
            self._doubts.append(_Doubt(time.monotonic() + DOUBT, backend, token, cells, *pair))

    def _judge(self, doubt: _Doubt) -> None:
        """Count a pair that differs, say so, and heed the policy; unless it was voided."""
        backend = doubt.backend
        if doubt.token < max(self._versions[cell] for cell in doubt.cells):
            return
        backend.differing += 1
        if time.monotonic() >= self._next_line[backend.id]:
            self._next_line[backend.id] = time.monotonic() + LOG_EVERY
            log.warning(
                "the server says something else than the cache",
                port=backend.options.port,
                key=key_text(doubt.key),
                cached=digest(doubt.cached),
                server=digest(doubt.served),
                differing=backend.differing,
            )
        if backend.options.shadow_policy == "off" and not backend.receiver.switched_off:
            self._off(backend)

    def _off(self, backend: Backend) -> None:
        """The kernel answers nothing of it any more: what is in the cache is void."""
        backend.receiver.switched_off = True
        if backend.cache:
            backend.cache.flush()
        self._switch_off()
        log.warning("its cache is switched off, until carom starts anew", port=backend.options.port)

    def close(self) -> None:
        """Stop comparing."""
        self._thread.close()
        self._ring.close()


def digest(reply: bytes) -> str:
    """What a reply is told by in the log: its length, and the first digits of its SHA-256."""
    return f"{len(reply)} bytes, {hashlib.sha256(reply).hexdigest()[:_DIGEST]}"
