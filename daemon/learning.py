# SPDX-License-Identifier: Apache-2.0
"""Has replies learned as the socket's edge learns them, where there is no server: for what is only
asked, or measured."""

from __future__ import annotations

import struct

from carom.daemon.fastpath import FastPath
from carom.kernel import libbpf
from carom.protocols.spec import Spec

_FRONT = struct.Struct("=Q4I")  # struct front of cgroup/learn.c


def before_reply(
    protocol: Spec, request: bytes, token: int, ttl: int = 3600, service: int | None = None
) -> bytes:
    """What cgroup/learn.c is given before a reply: its request, and what the edge knows of that.

    Without a `service` it is the one with the protocol's number.
    """
    number = protocol.number if service is None else service
    return _FRONT.pack(token, protocol.number, len(request), ttl, number) + request


class Learner:
    """The program that learns, of a loaded fast path."""

    def __init__(self, fastpath: FastPath):
        """Raises VerifierError, BPFError."""
        self._program = fastpath.load("learn_frame")
        self._voids = fastpath.store.voids

    def learn(
        self,
        protocol: Spec,
        request: bytes,
        reply: bytes,
        *,
        token: int | None = None,
        ttl: int = 3600,
        service: int | None = None,
    ) -> bool:
        """Learn a reply to a request that took this token, or takes one now; False where it is of
        no kind that is kept, or there is no room for it. Otherwise as `before_reply`."""
        taken = self._voids[0] if token is None else token
        front = before_reply(protocol, request, taken, ttl, service)
        return libbpf.test_run(self._program, front + reply).retval == libbpf.XDP_PASS
