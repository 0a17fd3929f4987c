# SPDX-License-Identifier: Apache-2.0
"""What a sample of a packet says: in a line, as JSON, and in a capture."""

from __future__ import annotations

import io
import ipaddress
import struct
from pathlib import Path

import pytest
from scapy.utils import RawPcapNgReader

from carom.cli_trace import _verdicts
from carom.frames import request_frame
from carom.kernel.abi import SAMPLE, Hook, Verdict
from carom.pcapng import Way, Writer
from carom.traced import Reader, Service, Traced

SERVICES = [Service(51141, "raw"), Service(11211, "memcached")]
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")


def frame(payload: bytes, *, ipv6: bool = False) -> bytes:
    ends = ("2001:db8::1", "2001:db8::2") if ipv6 else ("198.18.0.1", "198.18.0.2")
    client, server = map(ipaddress.ip_address, ends)
    return request_frame(payload, (client, 40_000), (server, 51_141), MACS)


def sample(
    came: bytes, verdict: Verdict, *, sent: bytes = b"", place: int = 1, key: bytes = b""
) -> Traced:
    head = SAMPLE.pack(
        5,
        3,
        0,
        len(came),
        len(sent),
        len(came),
        len(sent),
        Hook.TC,
        verdict,
        place,
        0,
        len(key),
        key,
    )
    return Reader({3: "eth0"}, SERVICES).read(head + came + sent)


def test_a_line() -> None:
    asked, answer = frame(b"what"), frame(b"that")
    line = sample(asked, Verdict.HIT, sent=answer).line()
    assert line.split(" ", 1)[1] == (
        "eth0 tc 198.18.0.1:40000 to 198.18.0.2:51141, UDP with 4 bytes, raw what: hit: "
        "answered from the cache, 46 bytes"
    )
    of_ipv6 = sample(frame(b"x", ipv6=True), Verdict.MISS, place=2, key=b"gfoo").about()
    assert of_ipv6.startswith("[2001:db8::1]:40000 to [2001:db8::2]:51141, UDP with 1 bytes, ")
    assert ", memcached gfoo: miss: not in the cache" in of_ipv6
    stranger = sample(bytes(12) + b"\x08\x06" + bytes(46), Verdict.PASS_ETHERTYPE, place=0)
    assert stranger.about().startswith("EtherType 0x0806: pass ethertype: ")


@pytest.mark.parametrize("verdict", list(Verdict), ids=lambda one: one.name.lower())
def test_each_verdict(verdict: Verdict) -> None:
    one = sample(frame(b"x"), verdict)
    assert f": {one.name}: {one.remedy.what}" in one.line()
    shown = one.shown()
    assert (shown["verdict"], shown["what"]) == (verdict.name.lower(), one.remedy.what)
    assert _verdicts(shown["verdict"])[0] == shown["verdict"]


def test_what_is_no_key_is_none() -> None:
    """Of a protocol whose key is not the payload, only what the programs have read."""
    assert sample(frame(b"set foo"), Verdict.PASS_OFF, place=2).key == b""
    assert sample(frame(b"foo"), Verdict.PASS_OFF).key == b"foo"
    assert sample(frame(b"foo"), Verdict.PASS_SERVICE, place=0).key == b""


def test_an_interface_that_came_later() -> None:
    head = SAMPLE.pack(5, 9, 0, 0, 0, 0, 0, 0, Verdict.MISS, 0, 0, 0, b"")
    assert Reader({3: "eth0"}, SERVICES).read(head).interface == "interface 9"


def test_a_capture(tmp_path: Path) -> None:
    """Read by others: interfaces, nanoseconds, lengths, directions, comments of any letters."""
    file = tmp_path / "some.pcapng"
    at = 1_800_000_000_123_456_789
    packets = [
        ("eth0", b"a" * 61, 61, Way.IN, "hit: ✓ < \x1b"),
        ("eth1", b"b" * 64, 1_500, Way.OUT, ""),
        ("eth0", b"c" * 63, 63, Way.IN, "y" * 70_000),
    ]
    with file.open("wb") as opened:
        writer = Writer(opened, 64)
        for number, (name, data, length, way, comment) in enumerate(packets):
            writer.packet(name, at + number, data, length, way, comment)
    with RawPcapNgReader(str(file)) as reader:
        read = list(reader)
    for number, ((name, data, length, way, comment), (found, about)) in enumerate(
        zip(packets, read, strict=True)
    ):
        assert (found, about.wirelen) == (data, length)
        assert about.ifname in (name, name.encode())
        assert (about.tshigh << 32 | about.tslow, about.tsresol) == (at + number, 10**9)
        assert about.direction == way
        said = about.comments[0] if hasattr(about, "comments") else about.comment
        assert said.decode() == comment[:0xFFFF]


def test_each_block_says_its_length() -> None:
    file = io.BytesIO()
    Writer(file, 64).packet("eth0", 1, b"abcde", 5, Way.IN, "x")
    data, kinds = file.getvalue(), []
    while data:
        kind, length = struct.unpack_from("=II", data)
        assert length % 4 == 0 and struct.unpack_from("=I", data, length - 4) == (length,)
        kinds.append(kind)
        data = data[length:]
    assert kinds == [0x0A0D0D0A, 1, 6]
