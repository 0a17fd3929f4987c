# SPDX-License-Identifier: Apache-2.0
"""What a key-value client sends: the behaviours of Kierkegaard and Willén (2025), by name.

The sequences are theirs. What they leave open is decided here, the same in every run:

- The filler of BAD is zero bytes: a letter would belong to the command's word.
- `packets` counts only the PUTs and BADs of frey and frigg, not their GET and STOP.
- Of `packets` packets, `percent` percent are invalid, rounded to a whole number, halves up.
- frigg sends rounds of 100 (the last one may be shorter): the valid packets of a round, then its
  invalid ones. After each round, the invalid packets so far are `percent` percent of the packets so
  far, rounded down; after the last round there are as many as frey sends.
- frigg ends with its GET and sends no STOP. Every GET asks for key 10, except sif's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

import msgspec

from carom.errors import UsageError
from carom.protocols.kv import Command

KEY = 10
ROUND = 100
"""Packets in a round of frigg's."""

PACKETS_MAX = 10**9
EQUAL_LENGTH = 15
"""Bytes of a PUT, and of an invalid packet with `equal_length`."""

_WORD = b"BAD"


class Step(NamedTuple):
    """The same packet, sent `times` times in a row; a GET is sent once, and its reply awaited."""

    word: str
    payload: bytes
    times: int = 1

    @property
    def valid(self) -> bool:
        """Whether the server understands it."""
        return self.word != "BAD"


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A behaviour and its parameters; None for the behaviour's own default.

    `packets` is the number of loki's BADs, of sylvie's PUTs, or of both for frey and frigg;
    `percent` is the share of frey's and frigg's that are invalid, 0 to 100. With `equal_length` an
    invalid packet is as long as a PUT.
    """

    name: str
    packets: int | None = None
    percent: float | None = None
    equal_length: bool = False

    def checked(self) -> Choice:
        """The same choice. Raises UsageError that names the first wrong parameter."""
        behaviour = BEHAVIOURS.get(self.name)
        if behaviour is None:
            hint = "there are " + ", ".join(BEHAVIOURS)
            raise UsageError(f"there is no behaviour {self.name!r}", hint=hint)
        if self.packets is not None:
            if behaviour.packets is None:
                raise self._has_no("number of packets to choose", "packets")
            if not 0 <= self.packets <= PACKETS_MAX:
                raise UsageError(
                    f"packets {self.packets} is out of range", hint=f"0 to {PACKETS_MAX}"
                )
        if self.percent is not None:
            if behaviour.percent is None:
                raise self._has_no("percentage to choose", "percent")
            if not 0 <= self.percent <= 100:
                raise UsageError(f"percent {self.percent:g} is out of range", hint="0 to 100")
        if self.equal_length and not behaviour.filler:
            raise self._has_no("invalid packets", "filler")
        return self

    def _has_no(self, missing: str, field: str) -> UsageError:
        names = ", ".join(
            name for name, behaviour in BEHAVIOURS.items() if getattr(behaviour, field)
        )
        return UsageError(f"{self.name} has no {missing}", hint=f"these have: {names}")

    def steps(self) -> Iterator[Step]:
        """What to send, in order, made one by one. Raises UsageError before the first."""
        self.checked()
        steps = BEHAVIOURS[self.name].steps(self._packets(), self._invalid(), self._bad())
        return (step for step in steps if step.times)

    def _packets(self) -> int:
        return (BEHAVIOURS[self.name].packets or 0) if self.packets is None else self.packets

    def _invalid(self) -> int:
        percent = BEHAVIOURS[self.name].percent if self.percent is None else self.percent
        share = Fraction(str(percent or 0)) / 100  # by its decimal text: 0.1 is exactly a tenth
        return int(self._packets() * share + Fraction(1, 2))

    def _bad(self) -> bytes:
        filler = BEHAVIOURS[self.name].filler or 0
        return _WORD + bytes(EQUAL_LENGTH - len(_WORD) if self.equal_length else filler)


class Behaviour(NamedTuple):
    """`steps` makes the steps from the packets, how many are invalid, and an invalid payload.

    The other fields are defaults, None for a parameter that the behaviour does not have; `filler`
    is how many bytes follow an invalid packet's word.
    """

    steps: Callable[[int, int, bytes], Iterator[Step]]
    packets: int | None = None
    percent: float | None = None
    filler: int | None = None


def _put(key: int, value: int, times: int = 1) -> Step:
    return Step("PUT", Command(b"PUT", key, value).encode(), times)


def _get(key: int = KEY) -> Step:
    return Step("GET", Command(b"GET", key).encode())


def _delete(times: int = 1) -> Step:
    return Step("DELETE", Command(b"DELETE", KEY).encode(), times)


_STOP = Step("STOP", Command(b"STOP").encode())
_PUTS = tuple(_put(KEY, value) for value in (2, 4, 6, -5))


def _always(*steps: Step) -> Behaviour:
    """A behaviour without parameters."""
    return Behaviour(lambda packets, invalid, bad: iter(steps))


def _loki(packets: int, invalid: int, bad: bytes) -> Iterator[Step]:
    yield from (*_PUTS, _get(), Step("BAD", bad, packets), *_PUTS, _get(), _STOP)


def _sylvie(packets: int, invalid: int, bad: bytes) -> Iterator[Step]:
    yield from (_put(KEY, 1, packets), _STOP)


def _frey(packets: int, invalid: int, bad: bytes) -> Iterator[Step]:
    yield from (_put(KEY, 1, packets - invalid), Step("BAD", bad, invalid), _get(), _STOP)


def _frigg(packets: int, invalid: int, bad: bytes) -> Iterator[Step]:
    sent = sent_invalid = 0
    while sent < packets:
        size = min(ROUND, packets - sent)
        sent += size
        wrong = invalid * sent // packets - sent_invalid
        sent_invalid += wrong
        yield _put(KEY, 1, size - wrong)
        yield Step("BAD", bad, wrong)
    yield _get()


_SIF_KEYS = (4660, *range(2, 21, 2))

BEHAVIOURS = {
    "thor": _always(*_PUTS, *_PUTS, _STOP),
    "odin": _always(*_PUTS, _get(), *_PUTS, _get(), _STOP),
    "loki": Behaviour(_loki, packets=1_000_000, filler=1024),
    "njord": _always(*_PUTS, _get(), _delete(5), *_PUTS, _get(), _delete(), _STOP),
    "sylvie": Behaviour(_sylvie, packets=10_000_000),
    "sif": _always(
        _get(),
        *(_put(key, 10) for key in _SIF_KEYS),
        *(_get(key) for key in (10, 18, 20)),
        _delete(),
        _get(),
        _STOP,
    ),
    "frey": Behaviour(_frey, packets=1000, percent=50.0, filler=256),
    "frigg": Behaviour(_frigg, packets=1000, percent=50.0, filler=256),
    "stop": _always(_STOP),
    "getstop": _always(_get(), _STOP),
}
"""All behaviours by name. A step with `times` 0 sends nothing."""
