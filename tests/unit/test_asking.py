# SPDX-License-Identifier: Apache-2.0
"""Requests in the words of each protocol, as `carom why` takes them."""

from __future__ import annotations

import dns.message
import dns.rdatatype
import pytest

from carom.protocols import SPECS


@pytest.mark.parametrize(
    ("name", "words", "request_"),
    [
        ("raw", b"any text", b"any text"),
        ("kv", b"7", b"GET\x07\0\0\0"),
        ("kv", b"get 7", b"GET\x07\0\0\0"),
        ("kv", b"PUT 7 -1", b"PUT\x07\0\0\0" + b"\xff" * 8),
        ("kv", b"DELETE 4294967295", b"DELETE\xff\xff\xff\xff"),
        ("memcached", b"get foo", b"\0\1\0\0\0\1\0\0get foo\r\n"),
        ("coap", b"/a/b?c", b"\x40\x01\0\1\xb1a\x01b\x41c"),
    ],
)
def test_a_request(name: str, words: bytes, request_: bytes) -> None:
    assert SPECS[name].asking(words) == request_


@pytest.mark.parametrize(("words", "kind"), [(b"example.org", "A"), (b"example.org mx", "MX")])
def test_a_query(words: bytes, kind: str) -> None:
    request = SPECS["dns"].asking(words)
    assert request
    query = dns.message.from_wire(request)
    (question,) = query.question
    assert str(question.name) == "example.org."
    assert question.rdtype == dns.rdatatype.from_text(kind)
    assert query.flags == dns.message.make_query("x", "A").flags


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *(("kv", words) for words in (b"", b"GET", b"GET x", b"GET 4294967296", b"GET 1 2")),
        *(("kv", words) for words in (b"PUT 1", b"WHAT 1", b"GET -1")),
        *(("memcached", words) for words in (b"", b" ")),
        *(("dns", words) for words in (b"", b"example.org NOTYPE", b"a b c", b"x" * 64)),
        ("coap", b"/" + b"x" * 300),
    ],
)
def test_what_asks_for_nothing(name: str, words: bytes) -> None:
    assert SPECS[name].asking(words) is None
