# SPDX-License-Identifier: Apache-2.0
"""The shadow check: what is the same, and how what differs is named."""

from __future__ import annotations

import random
import struct

import dns.message
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carom import log
from carom.daemon.key_text import key_text
from carom.daemon.shadow import digest
from carom.protocols import SPECS
from carom.protocols.dns.message import HEADER, read_question, read_records
from carom.protocols.dns.sameness import same


@given(st.binary(max_size=260))
def test_no_key_commands_a_terminal(key: bytes) -> None:
    line = log.line("warning", "x", {"key": key_text(key)}, "", colours=False)
    assert line.isprintable() and line.isascii()
    text = key_text(key)
    assert (bytes.fromhex(text[2:]) if text.startswith("0x") else text.encode()) == key


def test_a_digest_tells_length_and_content() -> None:
    assert digest(b"") == "0 bytes, e3b0c44298fc1c14"
    assert len({digest(b"x"), digest(b"y"), digest(b"xx")}) == 3


@pytest.mark.parametrize("name", [name for name in SPECS if name != "dns"])
def test_others_are_the_same_if_their_bytes_are(name: str) -> None:
    spec = SPECS[name]
    assert spec.same(b"key", b"reply", b"reply")
    assert not spec.same(b"key", b"reply", b"Reply")
    assert not spec.same(b"key", b"reply", b"reply\0")


NAME = "www.Example.org."
KEY = b"\3www\7example\3org\0" + struct.pack("!HB", 1, 0)


def reply(*records: str, section: str = "answer", name: str = NAME, flags: int = 0x8400) -> bytes:
    """A reply with these sets of records, a line each, as it is stored: with its zeros."""
    made = dns.message.make_response(dns.message.make_query(name, "A"))
    made.flags = flags
    for text in records:
        owner, ttl, kind, *data = text.split(" ", 3)
        made.section_from_number({"answer": 1, "authority": 2, "additional": 3}[section]).append(
            dns.rrset.from_text(owner, int(ttl), "IN", kind, *"".join(data).split("|"))
        )
    wire = bytearray(made.to_wire())
    question = read_question(bytes(wire))
    for record in read_records(bytes(wire), question):
        wire[record.at + 4 : record.at + 8] = bytes(4)
    wire[:2] = bytes(2)
    wire[HEADER.size : HEADER.size + len(question.name)] = bytes(len(question.name))
    return bytes(wire)


A = f"{NAME} 300 A 198.18.0.10|198.18.0.11"
TURNED = f"{NAME} 300 A 198.18.0.11|198.18.0.10"
MX = "example.org. 60 MX 10 a.example.org.|20 b.mail.example.org."
MX_TURNED = "example.org. 60 MX 20 b.mail.example.org.|10 a.example.org."
SOA = "example.org. 60 SOA ns.example.org. host.example.org. {} 2 3 4 5"
ALIAS = f"{NAME} 300 CNAME x.example.org."


@pytest.mark.parametrize(
    ("cached", "served"),
    [
        (reply(A), reply(A)),
        (reply(A), reply(TURNED)),
        (reply(A), reply(A.replace(" 300 ", " 12 "))),
        (reply(MX), reply(MX_TURNED)),
        (reply(A), reply(A, name=NAME.lower())),
        (reply(ALIAS, MX), reply(MX_TURNED, ALIAS)),
        (reply(SOA.format(1), section="authority"), reply(SOA.format(1), section="authority")),
    ],
    ids=["itself", "turned", "ttl", "compressed", "spelled", "sets", "soa"],
)
def test_same(cached: bytes, served: bytes) -> None:
    assert same(KEY, cached, served) and same(KEY, served, cached)


@pytest.mark.parametrize(
    ("cached", "served"),
    [
        (reply(A), reply(A.replace(".11", ".12"))),
        (reply(A), reply(A.split("|")[0])),
        (reply(A), reply()),
        (reply(A), reply(A, section="additional")),
        (reply(A), reply(A, flags=0x8000)),
        (reply(A), reply(A, flags=0x8403)),
        (reply(MX), reply(MX.replace("10 a", "11 a"))),
        (reply(MX), reply(MX.replace("b.mail", "c.mail"))),
        (reply(SOA.format(1), section="authority"), reply(SOA.format(2), section="authority")),
        (reply(A), reply(A)[:-1]),
        (reply(A), reply(A) + b"\0"),
        (reply(A), b""),
    ],
    ids=[
        *("address", "fewer", "none", "section", "authority", "rcode", "preference", "exchange"),
        *("serial", "cut", "longer", "empty"),
    ],
)
def test_different(cached: bytes, served: bytes) -> None:
    assert not same(KEY, cached, served) and not same(KEY, served, cached)


def test_garbage_ends_and_is_not_the_same() -> None:
    """Pointers that go round, records that are cut: whatever a server sends."""
    rng = random.Random(7)
    whole = reply(A, MX, ALIAS)
    for _ in range(3000):
        wrong = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            wrong[rng.randrange(len(wrong))] = rng.choice((0, 0xC0, 0xFF, rng.randrange(256)))
        made = bytes(wrong[: rng.randint(1, len(wrong))])
        assert same(KEY, made, made)
        if same(KEY, whole, made):
            assert len(made) == len(whole)
