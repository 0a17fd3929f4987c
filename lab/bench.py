# SPDX-License-Identifier: Apache-2.0
"""Nanoseconds a packet, by BPF_PROG_TEST_RUN: the fast path beside the least that XDP can do.

A packet keeps the edits of its last run, so each case is one that answers its own reply: client
and server have one MAC, the reply is the request, and either end's address and port is a service.
"""

from __future__ import annotations

import ipaddress
import statistics
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from carom.daemon.cache import Cache
from carom.daemon.clock import JiffiesClock
from carom.daemon.fastpath import FastPath, Place
from carom.errors import ExperimentError
from carom.include import libbpf
from carom.include.abi import TTL_FLOOR, Fast
from carom.include.bpf import Module

_MAC = "02:00:00:00:00:01"
_ENDS = (("198.18.0.1", 40_000), ("198.18.0.2", 51_141))
_REPEAT = 255 - TTL_FLOOR  # runs until the TTL, one less in each, reaches the floor
_HERE = Path(__file__).resolve().parent


class Figure(NamedTuple):
    """One case: the median over the rounds, and the lowest and highest, ns a packet."""

    name: str
    nanoseconds: float
    low: float
    high: float
    ratio: float
    """Over the MAC swap, the median of the rounds' own ratios."""


class _Case(NamedTuple):
    program: int
    frame: bytes
    action: int


def _frame(payload: bytes) -> bytes:
    (client, client_port), (server, server_port) = _ENDS
    return bytes(
        Ether(src=_MAC, dst=_MAC)
        / IP(src=client, dst=server, ttl=255)
        / UDP(sport=client_port, dport=server_port)
        / payload
    )


def _serve(fastpath: FastPath, fast: Fast) -> None:
    """Answer at both ends, for ever, on the interface that made-up packets come in by."""
    fastpath.lease[0] = 2**64 - 1
    # Here a reply is the next request, and so comes from a served port.
    fastpath.serve(
        Place(
            address=ipaddress.IPv4Address(address),
            port=port,
            ifindex=1,
            mac=bytes.fromhex(_MAC.replace(":", "")),
            mtu=1500,
            fast=fast,
        )
        for address, port in _ENDS
    )
    for index in range(65536 // 64):
        libbpf.update(fastpath.map("served_ports"), struct.pack("=I", index), bytes(8))


def _fill(fastpath: FastPath, *payloads: bytes) -> None:
    cache = Cache(fastpath, JiffiesClock(fastpath), ttl=3600)
    for payload in payloads:
        cache.fill(payload, payload, cache.take(payload))


def _time(case: _Case, rounds: int) -> float:
    """The mean of many short runs; raises ExperimentError if one does not do what it should."""
    total = 0
    for _ in range(rounds):
        run = libbpf.test_run(case.program, case.frame, _REPEAT)
        if run.retval != case.action:
            raise ExperimentError(f"a benchmark's program returned {run.retval}, not {case.action}")
        total += run.nanoseconds
    return total / rounds


def bench(
    rounds: int = 20, runs: int = 100, progress: Callable[[int], None] = lambda done: None
) -> list[Figure]:
    """Measure every case in each round, `runs` times 223 packets each, and compare.

    Raises PrivilegeError, CompileError, VerifierError, ExperimentError.
    """
    request, absent = bytes(range(32)), bytes(32)
    long = bytes(range(256))
    with Module(_HERE / "macswap.c") as plain, FastPath() as cache, FastPath() as bouncer:
        _serve(cache, Fast.CACHE)
        _serve(bouncer, Fast.BOUNCE)
        _fill(cache, request, long)
        other = bytes(Ether(src=_MAC, dst=_MAC) / IP(dst="198.18.0.2") / UDP(dport=1) / request)
        cases = {
            "MAC swap (baseline)": _Case(plain.program("macswap"), _frame(request), libbpf.XDP_TX),
            "pass, no service there": _Case(cache.program, other, libbpf.XDP_PASS),
            "miss, 32 bytes": _Case(cache.program, _frame(absent), libbpf.XDP_PASS),
            "hit, 32/32 bytes": _Case(cache.program, _frame(request), libbpf.XDP_TX),
            "hit, 256/256 bytes": _Case(cache.program, _frame(long), libbpf.XDP_TX),
            "bounce, 32 bytes": _Case(bouncer.program, _frame(request), libbpf.XDP_TX),
            "bounce, 1,400 bytes": _Case(bouncer.program, _frame(bytes(1400)), libbpf.XDP_TX),
        }
        times: dict[str, list[float]] = {name: [] for name in cases}
        for done in range(rounds):
            for name, case in cases.items():
                times[name].append(_time(case, runs))
            progress(done + 1)
    baseline = times["MAC swap (baseline)"]
    return [
        Figure(
            name=name,
            nanoseconds=statistics.median(values),
            low=min(values),
            high=max(values),
            ratio=statistics.median(v / b for v, b in zip(values, baseline, strict=True)),
        )
        for name, values in times.items()
    ]
