# SPDX-License-Identifier: Apache-2.0
"""Attach an XDP program by a bpf_link: it ends with its owner and never replaces a stranger's."""

from __future__ import annotations

import errno
from typing import Literal

from carom import log
from carom.errors import BusyError, InterfaceError, PrivilegeError
from carom.kernel import libbpf
from carom.kernel.attached import ENDING, Links
from carom.kernel.links import Interface
from carom.kernel.owner import owners
from carom.kernel.resource import Resource

Mode = Literal["native", "generic"]
ModeOption = Literal["auto", "native", "generic"]

_FLAGS: dict[Mode, int] = {
    "native": libbpf.XDP_FLAGS_DRV_MODE,
    "generic": libbpf.XDP_FLAGS_SKB_MODE,
}
REFUSED = "refused XDP in {mode} mode"
"""The message about an interface whose driver refuses."""

_REFUSALS = {errno.EOPNOTSUPP, errno.EINVAL, errno.ERANGE, errno.ENOMEM, errno.ENOSPC, errno.ENODEV}
"""The errors of drivers that cannot take a program in native mode (MTU, queues, offloads)."""


class Link(Resource):
    """An attached program; leaving the context detaches it. `mode` is how it is attached."""

    def __init__(
        self,
        program_fd: int,
        interface: Interface,
        mode: ModeOption = "auto",
        *,
        answers: bool = True,
        links: Links = ENDING,
    ):
        """Attach in native mode with generic as fallback (`auto`), or in just the given mode.

        On a veth, and a bond of veths, `auto` takes generic for a program that `answers`: there
        native XDP_TX loses every frame silently unless the peer has an XDP program too, and the
        peer may lose that at any time. One of `links` that is there is taken over, in its mode.

        Raises BusyError when another program is attached, InterfaceError when the driver refuses,
        PrivilegeError.
        """
        self.interface = interface
        self._links = links
        for other in _FLAGS:
            if links.there(self._name(other)):
                if mode == "auto":
                    mode = other
                elif mode != other:
                    links.end(self._name(other))
        if mode == "auto":
            self.mode, self._fd = self._attach_auto(program_fd, answers=answers)
        else:
            self.mode, self._fd = mode, self._attach(program_fd, mode)

    def _name(self, mode: Mode) -> str:
        return f"xdp-{mode}-{self.interface.ifindex}"

    def _attach_auto(self, program_fd: int, *, answers: bool) -> tuple[Mode, int]:
        name = self.interface.name
        if answers and self.interface.loses_native:
            log.warning(
                "generic XDP: native on a veth answers only if its peer has an XDP program too",
                interface=name,
                choose="--mode native when it has",
            )
            return "generic", self._attach(program_fd, "generic")
        try:
            return "native", self._attach(program_fd, "native")
        except BusyError:
            raise
        except InterfaceError as error:
            log.warning(
                "generic XDP, slower: the driver refused native",
                interface=name,
                driver=self.interface.driver,
                error=str(error.__cause__),
            )
            return "generic", self._attach(program_fd, "generic")

    def _attach(self, program_fd: int, mode: Mode) -> int:
        interface = self.interface
        try:
            return self._links.made(
                self._name(mode),
                program_fd,
                lambda: libbpf.link_xdp(program_fd, interface.ifindex, _FLAGS[mode]),
            )
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.EEXIST):
                raise self._busy() from error
            if error.errno == errno.EPERM:
                raise PrivilegeError(
                    f"not allowed to attach XDP to {interface.name}", hint="run it as root"
                ) from error
            if error.errno not in _REFUSALS:
                raise
            raise InterfaceError(
                f"{interface.name} (driver {interface.driver}, MTU {interface.mtu}) "
                f"{REFUSED.format(mode=mode)}: {error.strerror}",
                hint="--mode generic works on every driver"
                if mode == "native"
                else "is the interface still there?",
            ) from error

    def _busy(self) -> BusyError:
        name = self.interface.name
        program_id = libbpf.attached_xdp(self.interface.ifindex)
        whose = ", ".join(owners(program_id)) if program_id else ""
        return BusyError(
            f"{name} already has an XDP program"
            + (f" (id {program_id})" if program_id else "")
            + (f" of {whose}" if whose else ""),
            hint=f"see `ip link show {name}`; stop its owner"
            + ("" if whose else ", or `carom unpin` where that was a carom with --pin")
            + ", or take another interface: carom never replaces a program",
        )

    def replace(self, program_fd: int) -> None:
        """Replace the program, between two packets. Raises OSError."""
        libbpf.update_link(self._fd, program_fd)

    def attached(self) -> bool:
        """Whether it is still attached: when an interface goes, its programs go with it."""
        return self._fd >= 0 and libbpf.link_ifindex(self._fd) == self.interface.ifindex

    def detach(self) -> None:
        """Detach."""
        descriptor, self._fd = self._fd, -1
        self._links.detach(self._name(self.mode), descriptor)

    def close(self) -> None:
        """Detach, unless it is to outlive its owner."""
        descriptor, self._fd = self._fd, -1
        self._links.close(self._name(self.mode), descriptor)
