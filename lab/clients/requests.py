# SPDX-License-Identifier: Apache-2.0
"""Which requests a client sends: seeded plans, which fix beforehand how many go to which keys."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from fractions import Fraction
from typing import Annotated, Literal, NamedTuple

import msgspec

from carom.errors import UsageError
from carom.protocols import SPECS, spec
from carom.protocols.spec import Reading
from carom.settings import Option, check, sizes

_BLOCK_MIN = 40
_SHARE_DENOMINATOR_MAX = 10_000
_KEPT = 10_000  # payloads
_UNIQUE_MIN = 10**8  # more than a closed loop asks in an hour
_FORMS = ("plain", "decimal")


class Block(NamedTuple):
    """Requests to send in this order; `hot` of them go to the hot keys."""

    payloads: list[bytes]
    hot: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asks for.

    `size` is the payload's shortest and longest length in bytes; each key has a fixed length
    between them. With the `form` decimal, a payload is the key's digits alone; with the name of a
    protocol, it is a read of these digits, and `size` counts them. `draw` chooses among `keys`
    keys: `uniform` at random, `sequential` in turn, `unique` each once (`keys` is not used then).
    With `hot_share`, exactly that share of every block goes to the first `hot` keys and the rest to
    the others, in random order. `first` is the number of the first key.
    """

    size: Annotated[
        tuple[int, int],
        Option(
            "Bytes of a request, or the least and the most.",
            1,
            65_507,
            "4-256",
            read=sizes,
            metavar="BYTES",
            standing="32",
        ),
    ] = (32, 32)
    form: str = "plain"
    keys: Annotated[int, Option("How many different requests.", 1)] = 1
    draw: Annotated[Literal["uniform", "sequential", "unique"], Option("How keys are drawn.")] = (
        "uniform"
    )
    hot: Annotated[int, Option("How many of the keys are hot.", 0)] = 0
    hot_share: Annotated[
        float | None, Option("The exact share of requests that hot keys get.", 0, 1, "0.5")
    ] = None
    first: int = 0
    seed: Annotated[int, Option("Seed of the random draws.")] = 1
    block_min: int = _BLOCK_MIN
    """The fewest requests in a block; a client reads the clock between blocks."""

    def checked(self) -> Plan:
        """The same plan. Raises UsageError that names the first wrong value."""
        low, high = self.size
        if not 1 <= low <= high <= 65_507:
            raise UsageError(f"size {low}-{high} is out of range", hint="1 to 65507 bytes")
        check(self)
        if self.form not in _FORMS and high > _reading(self.form).digits_max:
            most = _reading(self.form).digits_max
            raise UsageError(f"size {high} is out of range", hint=f"1 to {most} digits")
        if self.first + self.keys > self._space():
            raise UsageError(
                f"{self.keys} keys do not fit into {low} bytes", hint="a larger --size, or fewer"
            )
        if self.draw == "unique" and self._space() < _UNIQUE_MIN:
            raise UsageError(f"too few requests of {low} bytes are unique", hint="a larger --size")
        share = self.hot_share
        without = share is not None and share > 0 and self.hot < 1
        alone = share is not None and share < 1 and self.keys <= self.hot
        if without or alone:
            raise UsageError(
                f"{self.hot} hot of {self.keys} keys cannot get a share of {share:g}",
                hint="hot keys, and others beside them where the share is below 1",
            )
        return self

    def _space(self) -> int:
        """How many different requests there can be."""
        return int((256 if self.form == "plain" else 10) ** min(self.size[0], 8))

    def block_size(self) -> int:
        """The smallest number of requests, from `block_min` on, of which `hot_share` is whole."""
        share = Fraction(self.hot_share or 0).limit_denominator(_SHARE_DENOMINATOR_MAX)
        return share.denominator * -(-self.block_min // share.denominator)

    def payload(self, number: int) -> bytes:
        """The request for a key: its number, and bytes that are derived from it."""
        return _payload(self.form, *self.size, number)

    def prepare(self) -> None:
        """Make the payloads of repeated requests beforehand, and keep them."""
        if self.draw != "unique":
            for number in range(self.first, self.first + min(self.keys, _KEPT)):
                _kept(self.form, *self.size, number)

    def blocks(self) -> Iterator[Block]:
        """Endless blocks, each as planned."""
        source = random.Random(self.seed)
        size, number = self.block_size(), self.first
        payload = _payload if self.draw == "unique" else _kept
        while True:
            numbers, hot = self._numbers(source, size, number)
            number += size
            yield Block([payload(self.form, *self.size, n) for n in numbers], hot)

    def _numbers(self, source: random.Random, size: int, number: int) -> tuple[list[int], int]:
        if self.draw == "unique":
            return list(range(number, number + size)), 0
        if self.draw == "sequential":
            turns = range(number - self.first, number - self.first + size)
            return [self.first + n % self.keys for n in turns], 0
        if self.hot_share is None:
            return [self.first + source.randrange(self.keys) for _ in range(size)], 0
        hot = round(self.hot_share * size)
        numbers = [self.first + source.randrange(self.hot) for _ in range(hot)]
        numbers += [self.first + source.randrange(self.hot, self.keys) for _ in range(size - hot)]
        source.shuffle(numbers)
        return numbers, hot


def _reading(form: str) -> Reading:
    """How a protocol reads numbered keys. Raises UsageError for one that cannot."""
    reading = spec(form).reading
    if not reading:
        able = [protocol.name for protocol in SPECS.values() if protocol.reading]
        raise UsageError(f"form {form!r} is unknown", hint=" | ".join((*_FORMS, *able)))
    return reading


def _payload(form: str, low: int, high: int, number: int) -> bytes:
    source = random.Random(number)
    size = low if low == high else source.randint(low, high)
    if form == "decimal":
        return b"%0*d" % (size, number)
    if form != "plain":
        return _reading(form).request(number, b"%0*d" % (size, number))
    head = number.to_bytes(min(low, 8), "big")
    return head + source.randbytes(size - len(head))


_kept = functools.lru_cache(_KEPT)(_payload)
