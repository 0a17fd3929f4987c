# SPDX-License-Identifier: Apache-2.0
"""The benchmark's packets do what its rows say: it checks that itself, and fails where not."""

from __future__ import annotations

import pytest

from carom.errors import ExperimentError, UsageError
from carom.kernel import libbpf
from carom.lab.tools import bench as benches
from carom.lab.tools.bench import bench


def test_every_case() -> None:
    figures = bench(rounds=2, runs=20)
    names = [figure.name for figure in figures]
    for wanted in (
        "MAC swap",
        "pass",
        "bounce",
        "miss: dns",
        "hit: dns",
        "hit: memcached",
        "miss: coap",
        "hit: coap",
        "concurrency",
    ):
        assert any(name.startswith(wanted) for name in names)
    assert {figure.above for figure in figures if figure.name == "MAC swap"} == {0}
    hits = [figure for figure in figures if figure.name.startswith("hit")]
    assert all(figure.nanoseconds > 0 for figure in hits)


def test_hits_among_many() -> None:
    names = [figure.name for figure in bench(rounds=2, runs=50, entries=[1, 3000])]
    assert names == ["MAC swap", "hit among 1 entries", "hit among 3,000 entries"]


def test_a_packet_that_does_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libbpf, "XDP_TX", libbpf.XDP_DROP)
    with pytest.raises(ExperimentError, match="MAC swap: its program returned 3, not 1"):
        benches.bench(rounds=1, runs=1, entries=[1])


def test_among_none() -> None:
    with pytest.raises(UsageError, match="0 entries"):
        bench(rounds=1, runs=1, entries=[0])
