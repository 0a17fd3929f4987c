# SPDX-License-Identifier: Apache-2.0
"""Which keys are hit most, by samples of the use counters of the store's entries.

A hit raises its entry's counter, up to USED_MAX, for whoever looks for room. Here all of them are
set to 0 and read a moment later. Where one has reached its end, its page is looked at again for a
shorter moment, more often; the most used are then read without a pause. In the end each is what it
was, or what it has become if that is more: meanwhile a full LRU knows less of what is used. No hit
does anything for it.
"""

from __future__ import annotations

import collections
import re
import threading
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import NamedTuple

from carom.daemon.store import Store
from carom.kernel.abi import USED_MAX, Entry

MOMENTS = ((0.064, 1, 64), (0.016, 2, 64), (0.004, 4, 16), (0.001, 8, 8), (0.0001, 32, 0))
"""Seconds, how often each is looked at, and how many pages are looked at again: those with most
counters at their end."""

WATCHED, WATCH = 16, 0.01
"""How many of the most used are read without a pause, and for how many seconds."""

_one_at_a_time = threading.Lock()


class Page(NamedTuple):
    """A page's number, the lines of its entries, and its use counters, which are shared memory."""

    number: int
    lines: int
    uses: memoryview


class Hot(NamedTuple):
    """An entry, and how often it is hit in a second."""

    entry: Entry
    hits: float


Place = tuple[int, int]
"""A page's number, and which of its places for entries."""


def hottest(store: Store, services: Container[int], most: int) -> list[Hot]:
    """The entries of some services that are hit most, the most first; none that was not hit.

    It takes a fifth of a second, or less.
    """
    with _one_at_a_time:
        pages = {
            number: Page(number, lines, store.uses(page, lines))
            for number, page, lines in store.pages()
        }
        before = {page.number: bytes(page.uses) for page in pages.values()}
        try:
            rates = _rates(pages)
        finally:
            for page in pages.values():
                page.uses[:] = bytes(map(max, before[page.number], page.uses))
    found = []
    for place in sorted(rates, key=lambda place: -rates[place]):
        number, at = place
        entry = store.entry_at(number, 1 + at * pages[number].lines)
        if entry and entry.service in services:
            found.append(Hot(entry, rates[place]))
        if len(found) == most:
            break
    return found


def _rates(pages: dict[int, Page]) -> dict[Place, float]:
    """Hits a second of each place that was hit: by the longest moment that was not too long."""
    rates: dict[Place, float] = {}
    least: dict[Place, float] = {}
    ended = set[Place]()
    again: Sequence[Page] = list(pages.values())
    for seconds, times, few in MOMENTS:
        hits, ended, took = collections.Counter[Place](), set(), 0.0
        for _ in range(times):
            took += _look(again, seconds, hits, ended)
        for place, count in hits.items():
            if place in ended:
                least[place] = max(count / took, least.get(place, 0))
            else:
                rates.setdefault(place, count / took)
        full = collections.Counter(number for number, _ in ended)
        again = [pages[number] for number, _ in full.most_common(few)]
    rates = {
        place: max(rates.get(place, 0), least.get(place, 0))
        for place in rates.keys() | least.keys()
    }
    most = sorted(ended, key=lambda place: -rates[place])[:WATCHED]
    watched = _watch({place: pages[place[0]].uses for place in most})
    return rates | {place: max(rates[place], rate) for place, rate in watched.items()}


def _look(
    pages: Iterable[Page], seconds: float, hits: collections.Counter[Place], ended: set[Place]
) -> float:
    """Count hits for about so long; returns for how long."""
    begun = time.perf_counter()
    for page in pages:
        page.uses[:] = bytes(len(page.uses))
    time.sleep(seconds)
    took = time.perf_counter() - begun
    for page in pages:
        for found in re.finditer(rb"[^\0]", bytes(page.uses)):
            place, count = (page.number, found.start()), found[0][0]
            hits[place] += count
            if count >= USED_MAX:
                ended.add(place)
    return took


def _watch(places: Mapping[Place, memoryview]) -> dict[Place, float]:
    """Hits a second of a few places, each read and set to 0 as often as can be."""
    hits = dict.fromkeys(places, 0)
    for place, uses in places.items():
        uses[place[1]] = 0
    begun = now = time.perf_counter()
    while now - begun < WATCH and places:
        for place, uses in places.items():
            count = uses[place[1]]
            if count:
                uses[place[1]] = 0
                hits[place] += count
        now = time.perf_counter()
    return {place: count / (now - begun) for place, count in hits.items()}
