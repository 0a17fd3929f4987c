# SPDX-License-Identifier: Apache-2.0
"""Every command that writes, of memcached's protocols, as ways to give a key its next number.

A key has numbers, which only grow, and each number has one value, or none. How it is written, the
number tells: of thirteen, one is a deletion, and some build on what stands there.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

from prog.memcached_binary import binary

CYCLE = 13
DELETES = CYCLE - 1
"""Of each cycle's numbers; the next, which is a cycle's first, finds nothing there."""

APPENDS = (4, 8)
PREPENDS = 5

SIZES = (0, 40, 64, 200, 500, 1100)
"""Of values, with their numbers before them."""

_TOP = 10**9

Say = Callable[[bytes], bytes | None]
"""Sends a command and returns the whole reply to it, or None for a loss."""


def name_of(key: int) -> bytes:
    return (b"torture-%d-" % key).ljust((12, 59, 60, 200)[key % 4], b"k")


def counts(key: int) -> int:
    """1 where a key's value is its number, -1 where it counts down, 0 where it is text."""
    return {3: 1, 4: -1, 5: 1, 6: -1}.get(key % 12, 0)


def deletes(number: int) -> bool:
    return number % CYCLE == DELETES


def value(key: int, number: int) -> bytes:
    """The one value of a key at a number, which it tells."""
    if counts(key):
        return b"%d" % (number if counts(key) > 0 else _TOP - number)
    if number % CYCLE in APPENDS:
        return value(key, number - 1) + b"+"
    if number % CYCLE == PREPENDS:
        return b"%d:%d:" % (key, number) + value(key, number - 1)
    filling = bytes(ord("a") + (key + number) % 26 for _ in range(SIZES[(key + number) % 6]))
    return b"%d:%d:%b" % (key, number, filling)


def number_of(key: int, found: bytes) -> int | None:
    """The number whose value this is; None where it is no number's."""
    try:
        told = int(found if counts(key) else found.split(b":")[1])
    except (ValueError, IndexError):
        return None
    told = _TOP - told if counts(key) < 0 else told
    return next((n for n in (told, told + 1) if n >= 0 and value(key, n) == found), None)


def write(say: Say, key: int, number: int, *, sure: bool, ways: Ways) -> bool:
    """Give a key its next number, and wait for the acknowledgement; False for a loss.

    `sure`: the number before is there. Where it may not be, nothing is built on it.
    """
    place = number % CYCLE
    if place == DELETES:
        command, done = ways.delete(name_of(key))
    elif not sure or number < CYCLE:
        command, done = ways.put("set", name_of(key), value(key, number))
    elif place == 0:
        command, done = ways.put("add", name_of(key), value(key, number))
    elif counts(key):
        command, done = ways.count(name_of(key), counts(key), value(key, number), place)
    elif place in APPENDS:
        command, done = ways.join("append", name_of(key), b"+", place)
    elif place == PREPENDS:
        command, done = ways.join("prepend", name_of(key), b"%d:%d:" % (key, number), place)
    elif place == 3:
        unique = ways.unique(say, name_of(key))
        if unique is None:
            return False
        command, done = ways.put("cas", name_of(key), value(key, number), unique)
    else:
        word = ("replace", "ms", "mode")[number % 3]
        command, done = ways.put(word, name_of(key), value(key, number))
    reply = say(command)
    assert reply is None or reply.startswith(done), (command, reply, sure)
    return reply is not None


Told = tuple[bytes, tuple[bytes, ...]]
"""A command, and what begins replies that acknowledge it."""


class Ways:
    """The commands in text."""

    flush = (b"flush_all\r\n", (b"OK\r\n",))

    def delete(self, name: bytes) -> Told:
        if len(name) % 2:
            return b"md %b\r\n" % name, (b"HD\r\n", b"NF\r\n")
        return b"delete %b\r\n" % name, (b"DELETED\r\n", b"NOT_FOUND\r\n")

    def put(self, word: str, name: bytes, data: bytes, unique: int = 0) -> Told:
        if word in ("ms", "mode"):
            mode = b" MR" if word == "mode" else b" T0"
            return b"ms %b %d%b\r\n%b\r\n" % (name, len(data), mode, data), (b"HD\r\n",)
        behind = b" %d" % unique if word == "cas" else b""
        line = b"%b %b 0 0 %d%b\r\n" % (word.encode(), name, len(data), behind)
        return line + data + b"\r\n", (b"STORED\r\n",)

    def join(self, word: str, name: bytes, data: bytes, place: int) -> Told:
        if place == APPENDS[1]:
            return b"ms %b %d MA\r\n%b\r\n" % (name, len(data), data), (b"HD\r\n",)
        return self.put(word, name, data)

    def count(self, name: bytes, by: int, after: bytes, place: int) -> Told:
        if place % 3 == 0:
            return b"ma %b %b\r\n" % (name, b"MI" if by > 0 else b"MD"), (b"HD\r\n",)
        word = b"incr" if by > 0 else b"decr"
        return b"%b %b 1\r\n" % (word, name), (b"%b\r\n" % after,)

    def unique(self, say: Say, name: bytes) -> int | None:
        """What cas has to have, of the value that stands there; None for a loss."""
        reply = say(b"gets %b\r\n" % name)
        return int(reply.split(b"\r\n")[0].split()[4]) if reply else None

    def beside(self, name: bytes, n: int) -> bytes:
        """What changes no value, and may look like a write or be one."""
        texts = (b"touch %b 0", b"gat 0 %b", b"gats 0 %b", b"mg %b T0 v", b"mg %b t", b"me %b")
        others = (b"mn", b"version", b"verbosity 0", b"nonsense")
        return ((*texts, *others)[n % 10] % ((name,) if n % 10 < 6 else ())) + b"\r\n"


class BinaryWays(Ways):
    """The same in binary."""

    opcodes = MappingProxyType({"set": 1, "add": 2, "replace": 3, "ms": 1, "mode": 3, "cas": 1})

    @staticmethod
    def _told(opcode: int, name: bytes = b"", data: bytes = b"", cas: int = 0) -> Told:
        return binary(opcode, name, data, cas=cas), (b"\x81%c\0\0\0\0\0\0" % opcode,)

    flush = (binary(0x08, extras=0), (b"\x81\x08\0\0\0\0\0\0",))

    def delete(self, name: bytes) -> Told:
        command, (done,) = self._told(0x04, name)
        return command, (done, done[:-1] + b"\1")

    def put(self, word: str, name: bytes, data: bytes, unique: int = 0) -> Told:
        return self._told(self.opcodes[word], name, data, unique)

    def join(self, word: str, name: bytes, data: bytes, place: int) -> Told:
        return self._told(0x0E if word == "append" else 0x0F, name, data)

    def count(self, name: bytes, by: int, after: bytes, place: int) -> Told:
        opcode = 0x05 if by > 0 else 0x06
        command, done = self._told(opcode, name)
        return command[:31] + b"\1" + command[32:], done

    def unique(self, say: Say, name: bytes) -> int | None:
        reply = say(binary(0x00, name))
        return int.from_bytes(reply[16:24], "big") if reply else None

    def beside(self, name: bytes, n: int) -> bytes:
        asked = (0x00, 0x0C, 0x1C, 0x1D, 0x23)
        return (binary(asked[n % 6], name)) if n % 6 < 5 else binary(0x0B)
