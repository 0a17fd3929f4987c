# SPDX-License-Identifier: Apache-2.0
"""Attach a TC program at ingress: by a link (TCX), or by clsact on kernels before 6.6."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from carom import log
from carom.errors import BusyError, InterfaceError, PrivilegeError
from carom.kernel import libbpf
from carom.kernel.attached import ENDING, Links
from carom.kernel.links import Interface
from carom.kernel.netlink import filters, route_socket
from carom.kernel.resource import Resource

_INGRESS, _EGRESS = 0xFFFFFFF2, 0xFFFFFFF3  # TC_H_MIN_{INGRESS,EGRESS}, linux/pkt_sched.h
PRIORITY = 51_141
_HANDLE = 1
NAME = "carom:"
"""The beginning of a clsact filter's name; the owner's pid follows."""
_NO_LINKS = (errno.EINVAL, errno.EOPNOTSUPP)
"""The errors of a kernel without TCX."""


class TCLink(Resource):
    """An attached program; leaving the context detaches it. `kind` is `tcx` or `clsact`."""

    def __init__(
        self,
        program_fd: int,
        interface: Interface,
        *,
        tcx: bool = True,
        priority: int = PRIORITY,
        links: Links = ENDING,
    ):
        """Attach. Without `tcx` do as on a kernel before it: by clsact, at this `priority`.

        A filter of clsact outlives its owner's `kill -9`: the next start takes its place. One of
        `links` that is there is taken over.

        Raises BusyError if a stranger's filter, or a living carom's, has that priority;
        PrivilegeError, InterfaceError.
        """
        self.interface = interface
        self._priority = priority
        self._fd: int | None = None
        self._made_qdisc = False
        self._links, self._name = links, f"tc-{interface.ifindex}"
        try:
            if tcx:
                self._fd = self._link(program_fd)
            self.kind = "tcx" if self._fd is not None else "clsact"
            if self._fd is None:
                self._filter(program_fd)
        except PermissionError as error:
            raise PrivilegeError(
                f"not allowed to attach TC to {interface.name}", hint="run it as root"
            ) from error
        except OSError as error:
            raise InterfaceError(
                f"{interface.name} refused TC: {error}", hint="is the interface still there?"
            ) from error

    def _link(self, program_fd: int) -> int | None:
        try:
            index = self.interface.ifindex
            return self._links.made(
                self._name, program_fd, lambda: libbpf.link_tcx_ingress(program_fd, index)
            )
        except OSError as error:
            if error.errno in _NO_LINKS:
                return None
            raise

    def _filter(self, program_fd: int) -> None:
        """Add clsact if it is missing, and the filter; if that fails, nothing is left of them."""
        log.warning(
            "TC without links: a filter stays on the interface after kill -9, until the next start",
            interface=self.interface.name,
        )
        index = self.interface.ifindex
        with route_socket() as netlink, contextlib.ExitStack() as stack:
            self._made_qdisc = _add_clsact(index)
            if self._made_qdisc:
                stack.callback(netlink.tc, "del", "clsact", index)
            self._take_place(netlink)
            self._put(netlink, "add-filter", program_fd)
            stack.pop_all()

    def _put(self, netlink: Any, command: str, program_fd: int) -> None:
        netlink.tc(
            command,
            "bpf",
            self.interface.ifindex,
            _HANDLE,
            fd=program_fd,
            name=f"{NAME}{os.getpid()}",
            parent=_INGRESS,
            prio=self._priority,
            classid=1,
            direct_action=True,
        )

    def replace(self, program_fd: int) -> None:
        """Replace the program, between two packets."""
        if self._fd is not None:
            libbpf.update_link(self._fd, program_fd)
            return
        with route_socket() as netlink:
            self._put(netlink, "replace-filter", program_fd)

    def _take_place(self, netlink: Any) -> None:
        """Remove what a killed carom left at our priority. Raises BusyError for anything else."""
        index, name = self.interface.ifindex, self.interface.name
        for kind, priority, owner in filters(index, _INGRESS):
            if priority != self._priority:
                continue
            if not _is_left(owner):
                raise BusyError(
                    f"{name} already has a TC filter at priority {self._priority}: {owner or kind}",
                    hint=f"see `tc filter show dev {name} ingress`",
                )
            netlink.tc("del-filter", "bpf", index, _HANDLE, parent=_INGRESS, prio=self._priority)

    def attached(self) -> bool:
        """Whether it is still attached: when an interface goes, its programs go with it."""
        index = self.interface.ifindex
        if self._fd is not None:
            return self._fd >= 0 and libbpf.link_ifindex(self._fd) == index
        try:
            return any(found.priority == self._priority for found in filters(index, _INGRESS))
        except OSError:
            return False

    def close(self) -> None:
        """Detach, unless it is to outlive its owner."""
        self._end(self._links.close)

    def detach(self) -> None:
        """Detach, and remove the qdisc if it was made for this."""
        self._end(self._links.detach)

    def _end(self, end: Callable[[str, int], None]) -> None:
        if self._fd is None:
            self._remove_filter()
            return
        descriptor, self._fd = self._fd, -1
        end(self._name, descriptor)

    def _remove_filter(self) -> None:
        index = self.interface.ifindex
        try:
            with route_socket() as netlink:
                netlink.tc(
                    "del-filter", "bpf", index, _HANDLE, parent=_INGRESS, prio=self._priority
                )
                others = (filters(index, parent) for parent in (_INGRESS, _EGRESS))
                if self._made_qdisc and not any(others):
                    netlink.tc("del", "clsact", index)
        except OSError as error:  # gone with its interface
            log.warning("the TC filter was gone already", error=str(error))


def _is_left(name: str) -> bool:
    """Whether this is the name of a filter whose carom is gone."""
    pid = name.removeprefix(NAME)
    return pid != name and pid.isdigit() and not Path(f"/proc/{pid}").exists()


def _add_clsact(index: int) -> bool:
    try:
        with route_socket() as netlink:
            netlink.tc("add", "clsact", index)
    except FileExistsError:
        return False
    return True
