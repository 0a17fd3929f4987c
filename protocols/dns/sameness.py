# SPDX-License-Identifier: Apache-2.0
"""Do two replies as they are stored say the same? Their ids, TTLs and spelling are zeros there."""

from __future__ import annotations

from collections import Counter

from carom.protocols.dns.message import (
    HEADER,
    OPT,
    Malformed,
    Record,
    labels,
    read_question,
    read_records,
)

_POINTERS_MAX = 127
_NAMES_AT = {2: 0, 3: 0, 4: 0, 5: 0, 7: 0, 8: 0, 9: 0, 12: 0, 14: 0, 15: 2, 6: 0}
"""Where in a record's data names begin that may be compressed, by type (RFC 3597 4)."""

_NAMES = {6: 2, 14: 2}
"""How many names there are, where that is not one: SOA, MINFO."""

Said = tuple[object, ...]


def same(key: bytes, cached: bytes, served: bytes) -> bool:
    """Whether both have the same flags and, in each section, the same records in any order.

    A set of records has no order (RFC 2181 5), and servers turn it round. Names are compared in
    lower case, and as they are without compression. What cannot be read is the same if its bytes
    are.
    """
    if cached == served:
        return True
    try:
        return _said(key, cached) == _said(key, served)
    except Malformed:
        return False


def _said(key: bytes, stored: bytes) -> Said:
    """What a stored reply says. Raises Malformed."""
    name = key[:-3]  # type and flags follow
    message = stored[: HEADER.size] + name + stored[HEADER.size + len(name) :]
    question = read_question(message)
    records = Counter[Said]()
    at = question.rest
    for record in read_records(message, question):
        records[_record(message, at, record)] += 1
        at = record.end
    return question.flags, question.name, question.type, records


def _record(message: bytes, at: int, record: Record) -> Said:
    owner, _ = _name(message, at)
    ttl = record.ttl if record.type == OPT else 0  # OPT's has flags
    return record.section, owner, record.type, record.cls, ttl, *_data(message, record)


def _data(message: bytes, record: Record) -> Said:
    """The data, its names without compression."""
    if record.type not in _NAMES_AT or not record.data:
        return (record.data,)
    begin = record.end - len(record.data)
    at = begin + _NAMES_AT[record.type]
    parts: list[bytes] = [message[begin:at]]
    for _ in range(_NAMES.get(record.type, 1)):
        name, at = _name(message, at)
        parts.append(name)
    if at > record.end:
        raise Malformed("a name goes beyond its record")
    return (*parts, message[at : record.end])


def _name(message: bytes, at: int) -> tuple[bytes, int]:
    """A name in lower case without compression, and where it ends. Raises Malformed."""
    parts: list[bytes] = []
    end = None
    for _ in range(_POINTERS_MAX):
        pointer = None
        for place, length in labels(message, at):
            if length < 0:
                if place + 2 > len(message):
                    raise Malformed("a pointer is cut off")
                pointer = int.from_bytes(message[place : place + 2]) & 0x3FFF
                end = place + 2 if end is None else end
            else:
                parts.append(message[place : place + 1 + length].lower())
        if pointer is None:
            return b"".join(parts), place + 1 if end is None else end
        at = pointer
    raise Malformed("a name goes round")
