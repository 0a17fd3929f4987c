# SPDX-License-Identifier: Apache-2.0
"""The filters a second time, in Python: what the programs are held against."""

from __future__ import annotations

from collections.abc import Callable

from carom.filters.names import Name
from carom.protocols import kv

_SIZES = {b"PUT": 15, b"GET": 7, b"DELETE": 10, b"STOP": 4}


def _word(request: bytes) -> bytes | None:
    return next(filter(request.startswith, _SIZES), None)


class Budget:
    """So many in a second."""

    def __init__(self) -> None:
        self._second = -1
        self._spent = 0

    def within(self, rate: int, second: int) -> bool:
        """One more in this second; False beyond the rate."""
        if second != self._second:
            self._second, self._spent = second, 0
        self._spent += 1
        return self._spent <= rate


class Reference:
    """A filter with its settings: `accept`, and PUTs a second as `rate` and `client_rate` (0: any).

    `exists` says whether the server has a key.
    """

    def __init__(self, name: Name, exists: Callable[[int], bool] = lambda key: True):
        self.name = name
        self.accept = True
        self.rate = 0
        self.client_rate = 0
        self._exists = exists
        self._total = Budget()
        self._clients: dict[str, Budget] = {}

    def accepts(self, request: bytes, client: str = "", second: int = 0) -> bool:
        """The verdict on a request of a client, in a second of whatever clock."""
        word = _word(request)
        match self.name:
            case "simple":
                return True
            case "reject":
                return False
            case "valid-command":
                return word is not None
            case "robust-valid-command":
                return word is not None and len(request) == _SIZES[word]
            case "parameterized":
                return self.accept
        command = kv.decode(request)
        if command is None:
            return False
        if self.name == "limited-puts" and command.name == b"PUT":
            return self._within(client, second)
        if self.name == "existing-key" and command.name in (b"GET", b"DELETE"):
            return self._exists(command.key or 0)
        return True

    def _within(self, client: str, second: int) -> bool:
        own = self._clients.setdefault(client, Budget())
        return (not self.client_rate or own.within(self.client_rate, second)) and (
            not self.rate or self._total.within(self.rate, second)
        )
