# SPDX-License-Identifier: Apache-2.0
"""The hashes in C, called from Python on data and keys that it puts into a map."""

from __future__ import annotations

import struct
from pathlib import Path

from carom.kernel import libbpf
from carom.kernel.abi import KEY
from carom.kernel.bpf import Module
from carom.kernel.hashes import Hashes
from carom.kernel.recipe import Recipe
from carom.kernel.resource import Resource

DATA_ROOM = 512

_ONLY = struct.pack("=I", 0)
_STATE = struct.Struct(f"=16sQII{KEY.size}s8s{DATA_ROOM}s")


class ProgramHashes(Resource):
    """hashes.c, compiled with the secrets of a Hashes."""

    def __init__(self, hashes: Hashes):
        self._module = Module(
            Recipe(Path(__file__).with_suffix(".c")), parameters=hashes.parameters
        )
        names = ("siphash_1_3", "siphash_2_4", "name", "slot")
        self._programs = {name: self._module.program(name) for name in names}
        self._states = self._module.map("states")

    def close(self) -> None:
        """Free programs and maps."""
        self._module.close()

    def _run(
        self,
        program: str,
        *,
        secret: bytes = b"",
        first: int = 0,
        key: bytes = bytes(KEY.size),
        data: bytes = b"",
    ) -> int:
        """What is behind key and data is no zeros."""
        stale = b"\xa5" * DATA_ROOM
        fields = secret, 0, len(data), first, key, stale[:8], data + stale[len(data) :]
        libbpf.update(self._states, _ONLY, _STATE.pack(*fields))
        assert libbpf.test_run(self._programs[program], bytes(64)).retval == libbpf.XDP_PASS
        state = libbpf.lookup(self._states, _ONLY, _STATE.size)
        assert state is not None
        found: int = _STATE.unpack(state)[1]
        return found

    def siphash(self, secret: bytes, data: bytes, word_rounds: int = 1, rounds: int = 3) -> int:
        """siphash_bytes() by a secret."""
        return self._run(f"siphash_{word_rounds}_{rounds}", secret=secret, data=data)

    def name(self, service: int, key: bytes) -> int:
        """hash_key()."""
        return self._run("name", key=KEY.pack(service, len(key), key))

    def slot(self, key: bytes, first: int = 0) -> int:
        """key_slot() of what stands behind the `first` byte of a key, or behind none."""
        return self._run("slot", key=KEY.pack(0, len(key), key), first=first)
