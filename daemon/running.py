# SPDX-License-Identifier: Apache-2.0
"""Running services, with everything that they run on, until a signal ends them."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, NamedTuple, Protocol

from carom.daemon.attachments import Attachments
from carom.daemon.backend import Backend
from carom.daemon.fastpath import Attachment, FastPath
from carom.daemon.filtering import Filtering
from carom.daemon.firewall_check import FirewallCheck
from carom.daemon.follower import Followers
from carom.daemon.lease import LeaseKeeper
from carom.daemon.options import Options
from carom.daemon.publisher import Publisher
from carom.daemon.python_backend import PythonBackend
from carom.daemon.silence import SilenceWatcher
from carom.daemon.sweeper import Sweeper
from carom.errors import UsageError
from carom.kernel.signals import until_stopped

if TYPE_CHECKING:
    from carom.daemon.pinned import Pinned

_PATIENCE = 1.0  # seconds for a service's thread to end


class OnInterfaces(NamedTuple):
    """The parts that exist only where something is attached to interfaces."""

    attachments: Attachments
    publisher: Publisher
    sweeper: Sweeper | None
    watcher: SilenceWatcher | None
    keeper: LeaseKeeper


class Parts(NamedTuple):
    """What services run on: without a fast path, a filter, interfaces or pins these are None."""

    started: float
    """By the monotonic clock."""
    began: float
    """The same in seconds since 1970, by the clock as it was then."""
    backends: list[Backend]
    fastpath: FastPath | None
    firewall: FirewallCheck | None
    filtering: Filtering | None
    followers: Followers
    attached: OnInterfaces | None
    pinned: Pinned | None
    notes: list[str]

    @property
    def options(self) -> Options:
        """The first service's; options that services share are the same in all."""
        return self.backends[0].options


class Reloading(Protocol):
    """What has the configuration read again (`daemon/reload.py`)."""

    def reload(self) -> list[str]:
        """Returns what has changed. Raises CaromError; then nothing has changed."""


class Running:
    """The services of one fast path, made by `daemon/assemble.py`; closing removes everything."""

    reloader: Reloading | None = None
    """Where there is a configuration file."""

    def __init__(self, parts: Parts, stack: contextlib.ExitStack):
        """`stack` removes the parts, the last made first."""
        self.parts = parts
        self._stack = stack

    @property
    def attachments(self) -> list[Attachment]:
        """The interfaces that something is attached to, in their present state."""
        attached = self.parts.attached
        return attached.attachments.current if attached else []

    def servers(self) -> list[PythonBackend]:
        """The backends whose servers run in this process."""
        return [backend for backend in self.parts.backends if isinstance(backend, PythonBackend)]

    def start(self) -> None:
        """Every server but the first gets a thread of its own; the first runs in the main one.

        Pins this thread to a CPU if asked to; the other threads are not pinned.
        """
        for backend in self.servers()[1:]:
            thread = threading.Thread(
                target=backend.server.run_until_stopped,
                args=(backend.options.wait,),
                name=f"port {backend.options.port}",
                daemon=True,
            )
            thread.start()
            self._stack.callback(thread.join, _PATIENCE)
            self._stack.callback(backend.server.stop)
        if self.parts.options.cpu is not None:
            _pin(self.parts.options.cpu)

    def run(self) -> None:
        """Serve until Stop."""
        servers = self.servers()
        if servers:
            servers[0].server.run(self.parts.options.wait)
        until_stopped()  # the kernel and somebody else's server do the work

    def leave(self) -> None:
        """In a process that a handler forked: leave all this to its parent, which goes on."""
        self._left = self._stack.pop_all()  # never closed
        for backend in self.parts.backends:
            backend.leave()

    def close(self) -> None:
        """Remove everything, the last made first."""
        self._stack.close()


def _pin(cpu: int) -> None:
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError as error:
        raise UsageError(
            f"cannot run on CPU {cpu}",
            hint=f"this host has {sorted(os.sched_getaffinity(0))}",
        ) from error
