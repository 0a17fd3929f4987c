# SPDX-License-Identifier: Apache-2.0
"""Services as they would be answered, before anything is attached: for `carom why`.

Their programs are loaded with an empty cache, and with what this host's interfaces, addresses and
neighbours are now. No server is looked for: a fronted one is taken to be where its options say.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from carom import protocols
from carom.daemon.allow_list import AllowList
from carom.daemon.assemble import loaded
from carom.daemon.cache import Cache
from carom.daemon.clock import JiffiesClock
from carom.daemon.fastpath import Attachment, FastPath, Room
from carom.daemon.front import Front
from carom.daemon.learning import Learner
from carom.daemon.options import Options
from carom.daemon.publisher import links_of, own_addresses
from carom.daemon.receiver import Receiver, check_bind
from carom.daemon.service import Service
from carom.daemon.why import Asked
from carom.errors import UsageError
from carom.kernel import links
from carom.kernel.links import Interface
from carom.kernel.resource import Resource

_FOR_EVER = 2**64 - 1  # jiffies

_REPLY = b"?"
"""What a service of one's own is taken to have replied: a byte, which no limit keeps back."""


class Offline(Resource):
    """Services that are answered nowhere; what would be answered can be asked."""

    def __init__(self, services: Sequence[Service | Front], interface_names: Sequence[str]):
        """Raises UsageError where the kernel would answer nothing, or not at these interfaces;
        InterfaceError, PrivilegeError, CompileError, VerifierError, BPFError."""
        options: Options = services[0].options
        if options.hook == "none" or all(service.options.fast == "off" for service in services):
            raise UsageError(
                "with these options the kernel answers nothing", hint="--hook xdp | tc"
            )
        interfaces = links.interfaces(interface_names)
        for service in services:
            check_bind(service.options.bind, interfaces)
        receivers = [_Expected(service.options, id) for id, service in enumerate(services)]
        attachments = [_attachment(interface, options) for interface in interfaces]
        places = [
            place
            for receiver in receivers
            for attachment in attachments
            for place in receiver.places(attachment)
        ]
        own = own_addresses(interfaces)
        with contextlib.ExitStack() as stack:
            room = Room(len(places), len(own), len(options.allow) + 1)
            fastpath = stack.enter_context(loaded(options, receivers, room))
            fastpath.lease[0] = _FOR_EVER
            allowed = AllowList(fastpath, lambda: links_of(attachments), lambda: None)
            stack.enter_context(allowed).hold(options.allow)
            fastpath.refuse(own)
            fastpath.answer_at(places)
            self._stack = stack.pop_all()
        self._fastpath: FastPath = fastpath
        self.asked = Asked(fastpath, receivers, attachments)

    def fill(self, request: bytes, port: int) -> bool:
        """Put a reply to a request into the cache; False where there is none that is kept."""
        receiver = next(one for one in self.asked.receivers if one.options.port == port)
        if receiver.protocol.learned:
            return self._learn(request, receiver)
        if receiver.protocol.key_of(request) is None:
            return False
        clock = JiffiesClock(self._fastpath.read_jiffies)
        ttl = receiver.options.ttl
        cache = Cache(self._fastpath.store, clock, ttl, receiver.id, receiver.protocol)
        cache.fill(request, _REPLY, cache.take(request))
        return True

    def _learn(self, request: bytes, receiver: Receiver) -> bool:
        protocol, ttl = receiver.protocol, int(receiver.options.ttl)
        learner = Learner(self._fastpath)
        learned = [
            learner.learn(protocol, asked, reply, ttl=ttl, service=receiver.id)
            for asked, reply in protocols.made_up(protocol, request)
        ]
        return bool(learned) and all(learned)

    def close(self) -> None:
        """Free programs and maps."""
        self._stack.close()


class _Expected(Receiver):
    """What is to receive a service's requests, wherever its options say."""

    def __init__(self, options: Options, id: int):
        super().__init__(options, id)
        self.learns = self.protocol.learned


def _attachment(interface: Interface, options: Options) -> Attachment:
    """How the fast path would be attached, if the driver takes it."""
    if options.hook == "tc":
        return Attachment(interface, "tc", None, False)
    loses = options.mode == "auto" and interface.loses_native
    return Attachment(
        interface, "xdp", "generic" if loses or options.mode == "generic" else "native", True
    )
