# SPDX-License-Identifier: Apache-2.0
"""What is behind a service's fast path: its cache, and the server that answers the rest."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator
from typing import Any

from carom.daemon.cache import Cache
from carom.daemon.receiver import Receiver
from carom.errors import UsageError
from carom.kernel.abi import Entry
from carom.kernel.resource import Resource


class Backend(Resource):
    """A service's cache, if it has one, and what belongs to its kind of server."""

    def __init__(self, receiver: Receiver, cache: Cache | None):
        self.receiver = receiver
        self.options, self.id, self.protocol = receiver.options, receiver.id, receiver.protocol
        self.cache = cache

    @property
    def replies(self) -> int:
        """How many its server has given; 0 for somebody else's server."""
        return 0

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
            "server": None,
            "userspace_cache": None,
            "cache": cache
            and {
                "entries": cache.count(),
                "fills": cache.fills,
                **self._not_kept(),
            },
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

    def drop(self, key: str) -> bool:
        """Take back the reply of a name, given in hex; False when there was none."""
        return self._need_cache().drop(bytes.fromhex(key))

    def flush(self) -> int:
        """Take back everything. Returns the number of entries."""
        return self._need_cache().flush()
