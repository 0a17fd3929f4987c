# SPDX-License-Identifier: Apache-2.0
"""Frames of UDP requests, made and told of (RFC 768, 791, 8200; IEEE 802.3 and 802.1Q)."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from pathlib import Path

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


def summary(frame: bytes) -> str:
    """Who sends a frame to whom, as far as that can be read."""
    at = ETHERNET - 2
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    kind, packet = int.from_bytes(frame[at : at + 2]), frame[at + 2 :]
    if len(frame) < at + 2:
        return "no whole Ethernet header"
    if kind == _IPV4 and len(packet) >= 20:
        size, protocol, ends = packet[0] % 16 * 4, packet[9], (packet[12:16], packet[16:20])
    elif kind == _IPV6 and len(packet) >= 40:
        size, protocol, ends = 40, packet[6], (packet[8:24], packet[24:40])
    else:
        return f"EtherType 0x{kind:04x}"
    client, host = map(ipaddress.ip_address, ends)
    if protocol != _UDP or len(packet) < size + 8:
        return f"{client} to {host}, protocol {protocol}"
    client_port, port, length = struct.unpack_from("!HHH", packet, size)
    shown = "{}:{}" if client.version == 4 else "[{}]:{}"
    ends_shown = shown.format(client, client_port), shown.format(host, port)
    return f"{ends_shown[0]} to {ends_shown[1]}, UDP with {max(0, length - 8)} bytes"


def captured(path: Path) -> list[bytes]:
    """The frames of a capture, pcap or pcapng. Raises UsageError for a file that is none."""
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
            return [frame for frame, _ in reader]
    except (OSError, Scapy_Exception, EOFError, ValueError, struct.error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"cannot read {path}: {reason}", hint="a file of tcpdump -w, of an Ethernet interface"
        ) from error
