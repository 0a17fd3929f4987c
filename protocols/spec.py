# SPDX-License-Identifier: Apache-2.0
"""A protocol's description of itself, its SPEC: all that the other rooms know of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable


class Filled(Enum):
    """Who fills the cache."""

    DAEMON = "serve"
    """A Python service: the daemon fills, as replies do not name what they answer."""
    LEARNED = "front"
    """Somebody else's server: its replies are learned as they leave its socket."""


class Stream(Enum):
    """What clients may write over TCP, at the server's own port."""

    NONE = 0
    """It cannot be read here: any of it may write anything."""
    COMMANDS = 1
    """Commands, one after the other: NAME_stream_* of protocols.h."""
    MESSAGES = 2
    """Messages, each after two bytes of its length; only their replies tell what was written."""


class RequestId(NamedTuple):
    """Where in a payload the id is that a reply shares with its request.

    `at` is the offset of its first byte, `size` its length in bytes. Where that `varies`, `size` is
    the most, and the lower half of the payload's first byte is the length.
    """

    at: int = 0
    size: int = 0
    varies: bool = False


class Joined(NamedTuple):
    """How the replies to several keys become one: one behind the other, all that they share once.

    Of each reply but the first its first JOINED_HEAD bytes are left out, of each but the last its
    last `tail` bytes. The whole has at most `longest` bytes: a server would send more as several
    datagrams.
    """

    tail: int
    longest: int


NO_ID = RequestId()
"""For a protocol that is not learned."""


class Clock(Protocol):
    """Time in jiffies."""

    def now(self) -> int:
        """Jiffies now."""

    def ticks(self, seconds: float) -> int:
        """The number of jiffies in `seconds`."""

    def seconds(self, ticks: int) -> float:
        """The number of seconds in `ticks` jiffies."""


class Closable(Protocol):
    """Something that runs until it is closed."""

    def close(self) -> None:
        """Stop."""


class Around(NamedTuple):
    """What the daemon gives to a helper of a protocol that runs beside a fronted server.

    `map` gives the descriptor of one of the fast path's maps, by name. `service` is the service's
    number, `port` the server's own port. `processes` gives the directories in /proc of processes in
    whose network namespaces the server has its sockets. `repeat` runs a step again and again, in a
    thread of that name; the step returns the seconds to pause.
    """

    map: Callable[[str], int]
    clock: Clock
    service: int
    port: int
    processes: Callable[[], Iterable[Path]]
    repeat: Callable[[str, Callable[[], float]], Closable]


class Informed(Closable, Protocol):
    """Keeps the kernel informed of a server's cookies."""

    def advice(self) -> str:
        """What the operator should do; empty where there is nothing to do."""

    def status(self) -> dict[str, Any]:
        """What is known, for `carom status`."""


class CookieKeeping(NamedTuple):
    """For a protocol whose clients send cookies.

    `check` reads a file of secrets; `keep` keeps the kernel informed by it. Both raise UsageError
    for a file that is not usable. `gives` asks a server, by the directories in /proc of its
    processes and its port, whether it gives cookies; None where that does not show.
    """

    check: Callable[[Path], object]
    keep: Callable[[Around, Path | None], Informed]
    gives: Callable[[Iterable[Path], int], bool | None]


class Unclear(ValueError):
    """An answer that does not say when an item ends: of another server, or an older one."""


class State(Protocol):
    """What holds for all items of a server at a certain moment."""

    @property
    def now(self) -> int:
        """The current second in the server's own count."""

    @property
    def flush_in(self) -> float:
        """Seconds until it forgets all items; infinity if nobody has ordered that."""

    def question(self, name: bytes) -> bytes:
        """The first question about an item."""

    def left(self, answer: bytes, name: bytes) -> float | None:
        """The seconds left of an item; None: a second question is needed. Raises Unclear."""


class Asking(Closable, Protocol):
    """Asks one server."""

    def ask(self, texts: Sequence[bytes]) -> list[bytes | None]:
        """The answers, in the order of the questions; None for one that did not come."""


class Ending(NamedTuple):
    """For a protocol whose items end by themselves: how to ask its server when they do.

    `program` is the server that can be asked; `hint` says what to run. `by` makes an Asking from a
    connected socket. `about_all` are the questions whose answers `state` reads. An item may end up
    to `slack` seconds before the time in an answer. `second_question` tells an item that never ends
    from one that ends in a second; `second_left` reads its answer: the seconds left, and whether
    this server must not be asked that question again. `name_of` gives the item's name in a cache
    key.
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
    """Is told of changes of keys, after they are done."""

    def put(self, key: int, *, new: bool) -> None:
        """A value was stored."""

    def delete(self, key: int) -> None:
        """A key is gone."""


@runtime_checkable
class Store(Protocol):
    """What a service answers from; changes of its keys can be watched."""

    values: dict[int, int]
    watcher: Watcher | None


class Reading(NamedTuple):
    """How the lab's clients read numbered keys.

    `request` makes a request from its number, which becomes its id, and the digits of the key, at
    most `digits_max` of them.
    """

    request: Callable[[int, bytes], bytes]
    digits_max: int


class Sample(NamedTuple):
    """A request whose hit is measured, and how its reply gets into the cache.

    `reply` is the reply as the server sends it. `miss` is the name of another request, which is not
    in the cache, and that request. `prepare` makes the maps ready.
    """

    name: str
    request: bytes
    reply: bytes
    miss: tuple[str, bytes] | None = None
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


def _same_bytes(key: bytes, cached: bytes, served: bytes) -> bool:
    del key
    return cached == served


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
    """A protocol. What its SPEC does not name, it does not have.

    `name` is that of its folder; `number` never changes. `request_max` is the length of the longest
    request in bytes. `headers` are the C files of the folder that the programs include, and
    `functions` the functions of the contract (protocol.h) that they have. `default` is True if
    `carom serve` or `carom front` takes it where the user names no protocol.
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

    joined: Joined | None = None
    """Set if a request may ask for several keys."""
    whole_key: bool = False
    """The whole payload is the key: the fast path reads it itself, and a reply may be a request."""
    filtered: bytes = b""
    """One of its commands, if filters (filters/) can read them."""
    nameless: bool = False
    """Replies do not name their key: it is remembered from the request with the same id."""
    repeat_at: int = 0
    """For a nameless protocol: offset of 16 bits that stay the same when a request is sent again. A
    server may answer such a request as it did before."""
    written_at_any_door: bool = False
    """Whether a server takes writes at every port that it is bound to."""
    why_not_learned: str = ""
    cookies: CookieKeeping | None = None
    ending: Ending | None = None

    key_of: Callable[[bytes], bytes | None] = _no_key
    """The cache key of a request, for a protocol that the daemon fills; None: it has none."""
    keys_named: Callable[[bytes], tuple[bytes, ...]] = _no_keys
    """The cache keys of what a user names in `carom cache get` and `drop`."""
    asking: Callable[[bytes], bytes | None] = _no_key
    """The request that asks for what a user names in `carom why`; None for what names nothing."""
    read_of_written: Callable[[bytes], bytes | None] = _nothing_written
    """For a request to a Python service: the read whose reply it voids."""
    same: Callable[[bytes, bytes, bytes], bool] = _same_bytes
    """For a key, whether two replies say the same as they are stored: without what is behind them,
    and with zeros where `answer` writes. Called with a cached one and the server's next."""
    how_to_have_udp: Callable[[int], str] = _no_words
    """The option that turns on a server's UDP at a port, where it is off by default."""
    access_lists: Callable[[Iterable[int]], Iterator[str]] = _no_lists
    """Warnings about clients that a server's configuration refuses: hits bypass it."""
    samples: Callable[[str], Sequence[Sample]] = _no_samples
    """The requests that `carom lab bench` measures, from a client with this address."""
    reading: Reading | None = None

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
        """Whether there is a reply that says no more than "ask over TCP"."""
        return "truncated" in self.functions
