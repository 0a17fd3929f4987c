# SPDX-License-Identifier: Apache-2.0
"""What `carom trace` is lent: a ring of samples of the packets that come, while it looks on."""

from __future__ import annotations

import contextlib
import ipaddress
import os
from typing import Any

import msgspec

from carom.daemon.control import Lent
from carom.daemon.fastpath import FastPath
from carom.daemon.running import Running
from carom.errors import UsageError
from carom.kernel import libbpf
from carom.kernel.abi import LEFT_OUT, SNAP_MAX, TRACING, Verdict, packed_address

A_SECOND = 1_000
"""Samples of one CPU in a second, at most, spread over it: each takes some 120 ns."""

_RING_OF_CPU, _RING_MAX = 2**20, 2**25
"""Bytes of samples that may wait, for each CPU and for all."""

_PATIENCE = 5.0
"""Seconds that a trace may take longer than was said, where who asked does not end it."""

_ALL = sum(1 << verdict for verdict in Verdict)


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """Which packets are asked for: of `one_in` of a CPU one. `source` is an address or a prefix."""

    seconds: float
    one_in: int = 1
    verdicts: list[str] = []
    port: int | None = None
    source: str | None = None
    snap: int = SNAP_MAX

    def packed(self) -> bytes:
        """As the programs have it. Raises UsageError."""
        if not (1 <= self.one_in < 2**32 and 1 <= self.snap <= SNAP_MAX and self.seconds > 0):
            raise UsageError(
                "a sample of one in 0, of no bytes or for no time is none",
                hint=f"--one-in and --seconds from 1 on, --snaplen from 1 to {SNAP_MAX:,}",
            )
        if self.port is not None and not 1 <= self.port <= 0xFFFF:
            raise UsageError(f"there is no UDP port {self.port}", hint="--port 1 to 65535")
        verdicts = sum(1 << _verdict(name) for name in set(self.verdicts)) or _ALL
        source, mask = _prefix(self.source) if self.source else (bytes(16), bytes(16))
        return TRACING.pack(
            verdicts,
            source,
            mask,
            bool(self.source),
            self.one_in,
            A_SECOND // 10,
            self.snap,
            self.port or 0,
        )


def _verdict(name: str) -> Verdict:
    try:
        return Verdict[name.upper().replace("-", "_")]
    except KeyError as error:
        names = ", ".join(verdict.name.lower() for verdict in Verdict)
        raise UsageError(f"there is no verdict {name}", hint=f"there are {names}") from error


def _prefix(text: str) -> tuple[bytes, bytes]:
    """A source's address as the programs have it, and the bits of it that count."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise UsageError(
            f"--from {text} is no address", hint="198.18.0.1, 2001:db8::1 or 198.18.0.0/15"
        ) from error
    length = network.prefixlen + (96 if network.version == 4 else 0)
    mask = (1 << 128) - (1 << 128 - length)
    return packed_address(network.network_address), mask.to_bytes(16)


class Trace(Lent):
    """One trace of a fast path; its only descriptor is the ring of samples.

    Closed, the programs from before are in their places, and `last` says what was left out.
    """

    def __init__(self, running: Running, wanted: Wanted):
        """Raises UsageError without a fast path, BusyError while another trace runs, BPFError."""
        fastpath = running.parts.fastpath
        if not fastpath or not running.attachments:
            raise UsageError(
                "nothing is answered on an interface",
                hint="a trace shows what is: see carom status",
            )
        self._fastpath: FastPath = fastpath
        tracing, self.seconds = wanted.packed(), wanted.seconds + _PATIENCE
        with contextlib.ExitStack() as stack:
            twin = stack.enter_context(fastpath.traced(tracing, _ring_bytes()))
            self._samplers = twin.map("samplers")
            self.descriptors = [twin.map("samples")]
            self._left_out = dict.fromkeys(("limited", "lost"), 0)
            self.result = {
                "interfaces": {
                    attachment.interface.ifindex: attachment.interface.name
                    for attachment in running.attachments
                },
                "services": [
                    {
                        "port": backend.options.port,
                        "protocol": backend.receiver.protocol.name,
                    }
                    for backend in running.parts.backends
                ],
            }
            stack.callback(self._count)
            self._stack = stack.pop_all()

    def _count(self) -> None:
        """What all CPUs have left out so far."""
        size, cpus = libbpf.map_shape(self._samplers)[0].value_size, libbpf.possible_cpus()
        value = libbpf.lookup(self._samplers, bytes(4), size * cpus) or bytes(size * cpus)
        counts = [LEFT_OUT.unpack_from(value, cpu * size) for cpu in range(cpus)]
        limited, lost = map(sum, zip(*counts, strict=True))
        self._left_out = {"limited": limited, "lost": lost}

    def over(self) -> bool:
        """Whether there is no fast path any more."""
        return self._fastpath.closed

    def last(self) -> Any:
        """Samples that were left out: beyond the most in a second, and unread ones in their way."""
        return self._left_out

    def close(self) -> None:
        """Have packets come to the programs from before again."""
        self._stack.close()


def _ring_bytes() -> int:
    """A power of two."""
    wanted = min(_RING_MAX, _RING_OF_CPU * (os.cpu_count() or 1))
    return 1 << (wanted - 1).bit_length()


def trace(running: Running, wanted: dict[str, Any]) -> Trace:
    """What `carom trace` asks for. Raises UsageError, BusyError, BPFError, VerifierError."""
    return Trace(running, msgspec.convert(wanted, Wanted))
