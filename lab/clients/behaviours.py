# SPDX-License-Identifier: Apache-2.0
"""What a key-value client sends, by name: the behaviours of Kierkegaard and Willén (2025).

The sequences are theirs. What they leave open is chosen here, the same in every run:

- The filler of BAD is zero bytes: a letter would belong to the command's word.
- frey's and frigg's packets are their PUTs and BADs; the GET and the STOP come on top.
- Of `packets` packets, `percent` percent are invalid: to the nearest whole one, a half up.
- frigg sends rounds of 100, the last with what is left: the valid ones of a round, then its invalid
  ones. After each round the invalid ones so far are percent of the packets so far, rounded down;
  after the last there are as many as frey sends.
- frigg ends with its GET and sends no STOP; getstop's GET asks for key 10, as all do but sif's.
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
"""Bytes of a PUT, which invalid packets have too where lengths are to be equal."""

_WORD = b"BAD"


class Step(NamedTuple):
    """The same packet `times` times in a row; after a GET, which is sent once, its reply is due."""

    word: str
    payload: bytes
    times: int = 1

    @property
    def valid(self) -> bool:
        """Is it a request that the server understands?"""
        return self.word != "BAD"


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A behaviour, and what it leaves to choose; None where its own default holds.

    `packets` is how many packets loki's BADs, sylvie's PUTs, or frey's and frigg's of both are;
    `percent` the share of frey's and frigg's that are invalid, 0 to 100. With `equal_length` an
    invalid packet is as long as a PUT.
    """

    name: str
    packets: int | None = None
    percent: float | None = None
    equal_length: bool = False

    def checked(self) -> Choice:
        """The same choice. Raises UsageError that names what cannot be."""
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
        """What to send, in order, made as it is asked for. Raises UsageError at once."""
        self.checked()
        steps = BEHAVIOURS[self.name].steps(self._packets(), self._invalid(), self._bad())
        return (step for step in steps if step.times)

    def _packets(self) -> int:
        return (BEHAVIOURS[self.name].packets or 0) if self.packets is None else self.packets

    def _invalid(self) -> int:
        percent = BEHAVIOURS[self.name].percent if self.percent is None else self.percent
        share = Fraction(str(percent or 0)) / 100  # as it was written: 0.1 is a tenth
        return int(self._packets() * share + Fraction(1, 2))

    def _bad(self) -> bytes:
        filler = BEHAVIOURS[self.name].filler or 0
        return _WORD + bytes(EQUAL_LENGTH - len(_WORD) if self.equal_length else filler)


class Behaviour(NamedTuple):
    """How steps are made of packets, invalid ones among them and an invalid payload.

    Beside it what it has when nothing else is chosen, None for what it has none of; `filler` is
    how many bytes follow an invalid packet's word.
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
    """The same steps whatever is chosen."""
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
"""All behaviours by name. Their steps may have `times` 0, which is to send nothing."""
