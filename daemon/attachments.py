# SPDX-License-Identifier: Apache-2.0
"""The interfaces that requests come in by, and what is attached to each; follows changes."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from carom import log
from carom.daemon.fastpath import Attachment, FastPath, HookOption
from carom.daemon.options import Options
from carom.daemon.sent import Sent
from carom.errors import BusyError, InterfaceError
from carom.filters.filter import Filter
from carom.kernel import links
from carom.kernel.attached import Attached
from carom.kernel.links import Interface
from carom.kernel.local_routes import Asked


class Attacher:
    """Attaches the fast path, a filter, or the one behind the other to an interface."""

    def __init__(self, options: Options, fastpath: FastPath | None, filter: Filter | None):
        self._options = options
        self._fastpath = fastpath
        self._filter = filter if options.filter_place() != "socket" else None
        self.sent = Sent()

    def attach(self, interface: Interface) -> Attachment:
        """Attach. Raises BusyError, InterfaceError, PrivilegeError; then nothing is attached."""
        self.sent.begin(interface)
        try:
            with self._swapping():
                return self._attach(interface)
        except BaseException as error:
            self.detach(interface)
            if isinstance(error, BusyError) and self._options.hook == "xdp":
                error.hint = f"--hook tc stands beside it; or {error.hint}"
            raise

    def _attach(self, interface: Interface) -> Attachment:
        options, place = self._options, self._options.filter_place()
        attachment = None
        if self._fastpath:
            behind = self._filter if place == options.hook else None
            attachment = self._fastpath.attach(interface, options.hook, options.mode, behind)
            if behind:
                return attachment
        if self._filter:
            mode = self._filter.attach(interface, options.mode)
            hook: HookOption = "tc" if place == "tc" else "xdp"
            attachment = attachment or Attachment(interface, hook, mode, False)
        assert attachment
        return attachment

    def _swapping(self) -> contextlib.AbstractContextManager[object]:
        return self._filter.swapping if self._filter else contextlib.nullcontext()

    def _all(self) -> list[Attached]:
        return [part.attached for part in (self._fastpath, self._filter) if part]

    def detach(self, interface: Interface) -> None:
        """Detach whatever of it is on an interface."""
        with self._swapping():
            for attached in reversed(self._all()):
                attached.detach(interface.ifindex)

    def is_on(self, interface: Interface) -> bool:
        """Whether all that was attached to an interface is still there."""
        kept = [attached for attached in self._all() if not attached.empty]
        return bool(kept) and all(attached.on(interface.ifindex) for attached in kept)


class Attachments:
    """The interfaces, each with what is attached to it; `current` is their present state.

    An interface is known by its ifindex, even when it gets another name. When it is gone, an
    interface that has its name then takes its place.
    """

    def __init__(self, attacher: Attacher, interfaces: Sequence[Interface], asked: Asked):
        """Attach to all; `asked` as in links.interface.

        Raises BusyError, InterfaceError, PrivilegeError.
        """
        self._attacher = attacher
        self._asked_at = asked
        self._asked = [interface.name for interface in interfaces]
        self.current = [attacher.attach(interface) for interface in interfaces]

    def status(self) -> list[dict[str, Any]]:
        """They in `carom status`."""
        return [self._attacher.sent.status(attachment) for attachment in self.current]

    def look_again(self) -> None:
        """Look at the interfaces again. Raises InterfaceError, PrivilegeError, OSError.

        Nothing is answered on one whose change cannot be followed; its `failed` says why.
        """
        attachments: list[Attachment] = []
        failed: list[Exception] = []
        for number, attachment in enumerate(self.current):
            try:
                attachments.append(self._looked_at(number, attachment))
            except Exception as error:  # raised when the others have been looked at
                attachment = attachment._replace(failed=str(error) or type(error).__name__)
                attachments.append(self._unanswered(attachment, there=True))
                failed.append(error)
        self.current = attachments
        if failed:
            raise failed[0]

    @staticmethod
    def _unanswered(attachment: Attachment, *, there: bool) -> Attachment:
        interface = attachment.interface._replace(addresses=(), uppers=(), there=there)
        return attachment._replace(interface=interface)

    def _looked_at(self, number: int, attachment: Attachment) -> Attachment:
        before = attachment.interface
        now = links.numbered(before.ifindex, self._asked_at)
        if now and now.name != before.name and not self._attacher.is_on(now):
            now = None  # another interface, which has its ifindex now
        now = now or self._named(number, before.name) or self._named(number, self._asked[number])
        if now is None:
            self._attacher.detach(before)
            if before.there:
                log.warning(
                    "the interface is gone: the server answers alone", interface=before.name
                )
            return self._unanswered(attachment._replace(failed=""), there=False)
        if now.name != before.name:
            log.info("the interface has another name now", interface=now.name, before=before.name)
        if now.ifindex == before.ifindex and self._attacher.is_on(now):
            return attachment._replace(interface=now, failed="")
        self._attacher.detach(before)
        try:
            attached = self._attacher.attach(now)
        except InterfaceError:
            if links.numbered(now.ifindex):
                raise
            return self._looked_at(number, attachment)  # it has gone meanwhile
        log.info("attached to the interface anew", interface=now.name, mode=attached.mode)
        return attached

    def _named(self, number: int, name: str) -> Interface | None:
        """The interface of this name, unless it is one of the others here."""
        others = [attachment for at, attachment in enumerate(self.current) if at != number]
        with contextlib.suppress(InterfaceError):
            interface = links.interface(name, self._asked_at)
            if all(interface.ifindex != other.interface.ifindex for other in others):
                return interface
        return None
