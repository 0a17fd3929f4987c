# SPDX-License-Identifier: Apache-2.0
"""Has the kernel answer where services are now, and nowhere else; reports where they are not."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence

from carom import log
from carom.daemon.allow_list import AllowList
from carom.daemon.attachments import Attachments
from carom.daemon.fastpath import Attachment, FastPath
from carom.daemon.places import Place
from carom.daemon.reach import Reach, without
from carom.daemon.receiver import Receiver
from carom.filters.filter import Endpoint, Filter
from carom.kernel import netlink
from carom.kernel.links import Interface
from carom.kernel.netlink import Address


class Publisher:
    """Publishes the places of services on interfaces, each time that either may have changed.

    `unreached` says why a service is not answered on an interface, by the numbers of both.
    """

    def __init__(
        self,
        receivers: Sequence[Receiver],
        attachments: Attachments,
        fastpath: FastPath | None,
        filter: Filter | None,
        poke: Callable[[], None],
        moved: Callable[[], None],
    ):
        """`poke` has it look again soon; `moved` is called when interfaces have changed."""
        self._receivers = receivers
        self._attachments = attachments
        self._fastpath = fastpath
        self._filter = filter
        self._moved = moved
        self._publishing = threading.Lock()
        self.allowed = AllowList(fastpath, lambda: links_of(attachments.current), poke)
        self.unreached = self._why_not()

    def follow_interfaces(self) -> None:
        """Look at the interfaces again, and publish. Raises CaromError, OSError."""
        with self._publishing:
            before = self._attachments.current
            try:
                self._attachments.look_again()
            finally:
                if self._attachments.current != before:
                    self._moved()
                    self.allowed.look_again()
                self._publish_now()

    def publish(self) -> None:
        """Answer where the services are now, as their options say, and nowhere else.

        Whom they allow is in the kernel before it is heeded. Raises CaromError, OSError.
        """
        with self._publishing:
            allow = self._receivers[0].options.allow
            if allow:
                self.allowed.hold(allow)
            self._publish_now()
            if not allow:
                self.allowed.hold(())

    def _publish_now(self) -> None:
        self._publish(
            [
                place
                for attachment in self._attachments.current
                for receiver in self._receivers
                for place in receiver.places(attachment)
            ]
        )
        self._say_reach()

    def _publish(self, places: list[Place]) -> None:
        """Withdraw old places first, and do so whatever else fails."""
        with contextlib.ExitStack() as stack:  # calls the last one first, and all of them
            if self._fastpath:
                stack.callback(self._fastpath.answer_at, places)
                stack.callback(self._refuse_own, self._fastpath)
                stack.callback(self._fastpath.withdraw, places)
            if self._filter:
                stack.callback(
                    self._filter.filter,
                    [
                        Endpoint(
                            place.address,
                            place.port,
                            place.ifindex,
                            place.mac,
                            place.outer,
                            place.inner,
                        )
                        for place in places
                    ],
                )

    def _refuse_own(self, fastpath: FastPath) -> None:
        fastpath.refuse(
            own_addresses([attachment.interface for attachment in self._attachments.current])
        )

    def _say_reach(self) -> None:
        """Log what can be answered now and could not be before, and the other way round."""
        now = self._why_not()
        for id, number in now.keys() | self.unreached.keys():
            port = self._receivers[id].options.port
            why, before = now.get((id, number)), self.unreached.get((id, number))
            if why and why != before:
                log.warning("requests cannot be answered", port=port, why=why)
            elif before and not why:
                interface = self._attachments.current[number].interface.name
                log.info("requests are answered again", port=port, interface=interface)
        self.unreached = now

    def _why_not(self) -> dict[tuple[int, int], str]:
        reaches = {
            (receiver.id, number): reach
            for receiver in self._receivers
            for number, reach in enumerate(self.reaches(receiver))
        }
        return {key: reach.why for key, reach in reaches.items() if not reach.answered}

    def reaches(self, receiver: Receiver) -> list[Reach]:
        """By interface, whether requests to a service can come in by it and be answered."""
        return [self._reach(receiver, attachment) for attachment in self._attachments.current]

    def _reach(self, receiver: Receiver, attachment: Attachment) -> Reach:
        """The same by one interface, with regard to the allow-list too."""
        reach = receiver.reach(attachment)
        unknown, why = self.allowed.unknown()
        if not why:
            return reach
        versions = {place.address.version for place in receiver.places(attachment)}
        return without(reach, versions, unknown, why)


def links_of(attachments: Sequence[Attachment]) -> set[int]:
    """The interfaces that have addresses to answer at: those on top of them too."""
    interfaces = [attachment.interface for attachment in attachments]
    return {
        index
        for interface in interfaces
        for index in (interface.ifindex, *(upper.ifindex for upper in interface.uppers))
    }


def own_addresses(interfaces: Sequence[Interface]) -> set[Address]:
    """This host's own addresses, as far as they are known one by one. Raises OSError."""
    return set(netlink.own_addresses()).union(*(interface.hosts for interface in interfaces))
