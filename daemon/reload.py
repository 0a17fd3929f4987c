# SPDX-License-Identifier: Apache-2.0
"""Has running services go by what their configuration file says now: all of it, or nothing."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from carom import log
from carom.daemon.manager import Manager, reloading
from carom.daemon.options import Options
from carom.daemon.running import Running
from carom.errors import BPFError, CaromError
from carom.kernel import capabilities
from carom.kernel.resource import Resource
from carom.kernel.signals import held


def _past_firewall(options: Options) -> tuple[object, ...]:
    """Who may hit though the firewall is not asked."""
    return options.allow, options.bypass_firewall


class Change(NamedTuple):
    """Other options for the running services, in their order; only those of LIVE differ."""

    options: Sequence[Options]
    said: list[str]
    """What changes: `service[0].ttl: 60 -> 300`."""
    accepted: Callable[[], None]
    """Called when they are in force."""


class Reloader(Resource):
    """Reads the configuration again, for SIGHUP and for `carom reload`."""

    def __init__(
        self,
        running: Running,
        reread: Callable[[], Change],
        asked: queue.SimpleQueue[bool],
        manager: Manager,
    ):
        """`reread` raises UsageError for a file that is wrong, or asks for what needs a restart.

        What is put into `asked` asks for a reload, False for the end.
        """
        self._running = running
        self._manager = manager
        self._reread = reread
        self._asked = asked
        self._reloading = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="reload", daemon=True)
        with held():
            self._thread.start()

    def reload(self) -> list[str]:
        """Go by the file as it is now. Returns what has changed.

        Raises CaromError for what is wrong with it, or cannot be done; then nothing has changed.
        """
        with self._reloading:
            self._manager.tell(*reloading())
            try:
                return self._reload()
            finally:
                self._manager.tell("READY=1")

    def _reload(self) -> list[str]:
        change = self._reread()
        before = [backend.options for backend in self._running.parts.backends]
        try:
            self._heed(change.options)
        except BaseException as error:
            with contextlib.suppress(CaromError, OSError):  # the follower tries again
                self._heed(before)
            if isinstance(error, OSError):
                raise BPFError(f"the kernel refused the change: {error}") from error
            raise
        change.accepted()
        return change.said

    def _heed(self, all: Sequence[Options]) -> None:
        parts = self._running.parts
        before = [_past_firewall(backend.options) for backend in parts.backends]
        for backend, options in zip(parts.backends, all, strict=True):
            backend.heed(options)
        limit = all[0].max_hits_per_cpu
        if parts.fastpath and limit != parts.fastpath.max_hits:
            parts.fastpath.swap(max_hits=limit)
        if parts.firewall and before != list(map(_past_firewall, all)):
            parts.firewall.check_again()
        if parts.attached:
            parts.attached.publisher.publish()

    def _run(self) -> None:
        capabilities.shed()
        while self._asked.get():
            try:
                log.info("reloaded", changes="; ".join(self.reload()) or "none")
            except CaromError as error:
                hint = f" ({error.hint})" if error.hint else ""
                log.error("not reloaded: nothing has changed", error=f"{error}{hint}")
            except Exception as error:
                log.error("not reloaded: nothing has changed", failure=error)

    def close(self) -> None:
        """Reload no more; wait for one that is under way."""
        self._asked.put(False)
        self._thread.join()
