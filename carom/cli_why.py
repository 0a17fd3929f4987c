# SPDX-License-Identifier: Apache-2.0
"""`carom why`: what a carom's programs would do with a packet, and what would change that."""

from __future__ import annotations

import contextlib
import ipaddress
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from carom.cli_cache import Pid, Port, print_json
from carom.cli_options import App, Json, new_table, show_table
from carom.daemon import control
from carom.errors import UsageError
from carom.frames import captured, datagram, request_frame, summary

if TYPE_CHECKING:
    from carom.daemon.offline import Offline

app = App()

_SOMEBODY = "02:00:00:00:00:01"
"""The MAC of a client of whom nothing is known: a locally administered one."""

_SOURCE_PORT = 40_000
_PAYLOAD_MAX = 1_472  # bytes of a datagram in a frame of Ethernet's own MTU
_AT_ONCE = 24_000  # bytes of frames in one call: its line holds 65,536, in hexadecimal

Place = dict[str, Any]
Walk = dict[str, Any]


@app.command()
def why(
    request: Annotated[
        str | None,
        typer.Argument(
            help="What a client asks for, in the words of the service's protocol: 'get foo', "
            "'example.org AAAA', '/sensors/1', 'GET 7'; or a payload, as hex after 0x."
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="ADDRESS[:PORT]", help="Who asks. Default: the service's neighbour."
        ),
    ] = None,
    to: Annotated[str | None, typer.Option(help="Which of the service's addresses.")] = None,
    hex: Annotated[
        str | None, typer.Option(help="A whole frame, from its Ethernet header on, as hex.")
    ] = None,
    pcap: Annotated[
        Path | None, typer.Option(help="All frames of a capture, with an Ethernet header each.")
    ] = None,
    interface: Annotated[
        str | None, typer.Option("--interface", "-i", help="By which interface it comes in.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Ask the services of a configuration file as they would be, with nothing cached.",
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The same of one service of this protocol, without a file."
        ),
    ] = None,
    port: Port = None,
    pid: Pid = None,
    json: Json = False,
) -> None:
    """Explain what becomes of a packet: where it would be answered, or passed on, and why.

    The running carom's programs are run on it with all that they have now. Nothing is counted,
    stored, voided or sent. With --config or --protocol no carom has to run: programs are loaded for
    it, and attached nowhere.
    """
    wanted = sum(one is not None for one in (request, hex, pcap))
    if wanted != 1:
        raise UsageError(
            "only one thing can be asked at a time" if wanted else "nothing is asked",
            hint="carom why 'get foo', carom why --hex 0200..., or carom why --pcap FILE",
        )
    address, source_port = _source(source)
    with _of(config, protocol, port, interface, pid) as carom:
        places = carom.places(address)
        if request is not None:
            place = _place(places, port, to, interface, address)
            asked, interface = [_frame(place, request, address, source_port)], place["interface"]
        else:
            asked = captured(pcap) if pcap else [_unhex(hex)]
            interface = interface or _only([place["interface"] for place in places])
        for number, (frame, walks) in enumerate(_told(carom, asked, interface)):
            if not walks and not pcap:
                raise UsageError(
                    f"the kernel does not take this as a frame: {len(frame)} bytes",
                    hint="a frame from its Ethernet header on, of 14 to about 3,500 bytes",
                )
            filled = [] if pcap else carom.filled(frame, walks, interface)
            if json:
                shown = {"frame": frame.hex(), "interface": interface, "walks": walks}
                print_json(shown | ({"filled": filled} if filled else {}))
                continue
            if number:
                print()
            _show(frame, interface, walks)
            if filled:
                print("\nonce its reply is in the cache:")
                _show(frame, interface, filled)


def _told(
    carom: _Running, asked: Sequence[bytes], interface: str
) -> Iterator[tuple[bytes, list[Walk]]]:
    """Each frame, and its walks."""
    for some in _parts(asked):
        yield from zip(some, carom.why(some, interface), strict=True)


class _Running:
    """A carom that runs."""

    def __init__(self, pid: int | None):
        self._pid = pid

    def places(self, source: str | None) -> list[Place]:
        """Where its services are answered."""
        found: list[Place] = control.call("places", self._pid, source=source)
        return found

    def why(self, frames: Sequence[bytes], interface: str) -> list[list[Walk]]:
        """The walks of frames."""
        told = [one.hex() for one in frames]
        found: list[list[Walk]] = control.call("why", self._pid, frames=told, interface=interface)
        return found

    def filled(self, frame: bytes, walks: Sequence[Walk], interface: str) -> list[Walk]:
        """The walks that a frame would have if its reply were cached; none where that is known."""
        del frame, walks, interface
        return []


class _Offline(_Running):
    """Services that do not run."""

    def __init__(self, offline: Offline):
        self._offline = offline

    def places(self, source: str | None) -> list[Place]:
        from carom.daemon import why

        return why.places(self._offline.asked, source)

    def why(self, frames: Sequence[bytes], interface: str) -> list[list[Walk]]:
        from carom.daemon import why

        return why.why(self._offline.asked, [one.hex() for one in frames], interface)

    def filled(self, frame: bytes, walks: Sequence[Walk], interface: str) -> list[Walk]:
        asked = datagram(frame)
        if not asked or [walk["verdict"] for walk in walks] != ["miss"]:
            return []
        if not self._offline.fill(asked.payload, asked.port):
            return []
        (found,) = self.why([frame], interface)
        return found


@contextlib.contextmanager
def _of(
    config: Path | None,
    protocol: str | None,
    port: int | None,
    interface: str | None,
    pid: int | None,
) -> Iterator[_Running]:
    """Who is asked. Raises UsageError."""
    if config is None and protocol is None:
        yield _Running(pid)
        return
    if pid is not None or (config and protocol):
        raise UsageError(
            "--config, --protocol and --pid each say who is asked", hint="leave all but one out"
        )
    from carom.cli_serve import known
    from carom.configuration import Configuration
    from carom.daemon.offline import Offline
    from carom.protocols import spec

    given = {name: value for name, value in (("protocol", protocol), ("port", port)) if value}
    plan = Configuration(
        known(),
        config,
        kind=spec(protocol.lower()).filled.value if protocol else None,
        given=given if protocol else {},
        interfaces=[interface] if interface else (),
    ).read()
    with Offline([planned.made() for planned in plan.services], plan.interfaces) as offline:
        yield _Offline(offline)


def _parts(asked: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Frames by the call: as many as one takes, and at least one."""
    some, size = list[bytes](), 0
    for frame in asked:
        if some and size + len(frame) > _AT_ONCE:
            yield some
            some, size = [], 0
        some.append(frame)
        size += len(frame)
    if some:
        yield some


def _source(source: str | None) -> tuple[str | None, int]:
    """Address and port of who asks."""
    if source is None:
        return None, _SOURCE_PORT
    host, _, port = source.rpartition(":") if _has_port(source) else (source, "", "")
    try:
        number = int(port or _SOURCE_PORT)
        if not 0 <= number <= 0xFFFF:
            raise ValueError
        return str(ipaddress.ip_address(host.strip("[]"))), number
    except ValueError as error:
        raise UsageError(
            f"--from {source} is no address",
            hint="198.18.0.1, 198.18.0.1:40000, 2001:db8::1 or [2001:db8::1]:40000",
        ) from error


def _has_port(source: str) -> bool:
    return "]:" in source or source.count(":") == 1


def _place(
    places: Sequence[Place],
    port: int | None,
    to: str | None,
    interface: str | None,
    address: str | None,
) -> Place:
    """Where the request goes: the first of those that are meant."""
    ports = sorted({place["port"] for place in places})
    if port is None and len(ports) > 1:
        raise UsageError(
            "several services run", hint=f"--port takes one of {', '.join(map(str, ports))}"
        )
    version = ipaddress.ip_address(address).version if address else None
    for place in places:
        own = ipaddress.ip_address(place["address"])
        if (
            port in (None, place["port"])
            and to in (None, place["address"])
            and interface in (None, place["interface"])
            and version in (None, own.version)
            and (version or to or not own.is_link_local)
        ):
            return place
    known = ", ".join(
        f"{place['address']} port {place['port']} on {place['interface']}" for place in places
    )
    raise UsageError(
        "no service is answered there", hint=f"answered are: {known}" if known else "none is"
    )


def _only(interfaces: Sequence[str]) -> str:
    names = sorted(set(interfaces))
    if len(names) != 1:
        raise UsageError(
            "no interface is named" if names else "no service is answered on any interface",
            hint=f"--interface takes one of {', '.join(names)}" if names else "see carom status",
        )
    return names[0]


def _frame(place: Place, request: str, address: str | None, source_port: int) -> bytes:
    """The request's frame, as a client's would come in."""
    from carom.protocols import SPECS

    spec = SPECS[place["protocol"]]
    payload = _unhex(request) if request.startswith("0x") else spec.asking(os.fsencode(request))
    if payload and len(payload) > _PAYLOAD_MAX:
        raise UsageError(f"a request of {len(payload)} bytes is too long", hint="at most 1,472")
    if payload is None:
        raise UsageError(
            f"{request!r} asks for nothing in {spec.name}", hint="carom why --help has examples"
        )
    own = ipaddress.ip_address(place["address"])
    neighbour = own + 1 if int(own) % 256 < 254 else own - 1
    asks = ipaddress.ip_address(address) if address else neighbour
    macs = place["from_mac"] or _SOMEBODY, place["mac"]
    return request_frame(payload, (asks, source_port), (own, place["port"]), macs, place["tags"])


def _unhex(text: str | None) -> bytes:
    try:
        return bytes.fromhex((text or "").removeprefix("0x"))
    except ValueError as error:
        raise UsageError(f"{text!r} is not hexadecimal", hint="for example 0x0a1b") from error


def _show(frame: bytes, interface: str, walks: Sequence[dict[str, Any]]) -> None:
    from carom.daemon.remedies import STOPS
    from carom.kernel.abi import Stop

    print(f"{len(frame)} bytes in by {interface}: {summary(frame)}")
    if not walks:
        print("the kernel does not take this as a frame")
    for walk in walks:
        table = new_table(f"at {walk['hook'].upper()}", "is it ...?", "")
        for stop, verdict in walk["stops"].items():
            shown = "yes" if verdict == "passed" else verdict.replace("_", " ")
            table.add_row(stop.replace("_", " "), STOPS[Stop[stop.upper()]], shown)
        show_table(table)
        print(f"{walk['verdict'].replace('_', ' ')}: {walk['what']}")
        if walk["change"]:
            print(f"what would change it: {walk['change']}")
        if walk["reply"]:
            print(f"the reply: {summary(bytes.fromhex(walk['reply']))}")
