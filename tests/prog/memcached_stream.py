# SPDX-License-Identifier: Apache-2.0
"""A connection to memcached as Python has it and as the C does, segment by segment."""

from __future__ import annotations

import itertools
import random
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from carom import protocols
from carom.kernel import libbpf
from carom.kernel.abi import KEY
from carom.kernel.bpf import Module
from carom.kernel.hashes import Hashes
from carom.kernel.recipe import Recipe
from carom.kernel.resource import Resource
from carom.kernel.timing import timing
from carom.protocols.memcached import SLOT_FROM, SPEC
from carom.protocols.protocol import LASTING, TEXT_ROOM, Intent, Request
from prog import memcached_binary
from prog.memcached_binary import BinaryRequest, binary_request
from prog.memcached_commands import command, datagram
from reference.memcached import lasts, names_in_base64, understand

HEADER = 8
HELD_MAX = 256
CELLS = 16
STEPS = 4
NO_CELL = 0xFFFFFFFF
SEGMENT_MAX = 4096

_SIZED = re.compile(
    rb"(?:(?:set|add|replace|append|prepend|cas)(?: [^ ]+){3}|ms [^ ]+) ([0-9]{1,9})\b"
)
_ONE_LINE = re.compile(rb"(delete|incr|decr|touch|gats?|mg|md|ma) |flush_all")
_MORE_LINES = re.compile(rb" |(set|add|replace|append|prepend|cas|ms) ")
"""Commands whose data would be taken for more commands, if the line is not understood."""

_AHEAD = re.compile(rb"mg [^A-Z\n]*\n")
"""What is passed over if it comes whole, behind another command, and is short."""
AHEAD_MAX = 64

_READS = re.compile(rb"(mn|stats|version|verbosity)[ \r\n]|(me|gets?) ")

LOST = Request(Intent.WRITE_ALL, quiet=True)
DOUBT = Request(Intent.WRITE_ALL, unsure=True)
"""A line that the server has to refuse, or it may have written anything."""
QUIET_DOUBT = DOUBT._replace(quiet=True)
"""The same, if its acknowledgement need not follow."""


class Model:
    """What a connection's commands write, from its first byte on, by understanding each alone."""

    def __init__(self, room: int = TEXT_ROOM):
        self.lost = False
        self.lasting: list[bool] = []
        """Of each write, whether it gives no end to an item that had none."""
        self._binary: bool | None = None
        self._room = room
        self._skip = 0
        self._in_line = False
        self._begun = False
        self._whole = False
        self._rest = b""

    def feed(self, segment: bytes) -> list[Request]:
        """The writes that a segment completes."""
        self._whole = self._begun and not self._rest
        self._rest += segment
        if self._binary is None:
            self._binary = self._rest.startswith(bytes((memcached_binary.MAGIC,)))
        writes: list[Request] = []
        told = len(self.lasting)
        while self._rest and not self.lost:
            before = self._rest, self._skip
            self._begun = True
            if found := self._step_binary() if self._binary else self._step():
                writes.append(found)
                if len(self.lasting) < len(writes) + told:
                    self.lasting.append(False)
            if before == (self._rest, self._skip) and not self._in_line:
                break  # held
            self._whole = True
        return writes

    def _lose(self) -> Request:
        self.lost = True
        return LOST

    def _step(self) -> Request | None:
        if self._skip:
            return self._value()
        line, newline, rest = self._rest.partition(b"\n")
        if self._in_line:
            self._in_line, self._rest = not newline, rest
            return None
        if newline and len(line) < self._room - HEADER:
            self._rest = rest
            return self._line(line + newline)
        if _READS.match(self._rest):
            self._in_line = True
            return None
        return self._hold()

    def _hold(self) -> Request | None:
        return None if len(self._rest) <= HELD_MAX else self._lose()

    def _step_binary(self) -> Request | None:
        if self._skip:
            taken = min(self._skip, len(self._rest))
            self._skip, self._rest = self._skip - taken, self._rest[taken:]
            return None
        if self._rest[0] != memcached_binary.MAGIC:
            return self._lose()
        if len(self._rest) < memcached_binary.HEADER.size:
            return None
        request = BinaryRequest.read(self._rest)
        if request is None:
            return self._lose()
        if len(self._rest) < request.key_end:
            return self._hold()
        lasting = request.lasts(self._rest)
        key, self._rest = request.key(self._rest), self._rest[request.key_end :]
        self._skip = request.value_length
        intent, quiet = request.opcode.intent, request.opcode.quiet
        if intent is Intent.OTHER:
            return None
        self.lasting.append(lasting)
        return Request(intent, bytes(SLOT_FROM) + key if intent is Intent.WRITE else b"", quiet)

    def _value(self) -> Request | None:
        taken, self._rest = self._rest[: self._skip], self._rest[self._skip :]
        first = max(0, self._skip - 2)
        end = b"\r\n"[-self._skip :] if self._skip < 2 else b"\r\n"
        self._skip -= len(taken)
        return None if end.startswith(taken[first:]) else self._lose()

    def _line(self, line: bytes) -> Request | None:
        if line in (b"quit\r\n", b"quit\n"):
            return None
        if self._whole and len(line) <= AHEAD_MAX and _AHEAD.fullmatch(line):
            return None
        if line[0] == memcached_binary.MAGIC:
            return DOUBT  # what a datagram may be, within a connection in text it is not
        sized = _SIZED.match(line)
        size = int(sized[1]) if sized else None
        value = b"" if size is None else bytes(size) + b"\r\n"
        found = understand(datagram(line + value), self._room)
        if found.intent in (Intent.OTHER, Intent.READ):
            return None
        if names_in_base64(line + value):
            self._skip = len(value)
            return LOST
        if found.intent is Intent.WRITE_ALL and _MORE_LINES.match(line):
            return self._lose()
        if found.intent is Intent.WRITE_ALL:
            self.lasting.append(line == b"flush_all\r\n")
            if line.startswith((b"flush_all\r", b"flush_all\n", b"flush_all ")):
                return LOST
            return QUIET_DOUBT if _ONE_LINE.match(line) else DOUBT
        self._skip = len(value)
        self.lasting.append(lasts(datagram(line + value), self._room))
        return found


class Outcome(NamedTuple):
    """What a segment came to."""

    writes: list[tuple[Request, int]]
    displaced: list[int]
    lasting: list[bool]


class Connection(Resource):
    """memcached_stream.h on one connection."""

    _HEAD = struct.Struct("=4I")
    _FOUND = struct.Struct("=4I")
    _STREAM = struct.Struct(f"=3IHBB10IQ11I{CELLS}I{CELLS}I4B3I{HELD_MAX}s")
    _SEGMENT = _HEAD.size + STEPS * _FOUND.size + CELLS * 4 + _STREAM.size

    def __init__(self, room: int = TEXT_ROOM):
        self.slot_of = (hashes := Hashes()).slot_of
        self._module = Module(
            Recipe(
                Path(__file__).with_name("protocols.c"),
                include=protocols.INCLUDE,
                defines={"PROTOCOL": SPEC.number, "TEXT_ROOM": room},
                written=protocols.headers([SPEC]),
            ),
            parameters={**timing(1), **hashes.parameters, "languages": protocols.bits([SPEC])},
        )
        names = ("begin", "proceed", "answered")
        self._programs = {name: self._module.program(name) for name in names}
        self._states = self._module.map("talks")
        key_end = self._SEGMENT + KEY.size
        self._text = key_end + -key_end % 8 + 8
        self._front = self._text + room + 1024
        self._size = self._front + SEGMENT_MAX + room
        self._size += -self._size % 8

    def close(self) -> None:
        """Free programs and maps."""
        self._module.close()

    @property
    def compiler(self) -> str:
        """What made the programs."""
        return self._module._compiled.compiler

    def verified(self, program: str) -> int:
        """How many instructions the verifier went through."""
        info = Path(f"/proc/self/fdinfo/{self._programs[program]}").read_text()
        found = re.search(r"verified_insns:\s*(\d+)", info)
        assert found, info
        return int(found[1])

    def _run(self, program: str) -> None:
        assert libbpf.test_run(self._programs[program], bytes(64)).retval == libbpf.XDP_PASS

    def _load(self) -> bytearray:
        cell = libbpf.lookup(self._states, bytes(4), self._size)
        assert cell is not None
        return bytearray(cell)

    def _store(self, cell: bytearray) -> None:
        libbpf.update(self._states, bytes(4), bytes(cell))

    def begin(self) -> None:
        """A new connection."""
        self._store(bytearray(bytes(self._HEAD.size).ljust(self._size, b"\xaa")))
        self._run("begin")

    def in_slots(self, writes: list[Request]) -> list[tuple[Request, int]]:
        """Writes as the C tells them: the slot of their key instead of it."""
        return [
            (
                w._replace(key=b""),
                self.slot_of(SPEC.slot_key_of(w.key)) if w.intent is Intent.WRITE else 0,
            )
            for w in writes
        ]

    @property
    def lost(self) -> bool:
        """Whether the connection is not understood any more."""
        at = self._SEGMENT - self._STREAM.size
        return bool(self._STREAM.unpack_from(self._load(), at)[4])

    @property
    def ahead(self) -> int:
        """Reads of the last segment that were passed over."""
        return int(self._HEAD.unpack_from(self._load())[0])

    def feed(self, segment: bytes, stale: bytes = b"\r\n") -> Outcome:
        """A segment in its turn; `stale` is all over the buffer that it comes to."""
        cell = self._load()
        self._HEAD.pack_into(cell, 0, 0, len(segment), 0, 0)
        room = self._front - self._text
        cell[self._text : self._front] = (stale * room)[:room]
        cell[self._front : self._front + len(segment)] = segment
        self._store(cell)
        outcome = Outcome([], [], [])
        while not self.lost and self._proceed(outcome):
            pass
        return outcome

    def _proceed(self, outcome: Outcome) -> bool:
        """A few steps; False when the segment is done."""
        self._run("proceed")
        cell = self._load()
        _, length, offset, steps = self._HEAD.unpack_from(cell)
        assert offset <= length
        for n in range(steps):
            at = self._HEAD.size + n * self._FOUND.size
            told, slot, displaced, _ = self._FOUND.unpack_from(cell, at)
            request = Request.of(told)
            assert request.intent is not Intent.READ
            if request.intent is Intent.OTHER:
                continue
            named = request.intent is Intent.WRITE
            outcome.writes.append((request, slot if named else 0))
            outcome.lasting.append(bool(told & LASTING))
            if named and displaced != NO_CELL:
                outcome.displaced.append(displaced)
        struct.pack_into("=I", cell, 12, 0)
        self._store(cell)
        return bool(offset < length)

    def answered(self) -> list[int]:
        """The cells to void when the server has sent something."""
        self._run("answered")
        at = self._HEAD.size + STEPS * self._FOUND.size
        cells = struct.unpack_from(f"={CELLS}I", self._load(), at)
        return [cell for cell in cells if cell != NO_CELL]


def _proper(text: bytes) -> bool:
    return understand(datagram(text)).intent is not Intent.WRITE_ALL


def _proper_binary(text: bytes) -> bool:
    request = BinaryRequest.read(text)
    return request is not None and request.length == len(text)


_TEXT, _BINARY = (command, _proper), (binary_request, _proper_binary)
"""What makes a command, and what tells whether it is one whole."""


def streams(rng: random.Random, count: int) -> Iterator[list[bytes]]:
    """Connections, each as its segments: commands in pipelines, mostly proper, cut anywhere."""
    for _ in range(count):
        make, proper = rng.choice((_TEXT, _TEXT, _BINARY))
        text = b""
        for _ in range(rng.choice((1, 2, 4, 8, 25))):
            one = make(rng)
            while not proper(one) and rng.random() < 0.97:
                one = make(rng)
            text += one
        if not text:
            continue
        cuts = sorted(rng.sample(range(len(text)), min(len(text), rng.choice((0, 1, 3, 10)))))
        edges = [0, *cuts, *range((cuts[-1] if cuts else 0) + 1400, len(text), 1400), len(text)]
        edges = sorted({*edges, *range(0, len(text), 4000)})
        yield [text[a:b] for a, b in itertools.pairwise(edges) if b > a]
