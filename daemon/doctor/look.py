# SPDX-License-Identifier: Apache-2.0
"""What the doctor looks at, and what several checks need of it, found out once."""

from __future__ import annotations

import functools
import ipaddress
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from carom.daemon.bound_addresses import BoundAddresses
from carom.daemon.doctor.check import NotKnown
from carom.daemon.fastpath import Attachment, HookOption
from carom.daemon.firewall import Ruleset
from carom.daemon.firewall_check import FirewallCheck
from carom.daemon.front import Front
from carom.daemon.fronted_server import FrontedServer
from carom.daemon.options import Options
from carom.daemon.receiver import Receiver, check_bind
from carom.errors import CaromError, PrivilegeError
from carom.kernel import xdp_features
from carom.kernel.bpf import check_privileges
from carom.kernel.links import Interface
from carom.kernel.netlink import Address
from carom.xdp.link import Mode, ModeOption

SAMPLE = 0.5
"""Seconds for which CPUs are looked at."""


class Asked(NamedTuple):
    """A service that is, or would be, on the interfaces; `front` is None for a Python service."""

    options: Options
    front: Front | None = None


def bound_addresses(services: Sequence[Asked]) -> Callable[[], Collection[Address]]:
    """Gives the addresses that these services are bound to."""
    binds = {ipaddress.ip_address(asked.options.bind) for asked in services}
    fronted = BoundAddresses([asked.front for asked in services if asked.front])
    return lambda: fronted() | {address for address in binds if not address.is_unspecified}


class Running(NamedTuple):
    """A carom that runs; `status` is None if it does not answer, and `why` says so."""

    pid: int
    status: Mapping[str, Any] | None
    why: str = ""

    def modes(self) -> dict[str, Mode | None]:
        """How it is attached, by interface: XDP's mode, None at TC."""
        links = self.status["ready"]["interfaces"] if self.status else ()
        return {link["name"]: link["mode"] for link in links}


class Owned(Receiver):
    """A Python service's receiver without its socket, which another process has, or none yet."""

    def __init__(self, options: Options, pid: int | None):
        super().__init__(options, 0)
        self._pid = pid

    def processes(self) -> tuple[int, ...]:
        """The process that has its socket."""
        return (self._pid,) if self._pid else ()


class Look:
    """Interfaces, services on them, and the carom that runs them, if one does.

    `modes` are those of interfaces that carom is on: a running one says them. `root` is where the
    kernel's own files are found; `pause` waits for so many seconds. Only with `tries` is anything
    attached, for a moment.
    """

    def __init__(
        self,
        interfaces: Sequence[Interface] = (),
        services: Sequence[Asked] = (),
        *,
        hook: HookOption = "xdp",
        mode: ModeOption = "auto",
        running: Running | None = None,
        modes: Mapping[str, Mode | None] | None = None,
        root: Path = Path("/"),
        tries: bool = False,
        pause: Callable[[float], None] = time.sleep,
    ):
        self.interfaces, self.services = interfaces, services
        self.hook, self.mode, self.running = hook, mode, running
        self.root, self.tries = root, tries
        self._pause = pause
        self._modes = (running.modes() if running else None) or modes or {}
        self._receivers: dict[int, Receiver | CaromError] = {}
        self._firewalls: dict[int, FirewallCheck | CaromError] = {}

    @property
    def pid(self) -> int | None:
        """The running carom's."""
        return self.running.pid if self.running else None

    @property
    def programs(self) -> list[int]:
        """The ids of the running carom's programs that have no names of a carom's: its filter's."""
        status = self.running.status if self.running else None
        return [status["filter"]["program"]] if status and status["filter"] else []

    def is_on(self, interface: Interface) -> bool:
        """Whether the running carom is attached to an interface."""
        return interface.name in self._modes

    def mode_of(self, interface: Interface) -> Mode | None:
        """The mode that XDP has, or would be wanted in; None at TC."""
        if self.is_on(interface):
            return self._modes[interface.name]
        if self.hook != "xdp":
            return None
        if self.mode != "auto":
            return self.mode
        return "generic" if interface.loses_native else "native"

    def attachment(self, interface: Interface) -> Attachment:
        """How carom is attached to an interface, or would be."""
        mode = self.mode_of(interface)
        return Attachment(interface, "xdp" if mode else "tc", mode, False)

    @functools.cached_property
    def rules(self) -> Ruleset:
        """The firewall's rules."""
        return Ruleset()

    def refusal(self, asked: Asked) -> CaromError | None:
        """The error that keeps carom from finding where a service receives; None for none.

        Raises NotKnown.
        """
        found = self._receiver(asked)
        return found if isinstance(found, CaromError) else None

    def receiver(self, asked: Asked) -> Receiver:
        """Where a service receives. Raises NotKnown, also where `refusal` is the reason."""
        found = self._receiver(asked)
        if isinstance(found, CaromError):
            raise NotKnown(f"the server is not known (see {found.trap or 'refused'})")
        return found

    def _receiver(self, asked: Asked) -> Receiver | CaromError:
        key = id(asked)
        if key not in self._receivers:
            try:
                self._receivers[key] = self._found(asked)
            except PrivilegeError as error:
                raise NotKnown(f"{error}: {error.hint}") from error
            except CaromError as error:
                self._receivers[key] = error
        return self._receivers[key]

    def _found(self, asked: Asked) -> Receiver:
        if not self.interfaces:
            raise NotKnown("no interface is named (-i)")
        check_privileges()
        check_bind(asked.options.bind, self.interfaces)
        if asked.front:
            return FrontedServer(asked.front, 0, self.interfaces, self.rules)
        return Owned(asked.options, self.pid)

    def firewall(self, asked: Asked) -> FirewallCheck | CaromError:
        """What rules do to a service's requests, or the error if they forbid it to be answered.

        Raises NotKnown.
        """
        key = id(asked)
        if key not in self._firewalls:
            receiver = self.receiver(asked)
            try:
                self._firewalls[key] = FirewallCheck(
                    [receiver], self.interfaces, self.rules, lambda: None
                )
            except CaromError as error:
                self._firewalls[key] = error
        return self._firewalls[key]

    def has_native(self, interface: Interface) -> bool:
        """Whether the driver says that it has native XDP. Raises NotKnown."""
        try:
            return xdp_features.has_native(interface.ifindex)
        except OSError as error:
            raise NotKnown(
                f"{interface.name}'s driver cannot be asked for native XDP ({error.strerror}): "
                "that needs Linux 6.3"
            ) from error

    @functools.cached_property
    def cpu_times(self) -> tuple[str, str]:
        """/proc/stat twice, SAMPLE seconds apart."""
        path = self.root / "proc/stat"
        before = path.read_text()
        self._pause(SAMPLE)
        return before, path.read_text()
