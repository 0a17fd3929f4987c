# SPDX-License-Identifier: Apache-2.0
"""Frames of UDP requests, made and told of (RFC 768, 791, 8200; IEEE 802.3 and 802.1Q)."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from carom.errors import UsageError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

ETHERNET = 14
"""Bytes of a header without tags."""

_TAG, _IPV4, _IPV6, _UDP = 0x8100, 0x0800, 0x86DD, 17
_TTL = 64


def request_frame(
    payload: bytes,
    source: tuple[Address, int],
    to: tuple[Address, int],
    macs: tuple[str, str],
    tags: Sequence[int] = (),
) -> bytes:
    """A request's frame as a client sends it: `source` and `to` are addresses and UDP ports, `macs`
    the sender's and the receiver's, `tags` VLAN ids, the outermost first."""
    (client, client_port), (host, port) = source, to
    from_mac, to_mac = (bytes.fromhex(mac.replace(":", "")) for mac in macs)
    length = 8 + len(payload)
    udp = struct.pack("!HHHH", client_port, port, length, 0) + payload
    pseudo = client.packed + host.packed + struct.pack("!IHBB", length, 0, 0, _UDP)
    check = _sum(pseudo + udp) or 0xFFFF
    udp = udp[:6] + struct.pack("!H", check) + udp[8:]
    if host.version == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 1, 0, _TTL, _UDP, 0)
        head += client.packed + host.packed
        head = head[:10] + struct.pack("!H", _sum(head)) + head[12:]
    else:
        head = struct.pack("!IHBB", 6 << 28, length, _UDP, _TTL) + client.packed + host.packed
    tagged = b"".join(struct.pack("!HH", _TAG, tag) for tag in tags)
    kind = struct.pack("!H", _IPV4 if host.version == 4 else _IPV6)
    return to_mac + from_mac + tagged + kind + head + udp


def _sum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Datagram(NamedTuple):
    """A UDP datagram: who sends it to whom, and what is there of its payload."""

    source: Address
    source_port: int
    to: Address
    port: int
    length: int
    payload: bytes


class _Packet(NamedTuple):
    """What is behind Ethernet's header and tags: kind, and for an IP packet its parts."""

    kind: int
    source: Address | None = None
    to: Address | None = None
    protocol: int = 0
    whole: bool = True
    inside: bytes = b""


def _opened(frame: bytes) -> _Packet | None:
    at = ETHERNET - 2
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    kind, packet = int.from_bytes(frame[at : at + 2]), frame[at + 2 :]
    if len(frame) < at + 2:
        return None
    if kind == _IPV4 and len(packet) >= 20:
        size, protocol, ends = packet[0] % 16 * 4, packet[9], (packet[12:16], packet[16:20])
        whole = not int.from_bytes(packet[6:8]) & 0x3FFF
    elif kind == _IPV6 and len(packet) >= 40:
        size, protocol, ends, whole = 40, packet[6], (packet[8:24], packet[24:40]), True
    else:
        return _Packet(kind)
    source, to = map(ipaddress.ip_address, ends)
    return _Packet(kind, source, to, protocol, whole, packet[size:])


def datagram(frame: bytes) -> Datagram | None:
    """The UDP datagram in a frame; None where there is none, or a fragment of one."""
    packet = _opened(frame)
    if not packet or not packet.source or not packet.to:
        return None
    if packet.protocol != _UDP or not packet.whole or len(packet.inside) < 8:
        return None
    source_port, port, size = struct.unpack_from("!HHH", packet.inside)
    length = max(0, size - 8)
    payload = packet.inside[8:][:length]
    return Datagram(packet.source, source_port, packet.to, port, length, payload)


def summary(frame: bytes) -> str:
    """Who sends a frame to whom, as far as that can be read."""
    packet = _opened(frame)
    if not packet:
        return "no whole Ethernet header"
    if not packet.source or not packet.to:
        return f"EtherType 0x{packet.kind:04x}"
    if packet.protocol != _UDP or len(packet.inside) < 8:
        return f"{packet.source} to {packet.to}, protocol {packet.protocol}"
    source_port, port, length = struct.unpack_from("!HHH", packet.inside)
    shown = "{}:{}" if packet.source.version == 4 else "[{}]:{}"
    client, host = shown.format(packet.source, source_port), shown.format(packet.to, port)
    return f"{client} to {host}, UDP with {max(0, length - 8)} bytes"


def captured(path: Path) -> list[bytes]:
    """The frames of a capture, pcap or pcapng. Raises UsageError for a file that is none."""
    return [frame for _, frame in captured_at(path)]


def captured_at(path: Path) -> list[tuple[float, bytes]]:
    """The same, each with when it was captured: seconds of Unix time, 0 where that is not said."""
    try:
        from scapy.error import Scapy_Exception
        from scapy.utils import RawPcapReader
    except ImportError as error:
        raise UsageError(
            "captures are read by scapy, which is not installed",
            hint="pip install 'carom[lab]', or one frame at a time with --hex",
        ) from error
    try:
        with RawPcapReader(str(path)) as reader:
            nano = getattr(reader, "nano", False)
            return [(_time(about, nano=nano), frame) for frame, about in reader]
    except (OSError, Scapy_Exception, EOFError, ValueError, struct.error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"cannot read {path}: {reason}", hint="a file of tcpdump -w, of an Ethernet interface"
        ) from error


def _time(about: Any, *, nano: bool) -> float:
    """When a packet was captured, by what scapy says of it: pcapng's units differ by interface."""
    if hasattr(about, "tshigh"):
        if about.tshigh is None:  # a block without a time
            return 0.0
        return float((about.tshigh << 32 | about.tslow) / about.tsresol)
    return float(about.sec + about.usec / (1e9 if nano else 1e6))
