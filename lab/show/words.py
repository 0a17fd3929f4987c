# SPDX-License-Identifier: Apache-2.0
"""Names and numbers as text for tables, plots and conclusions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from carom.lab.record import Environment
from carom.lab.stats.estimates import Estimate

TOO_LITTLE = "Too little was measured to compare anything."


def micro(ns: float | None) -> str:
    """Nanoseconds as microseconds, without the unit, to three digits or more."""
    if ns is None or math.isnan(ns):
        return "-"
    us = ns / 1e3
    return f"{us:,.{2 if abs(us) < 100 else 1 if abs(us) < 1000 else 0}f}"


def measured(estimate: Estimate, show: Callable[[float], str]) -> str:
    """An estimate with half its interval, if it has one: `51.2 ±0.8`."""
    return show(estimate.value) + ("" if estimate.margin is None else f" ±{show(estimate.margin)}")


def percent(share: float) -> str:
    """A share as a percentage, to a tenth where it has one: `37.5 %`, `100 %`."""
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def amount(number: float) -> str:
    """A count or a rate in at most five characters: `812`, `9,431`, `14.2k`, `1.23M`."""
    if math.isnan(number):
        return "-"
    if number < 9_999.5:
        return f"{number:,.0f}"
    return f"{times(number / 1e3)}k" if number < 999_500 else f"{times(number / 1e6)}M"


def times(ratio: float) -> str:
    """A ratio to three digits: `1.69`, `16.9`."""
    return f"{ratio:.{2 if ratio < 10 else 1 if ratio < 100 else 0}f}"


def bracket(estimate: Estimate | None, scale: float = 1.0) -> str:
    """A ratio, times `scale`, with its interval if it has one: `1.69 (1.65-1.73)`."""
    if estimate is None or math.isnan(estimate.value):
        return "-"
    value, low, high = (None if end is None else times(scale * end) for end in estimate)
    return f"{value} ({low}-{high})" if low and high else f"{value}"


def interval(estimate: Estimate, show: Callable[[float], str] = times) -> str:
    """An estimate's interval in words."""
    if estimate.low is None or estimate.high is None:
        return "one repetition: no interval"
    return f"95 % interval {show(estimate.low)} to {show(estimate.high)}"


def plain(text: str) -> str:
    """A text from a file, with replacement characters for what would control a terminal."""
    return "".join(
        character if character.isprintable() or character == "\n" else "\ufffd"
        for character in text
    )


def repetitions(measurements: Iterable[Any]) -> str:
    """How many repetitions there are, by their indices, and what the intervals are."""
    count = len({measurement.index for measurement in measurements})
    if count == 1:
        return "One repetition: no intervals."
    paired = "Student's t; ratios paired by repetition"
    return f"{count} interleaved repetitions; 95 % intervals ({paired})."


def place(server: Environment, client: Environment | None) -> str:
    """The pair and the machine; also the client's machine, if that is another."""
    mode = f", XDP {server.mode}" if server.mode else ""
    busy = f"load average {server.load_average[0]:.1f} before"
    text = f"Pair {server.pair}: {server.driver}{mode}; {_machine(server)}; {busy}."
    return text + (f" The client: {client.driver}; {_machine(client)}." if client else "")


def _machine(environment: Environment) -> str:
    return f"Linux {environment.kernel}; {environment.cpus} CPUs, {environment.cpu}"
