# SPDX-License-Identifier: Apache-2.0
"""Requests and replies of a server, in a capture of its traffic."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence

from carom.errors import UsageError
from carom.frames import Datagram, datagram
from carom.lab.tools.replay import Exchange
from carom.protocols.spec import RequestId

_PATIENCE = 10.0  # seconds after which a datagram is no reply to a request any more


def exchanges(frames: Sequence[tuple[float, bytes]], port: int, id_: RequestId) -> list[Exchange]:
    """The requests to a port in a capture, each with the reply that went back to its sender.

    `frames` are times in seconds and frames, as they were captured. A reply belongs to the oldest
    request of the same sender, address and id that waits for one. Datagrams that are not whole in
    the capture, or in fragments, are left out. Raises UsageError where there is no request.
    """
    found = list[Exchange]()
    waiting = defaultdict[tuple[object, ...], deque[int]](deque)
    start: float | None = None
    for time, one in ((time, datagram(frame)) for time, frame in frames):
        if not one or len(one.payload) < one.length:
            continue
        if one.port == port:
            start = time if start is None else start
            waiting[_flight(one, id_)].append(len(found))
            found.append(Exchange(max(0.0, time - start), one.payload))
        elif one.source_port == port and start is not None:
            queue = waiting.get(_flight(one, id_, reply=True))
            while queue:
                number = queue.popleft()
                asked = found[number]
                if time - start - asked.at <= _PATIENCE:
                    found[number] = asked._replace(replied=time - start, reply=one.payload)
                    break
    if not found:
        raise UsageError(
            f"the capture has no whole UDP request to port {port}",
            hint="-p says the server's port; capture with `tcpdump -s 0`",
        )
    return found


def _flight(one: Datagram, id_: RequestId, *, reply: bool = False) -> tuple[object, ...]:
    """What a request and its reply share."""
    ends = (one.source, one.source_port, one.to)
    if reply:
        ends = (one.to, one.port, one.source)
    size = id_.size
    if id_.varies and one.payload:
        size = min(size, one.payload[0] & 15)
    return *ends, one.payload[id_.at : id_.at + size]
