# SPDX-License-Identifier: Apache-2.0
"""The requests that `carom load` sends, and their order, which is drawn beforehand."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from carom.errors import UsageError
from carom.lab.clients.requests import Plan
from carom.settings import Option, check

DRAWS_MAX = 2**20
"""The longest order, and the most different requests."""

_DENOMINATOR_MAX = 10_000

Order = NDArray[np.uint64]


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """How keys are drawn, and how many requests are writes.

    `uniform` draws keys at random, `zipf` the k-th of them with a probability in proportion to
    1 / k^exponent, `sequential` in turn. `writes` is the share of requests that write.
    """

    draw: Annotated[
        Literal["uniform", "zipf", "sequential"],
        Option("How keys are drawn.", standing="uniform; with --file sequential"),
    ] = "uniform"
    exponent: Annotated[float, Option("Exponent of zipf.", 0, 100)] = 1.0
    writes: Annotated[
        float, Option("The exact share of requests that are --write-file's.", 0, 1, "0.05")
    ] = 0.0
    seed: Annotated[int, Option("Seed of the random draws.")] = 1

    def checked(self) -> Choice:
        """The same choice. Raises UsageError that names the first wrong value."""
        check(self)
        return self


class Mix:
    """`requests`, which from index `reads` on are writes, and the `order` of their indexes."""

    def __init__(self, reads: list[bytes], writes: list[bytes], choice: Choice):
        """Draw the order. The share of writes is exact in every block of the smallest size in which
        it is a whole number. Raises UsageError.
        """
        choice.checked()
        self.requests = reads + writes
        self.reads = len(reads)
        if not reads or len(self.requests) > DRAWS_MAX:
            raise UsageError(
                f"{len(self.requests)} different requests are out of range",
                hint=f"1 to {DRAWS_MAX}",
            )
        if bool(writes) != bool(choice.writes):
            raise UsageError(
                "a share of writes and the file with them belong together",
                hint="--writes 0.05 --write-file FILE",
            )
        self.order = _order(len(reads), len(writes), choice)


def _order(reads: int, writes: int, choice: Choice) -> Order:
    share = Fraction(choice.writes).limit_denominator(_DENOMINATOR_MAX)
    # If possible, the order ends with the last key of a sequence.
    unit = share.denominator * (reads if choice.draw == "sequential" else 1)
    if unit > DRAWS_MAX:
        unit = share.denominator
    blocks = DRAWS_MAX // unit * unit // share.denominator
    random = np.random.default_rng(choice.seed)
    writing = _writing(share, blocks, random)
    order = np.empty(writing.size, dtype=np.uint64)
    order[~writing] = keys_drawn(reads, int((~writing).sum()), choice, random)
    if writes:
        order[writing] = reads + np.arange(int(writing.sum())) % writes
    return order


def _writing(share: Fraction, blocks: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """Which requests write: the same number in each block, at random places."""
    if share in (0, 1):
        return np.full(blocks, bool(share))
    places = random.random((blocks, share.denominator)).argsort(axis=1)
    return (places < share.numerator).ravel()


def keys_drawn(keys: int, count: int, choice: Choice, random: np.random.Generator) -> Order:
    """The indexes of `count` requests that read, drawn from `keys` keys."""
    if choice.draw == "sequential":
        return np.arange(count, dtype=np.uint64) % np.uint64(keys)
    if choice.draw == "uniform":
        return random.integers(keys, size=count, dtype=np.uint64)
    weights = np.arange(1, keys + 1, dtype=np.float64) ** -choice.exponent
    shares = np.cumsum(weights / weights.sum())
    return np.minimum(np.searchsorted(shares, random.random(count)), keys - 1).astype(np.uint64)


def planned(plan: Plan) -> list[bytes]:
    """The requests for the keys of a plan, as `carom ping` would send them."""
    plan.checked()
    if plan.keys > DRAWS_MAX:
        raise UsageError(f"keys {plan.keys} is out of range", hint=f"1 to {DRAWS_MAX}")
    return [plan.payload(number) for number in range(plan.first, plan.first + plan.keys)]


def read(path: Path) -> list[bytes]:
    """The payloads in a file: one a line, as text, or as hexadecimal digits after 0x.

    Empty lines are skipped. Raises UsageError.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    payloads = []
    for number, line in enumerate(lines, 1):
        try:
            payload = bytes.fromhex(line[2:].decode()) if line.startswith(b"0x") else line
        except ValueError as error:
            raise UsageError(
                f"{path} line {number}: {line.decode(errors='replace')!r} is not hexadecimal",
                hint="for example 0x0a1b",
            ) from error
        if payload:
            payloads.append(payload)
    if not payloads:
        raise UsageError(f"{path} holds no payload", hint="one a line, as text or as 0x0a1b")
    return payloads


def rate(text: str) -> float | None:
    """Requests a second from `5000`, `100k` or `1.5M`; None for `max`. Raises UsageError."""
    if text == "max":
        return None
    factor = {"k": 1e3, "M": 1e6}.get(text[-1:], 1.0)
    try:
        value = float(text[:-1] if factor > 1 else text) * factor
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise UsageError(f"{text!r} is not a rate", hint="for example 5000, 100k, 1.5M or max")
    return value
