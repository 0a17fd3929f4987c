# SPDX-License-Identifier: Apache-2.0
"""A protocol's C functions, called from Python on texts and replies that it puts into a map."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from carom import protocols
from carom.kernel import libbpf
from carom.kernel.abi import COOKIES, KEY
from carom.kernel.bpf import Module
from carom.kernel.hashes import Hashes
from carom.kernel.recipe import Recipe
from carom.kernel.resource import Resource
from carom.kernel.timing import timing
from carom.protocols.protocol import LASTING, TEXT_ROOM, Request
from reference.flights import Answer

REPLY_ROOM = 2048
TTL = 60
ASKED_UNKNOWN = 0x100
NO_KEY = 2**32 - 1
PROGRAMS = ("request", "answer", "replied", "learned", "slot")
"""What there is of every protocol: programs of protocols.c."""

_ONLY = struct.pack("=I", 0)

Stale = Callable[[int], bytes]
"""What an earlier packet left behind in a buffer: that many bytes."""


class State(NamedTuple):
    """The cell that the programs work on: `struct state` of protocols.c."""

    length: int = 0
    text_length: int = 0
    stored: int = 0
    age: int = 0
    ttl: int = TTL
    returned: int = 0
    slot: int = 0
    asked: int = ASKED_UNKNOWN
    sum: int = 0
    key: bytes = b""
    id: int = 0
    text: bytes = b""
    reply: bytes = b""
    client: bytes = b""
    cookies: bytes = b""


class Protocol(Resource):
    """The functions of protocols/NAME/, each in a program of its own: those that are said."""

    def __init__(self, name: str, programs: Iterable[str] = PROGRAMS, *, room: int = TEXT_ROOM):
        spec = protocols.spec(name)
        self.room = room
        layout = f"@8IQ{KEY.size}s0QQ{room}s{REPLY_ROOM}s16s{COOKIES.size}s0Q"
        self._layout = struct.Struct(layout)
        self.hashes = Hashes()
        self._module = Module(
            Recipe(
                Path(__file__).with_name("protocols.c"),
                include=protocols.INCLUDE,
                defines={"PROTOCOL": spec.number, "TEXT_ROOM": room},
                written=protocols.headers([spec]),
            ),
            parameters={
                **timing(1),
                **self.hashes.parameters,
                "languages": protocols.bits([spec]),
            },
        )
        self.programs = {program: self._module.program(program) for program in programs}
        self._states = self._module.map("states")
        self.lasts = False
        """Whether the last request that was understood had INTENT_LASTING."""

    def close(self) -> None:
        """Free programs and maps."""
        self._module.close()

    def verified(self, program: str) -> int:
        """How many instructions the verifier went through (Linux 5.16 and newer tell)."""
        info = Path(f"/proc/self/fdinfo/{self.programs[program]}").read_text()
        found = re.search(r"verified_insns:\s*(\d+)", info)
        assert found, info
        return int(found[1])

    def run(self, program: str, state: State) -> State:
        """Run a program on a state, and see what it made of it."""
        packed = (*state[:9], KEY.pack(0, len(state.key), state.key), *state[10:])
        libbpf.update(self._states, _ONLY, self._layout.pack(*packed))
        result = libbpf.test_run(self.programs[program], bytes(64))
        assert result.retval == libbpf.XDP_PASS
        cell = libbpf.lookup(self._states, _ONLY, self._layout.size)
        assert cell is not None
        found = self._layout.unpack(cell)
        service, length, key = KEY.unpack(found[9])
        assert service == 0
        return State(*found[:9], key[:length] if not any(key[length:]) else key, *found[10:])

    def understand(self, request: bytes, stale: Stale = bytes) -> Request:
        """NAME_request, on what a hook sees of a request."""
        text = buffer(request, self.room, stale)
        state = self.run("request", State(length=len(request), text=text))
        assert state.text == text, "a request was written to"
        self.lasts = bool(state.returned & LASTING)
        return Request.of(state.returned, state.key)

    def several(self, request: bytes, stale: Stale = bytes) -> list[bytes] | None:
        """NAME_next_key, from the first to the last; None where one of them is none."""
        keys, at = [], 0
        text = buffer(request, self.room, stale)
        while at or not keys:
            state = self.run("next", State(length=at, text=text))
            if state.returned == NO_KEY:
                return None
            at = state.returned
            keys.append(state.key)
        return keys

    def answer(self, stored: bytes, request: bytes, age: int = 0) -> tuple[bytes, int] | None:
        """NAME_answer: the reply, and what it added to the sum."""
        state = self.run(
            "answer",
            State(
                length=len(stored),
                stored=len(stored),
                text_length=len(request),
                age=age,
                text=buffer(request, self.room),
                reply=buffer(stored, REPLY_ROOM),
            ),
        )
        return (state.reply[: len(stored)], state.sum) if state.returned else None

    def what_answer(self, reply: bytes, stale: Stale = bytes) -> Answer:
        """NAME_what_answer."""
        before = State(length=len(reply), reply=buffer(reply, REPLY_ROOM, stale))
        state = self.run("replied", before)
        assert state.reply == before.reply, "a reply was written to"
        return Answer(state.returned)

    def learn(self, reply: bytes, stale: Stale = bytes) -> tuple[bytes, bytes] | None:
        """NAME_learn: the key and what is stored."""
        before = State(length=len(reply), stored=len(reply), reply=buffer(reply, REPLY_ROOM, stale))
        state = self.run("learned", before)
        assert state.ttl <= TTL
        if not state.returned:
            assert state.reply == before.reply, "a reply was written to"
            return None
        return state.key, state.reply[: state.stored]

    def slot(self, key: bytes) -> int:
        """key_slot() of slot.h."""
        return self.run("slot", State(key=key)).slot


def buffer(data: bytes, room: int, stale: Stale = bytes) -> bytes:
    """A buffer that holds data: zeros up to the next whole 8 bytes, then what was there before."""
    data = data[:room]
    data += bytes(-len(data) % 8)
    return data + stale(room - len(data))
