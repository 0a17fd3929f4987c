# SPDX-License-Identifier: Apache-2.0
"""What a protocol says of itself: its SPEC, from which all others know it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable


class Filled(Enum):
    """Who fills the cache."""

    DAEMON = "serve"
    """A Python service of carom's: its replies do not name what they answer."""
    LEARNED = "front"
    """The replies of somebody else's server, as they leave its socket."""


class Stream(Enum):
    """What the server may be written to by over TCP, at its own port."""

    NONE = 0
    """Nobody can read it: any of it may write anything."""
    COMMANDS = 1
    """Commands, one behind the other: NAME_stream_* of protocols.h."""
    MESSAGES = 2
    """Messages, each behind two bytes of its length, whose replies alone say what was written."""


class RequestId(NamedTuple):
    """Where in a payload the id is that a reply has from its request.

    `at` is its first byte's offset, `size` how many bytes it has: at most so many where it
    `varies`, and the lower half of the payload's first byte says how many.
    """

    at: int = 0
    size: int = 0
    varies: bool = False


NO_ID = RequestId()
"""Of a protocol that is not learned."""


class Clock(Protocol):
    """Time in jiffies."""

    def now(self) -> int:
        """Jiffies now."""

    def ticks(self, seconds: float) -> int:
        """Jiffies in so many seconds."""

    def seconds(self, ticks: int) -> float:
        """Seconds in so many jiffies."""


class Closable(Protocol):
    """What goes on until it is closed."""

    def close(self) -> None:
        """Go on no more."""


class Around(NamedTuple):
    """What the daemon gives to what goes on beside a fronted server.

    `service` is its number, `port` the server's own; `processes` are directories in /proc of
    processes in whose network namespaces the server has its sockets. `repeat` runs a step, which
    returns the seconds to pause, in a thread of that name; `map` is the descriptor of a map of the
    fast path's.
    """

    map: Callable[[str], int]
    clock: Clock
    service: int
    port: int
    processes: Callable[[], Iterable[Path]]
    repeat: Callable[[str, Callable[[], float]], Closable]


class Informed(Closable, Protocol):
    """What keeps the kernel informed of a server's cookies."""

    def advice(self) -> str:
        """What whoever runs this should know; empty where there is nothing to do."""

    def status(self) -> dict[str, Any]:
        """What is known, for `carom status`."""


class CookieKeeping(NamedTuple):
    """Of a protocol whose clients send cookies: `check` a file of secrets, and `keep` the kernel
    informed by it. Both raise UsageError for a file that does not do."""

    check: Callable[[Path], object]
    keep: Callable[[Around, Path | None], Informed]


class Unclear(ValueError):
    """An answer that does not say when an item ends: of another server, or an older one."""


class State(Protocol):
    """What holds for all items of a server at one moment."""

    @property
    def now(self) -> int:
        """The second that it has come to in its own count."""

    @property
    def flush_in(self) -> float:
        """Seconds until it forgets them all; infinity where nobody has said so."""

    def question(self, name: bytes) -> bytes:
        """What to ask of an item first."""

    def left(self, answer: bytes, name: bytes) -> float | None:
        """Seconds that are left of an item; None where a second question is needed. Unclear."""


class Asking(Closable, Protocol):
    """Asks one server."""

    def ask(self, texts: Sequence[bytes]) -> list[bytes | None]:
        """The answers, in the order of the questions; None for what did not come."""


class Ending(NamedTuple):
    """Of a protocol whose items end by themselves: how its server is asked when.

    `program` is the server that can be asked, and `hint` what to run. `by` asks through a connected
    socket. `about_all` are the questions whose answers `state` reads. An answer may end its item so
    many seconds sooner as `slack` says. `second_question` tells an item that never ends from one
    that ends in a second, and `second_left` reads its answer: the seconds left, and whether the
    question may not be asked of this server again. `name_of` is the item's name in a cache key.
    """

    program: str
    hint: str
    by: Callable[[Any], Asking]
    about_all: Sequence[bytes]
    state: Callable[[Sequence[bytes]], State]
    slack: int
    second_question: Callable[[bytes], bytes]
    second_left: Callable[[bytes], tuple[float, bool]]
    name_of: Callable[[bytes], bytes]


class Watcher(Protocol):
    """Who is told what has become of keys, once it has."""

    def put(self, key: int, *, new: bool) -> None:
        """A value was stored."""

    def delete(self, key: int) -> None:
        """A key is gone."""


@runtime_checkable
class Store(Protocol):
    """What a service answers from, whose keys can be watched."""

    values: dict[int, int]
    watcher: Watcher | None


class Reading(NamedTuple):
    """How the lab's clients read numbered keys: `request` by the request's number, its id, and the
    key's digits, of which there may be `digits_max`."""

    request: Callable[[int, bytes], bytes]
    digits_max: int


class Sample(NamedTuple):
    """A request whose hit is measured, and how the cache gets its reply.

    `reply` is as its server gives it; `asked` is what the socket's edge remembers of the request.
    `miss` is the name of another whose reply is not there, and that request. `prepare` makes the
    maps ready.
    """

    name: str
    request: bytes
    reply: bytes
    miss: tuple[str, bytes] | None = None
    asked: int = 0
    prepare: Callable[[Around], None] = lambda around: None


def _no_key(request: bytes) -> bytes | None:
    del request
    return None


def _no_keys(name: bytes) -> tuple[bytes, ...]:
    del name
    return ()


def _nothing_written(request: bytes) -> bytes | None:
    del request
    return None


def _no_words(port: int) -> str:
    del port
    return ""


def _no_lists(processes: Iterable[int]) -> Iterator[str]:
    del processes
    return iter(())


def _no_samples(client: str) -> Sequence[Sample]:
    del client
    return ()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Spec:
    """A protocol; what it does not say, it has none of.

    `name` is its folder's and `number` its own for ever. `headers` are the C files of the folder
    that the programs include, and `functions` those of the contract (protocol.h) that they have.
    `default` is what `carom serve` or `carom front` takes where no protocol is said.
    """

    name: str
    number: int
    filled: Filled
    request_max: int
    default: bool = False
    port: int | None = None
    id: RequestId = NO_ID
    slot_from: int = 0
    stream: Stream = Stream.NONE
    headers: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()

    whole_key: bool = False
    """The whole payload is the key: the fast path reads it, and a reply may be a request."""
    filtered: bytes = b""
    """One of its commands, if filters (filters/) read them."""
    nameless: bool = False
    """Replies do not name their key: it is remembered from their request, whose id they have."""
    repeat_at: int = 0
    """Of a nameless one: where in a request 16 bits are that it keeps when it is sent again, for a
    server may answer it then as it did before."""
    written_at_any_door: bool = False
    """A server takes writes at every port that it is bound to."""
    why_not_learned: str = ""
    cookies: CookieKeeping | None = None
    ending: Ending | None = None

    key_of: Callable[[bytes], bytes | None] = _no_key
    """The cache key of a request that the daemon fills; None for one that is not answered."""
    keys_named: Callable[[bytes], tuple[bytes, ...]] = _no_keys
    """The cache keys of what a user calls by this name: for `carom cache get` and `drop`."""
    read_of_written: Callable[[bytes], bytes | None] = _nothing_written
    """Of a request that a Python service gets: the read whose reply it voids."""
    how_to_have_udp: Callable[[int], str] = _no_words
    """How a server is started that has UDP at a port, where that is off by default."""
    access_lists: Callable[[Iterable[int]], Iterator[str]] = _no_lists
    """What a server's configuration says of whom it answers, for a hit passes that."""
    samples: Callable[[str], Sequence[Sample]] = _no_samples
    """What `carom lab bench` measures, from a client of this address."""
    reading: Reading | None = None
    layers: str = ""
    """The module with its packets for scapy."""

    def slot_key_of(self, key: bytes) -> bytes:
        """The bytes of a cache key that its slot is computed from."""
        return key[self.slot_from :]

    @property
    def writes(self) -> bool:
        """Whether a request to a Python service may void a reply."""
        return self.read_of_written is not _nothing_written

    @property
    def learned(self) -> bool:
        """Whether the cache learns from somebody else's server."""
        return self.filled is Filled.LEARNED

    @property
    def truncates(self) -> bool:
        """Whether a reply can say nothing but "ask over TCP"."""
        return "truncated" in self.functions
