# SPDX-License-Identifier: Apache-2.0
"""What is behind a service's fast path: its cache, and the server that answers the rest."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from carom.daemon.cache import Cache, Restored
from carom.daemon.options import Options
from carom.daemon.receiver import Receiver
from carom.errors import UsageError
from carom.kernel.abi import Entry
from carom.kernel.resource import Resource


class Kept(msgspec.Struct):
    """A reply as it is kept outside of a cache: key and reply in base64, seconds that it holds."""

    key: str
    reply: str
    seconds: float
    loops: bool


class Backend(Resource):
    """A service's cache, if it has one, and what belongs to its kind of server."""

    def __init__(self, receiver: Receiver, cache: Cache | None):
        self.receiver = receiver
        self.options, self.id, self.protocol = receiver.options, receiver.id, receiver.protocol
        self.cache = cache
        self.compared = self.differing = 0
        """Pairs of replies (shadow.py), and how many of them said something else."""

    @property
    def replies(self) -> int:
        """How many its server has given; 0 for somebody else's server."""
        return 0

    def heed(self, options: Options) -> None:
        """Go by other options, of which only those of LIVE may differ; then they are published."""
        self.options = self.receiver.options = options
        if self.cache:
            self.cache.live_for(options.ttl)

    def tallies(self) -> dict[str, int]:
        """Counters of replies that are not given from the cache, by `status`'s names for them."""
        return self._not_kept()

    def _not_kept(self) -> dict[str, int]:
        cache = self.cache
        return (
            {
                "refused": cache.refused,
                "not_admitted": cache.not_admitted,
                "held": cache.held,
                "unfit": cache.unfit,
            }
            if cache
            else {}
        )

    def look_again(self) -> None:
        """The host's network has changed: look at the server again."""

    def notes(self) -> Iterator[str]:
        """Notes for whoever runs it."""
        return iter(())

    def leave(self) -> None:
        """In a forked process: forget the service, which is the parent's."""

    def close(self) -> None:
        """Stop using the fast path, which is removed next."""

    # What the control socket calls.

    def status(self) -> dict[str, Any]:
        """Its counters."""
        cache = self.cache
        return {
            "port": self.options.port,
            "address": self.options.bind,
            "server": None,
            "userspace_cache": None,
            "reply_times": None,
            "cache": cache
            and {
                "entries": cache.count(),
                "fills": cache.fills,
                **self._not_kept(),
            },
            "shadow": {
                "compared": self.compared,
                "differing": self.differing,
                "off": self.receiver.switched_off,
            }
            if self.options.shadow
            else None,
        }

    def _need_cache(self) -> Cache:
        if not self.cache:
            raise UsageError(
                "this service has no cache in the kernel", hint="it starts with --fast cache"
            )
        return self.cache

    def _describe(self, entry: Entry) -> dict[str, Any]:
        cache = self._need_cache()
        return {
            "key": entry.key.hex(),
            "reply_bytes": entry.length,
            "state": cache.state(entry),
            "ttl_seconds": cache.seconds_left(entry),
        }

    def list(self, limit: int) -> dict[str, Any]:
        """Up to `limit` entries, and how many there are. UsageError without a cache."""
        cache = self._need_cache()
        entries = [self._describe(entry) for entry in itertools.islice(cache.entries(), limit)]
        return {"entries": entries, "total": cache.count()}

    def get(self, key: str) -> dict[str, Any] | None:
        """The entry of a name, given in hex, with its reply in base64; None for none."""
        cache = self._need_cache()
        entry = cache.find(bytes.fromhex(key))
        if not entry:
            return None
        return {**self._describe(entry), "reply": base64.b64encode(entry.reply).decode()}

    def page(self, page: int) -> dict[str, Any]:
        """The replies that are given now, of some pages, and the `next` page; None at the end.

        Raises UsageError for a service whose replies are learned.
        """
        cache = self._need_filled()
        entries, behind = cache.page(page)
        kept = [
            Kept(
                key=base64.b64encode(entry.key).decode(),
                reply=base64.b64encode(entry.reply).decode(),
                seconds=cache.seconds_left(entry),
                loops=entry.loops,
            )
            for entry in entries
        ]
        return {"protocol": self.protocol.name, "entries": kept, "next": behind}

    def restore(self, protocol: str, entries: Sequence[Any]) -> dict[str, int]:
        """Store replies that `page` gave; how many became what, by the names of `Restored`.

        Raises UsageError for entries that this service cannot have.
        """
        cache = self._need_filled()
        if protocol != self.protocol.name:
            raise UsageError(
                f"these replies are of {protocol}, and the service speaks {self.protocol.name}"
            )
        became = dict.fromkeys((one.value for one in Restored), 0)
        for kept in msgspec.convert(entries, tuple[Kept, ...]):
            key, reply = base64.b64decode(kept.key), base64.b64decode(kept.reply)
            loops = self._loops(key, reply) or kept.loops
            became[cache.restore(key, reply, kept.seconds, loops=loops).value] += 1
        return became

    def _loops(self, key: bytes, reply: bytes) -> bool:
        """Whether a reply to be restored is itself a known request."""
        return False

    def _need_filled(self) -> Cache:
        cache = self._need_cache()
        if self.protocol.learned:
            raise UsageError(
                f"replies of {self.protocol.name} are learned from its server, and not kept",
                hint="a service of your own (`carom serve`) can keep its replies",
            )
        return cache

    def drop(self, key: str) -> bool:
        """Take back the reply of a name, given in hex; False when there was none."""
        return self._need_cache().drop(bytes.fromhex(key))

    def flush(self) -> int:
        """Take back everything. Returns the number of entries."""
        return self._need_cache().flush()
