# SPDX-License-Identifier: Apache-2.0
"""The programs of a route: their layouts are those that userspace has, and all of them load."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from carom.kernel import btf, libbpf
from carom.kernel.bpf import Module
from carom.routes import programs
from carom.routes.programs import Policy, Why
from carom.vm.namespace import Namespace
from prog.test_abi import pythons
from prog.test_verified import VERIFIED_MAX, leeway


@pytest.fixture(scope="module")
def module() -> Iterator[Module]:
    """All programs, loaded."""
    with Module(programs.recipe()) as module:
        module.load(programs._ATTACHED)
        yield module


def fields(module: Module, name: str, side: str) -> dict[str, tuple[int, int]]:
    """Offset and size of each field of a map's keys or values, by the object's own types."""
    compiled = module._compiled
    types = btf.all_types(compiled.btf)
    number = getattr(compiled.maps[name], f"{side}_type")
    starts = [
        (btf.name(compiled.btf, at), kind, bit // 8) for at, kind, bit in types[number].parts()
    ]
    return {name: (start, btf.size(types, kind)) for name, kind, start in starts}


REFUSED = 8 * len(programs.Why)


@pytest.mark.parametrize(
    ("table", "side", "packed", "layout", "names"),
    [
        (
            *("policies", "value", programs._POLICY, programs._POLICY.format),
            "netns mark ifindex flags dns4 dns6 from4 from6",
        ),
        (
            *("sockets", "value", programs._LED, programs._LED.format),
            "cookie maker asked4 asked6",
        ),
        (
            *("processes", "value", programs._PROCESS, f"=16s4I6Q{REFUSED}s"),
            "name uid ifindex strayed zero opened closed out_packets out_bytes in_packets in_bytes "
            "refused",
        ),
        ("lans", "key", programs._LAN, programs._LAN.format, "bits words"),
    ],
)
def test_layouts(
    module: Module, table: str, side: str, packed: struct.Struct, layout: str, names: str
) -> None:
    """An array is one field of bytes in `layout`, which is as long as what is `packed`."""
    shape = module._compiled.maps[table]
    assert getattr(shape, f"{side}_size") == packed.size == struct.calcsize(layout)
    expected = dict(zip(names.split(), pythons(struct.Struct(layout)), strict=True))
    assert fields(module, table, side) == expected


def test_sizes_of_maps(module: Module) -> None:
    sizes = {"policies": 2, "chosen": 1, "processes": 4096, "refusals": len(programs.Why)}
    found = module._compiled.maps
    assert {name: found[name].max_entries for name in sizes} == sizes


def test_all_are_loaded_and_attached(module: Module) -> None:
    assert module.programs() == programs._ATTACHED.keys()


def test_no_program_comes_near_the_limit(module: Module) -> None:
    most = leeway(module._compiled.compiler) * VERIFIED_MAX
    walked = {
        name: libbpf.verified_instructions(module.program(name)) for name in programs._ATTACHED
    }
    print(walked)  # for whoever makes one longer
    assert all(walked.values())
    assert {name: count for name, count in walked.items() if count > most} == {}


@pytest.fixture(scope="module")
def ways() -> Iterator[tuple[Namespace, int, int]]:
    """A network namespace, the interface that is led by, and another one."""
    with Namespace("ways") as namespace:
        namespace.run("ip", "link", "add", "tun0", "type", "veth", "peer", "name", "eth0")
        index, other = (
            namespace.call(lambda name=name: socket.if_nametoindex(name))  # type: ignore[misc]
            for name in ("tun0", "eth0")
        )
        yield namespace, index, other


def frame(source: str) -> bytes:
    """A packet from an address, behind a link's header."""
    address = ipaddress.ip_address(source)
    if address.version == 4:
        return bytes(12) + b"\x08\0\x45" + bytes(11) + address.packed + bytes(24)
    return bytes(12) + b"\x86\xdd\x60" + bytes(7) + address.packed + bytes(36)


SOURCES = ("198.18.2.1", "198.18.2.9", "2001:db8:2::1")
FULL = tuple(f"198.18.3.{n}" for n in range(1, 17)) + tuple(
    f"2001:db8:3::{n}" for n in range(1, 17)
)
MANY = (
    *FULL,
    *(f"198.18.4.{n}" for n in range(1, 200)),
    *(f"2001:db8:4::{n:x}" for n in range(1, 200)),
)
LET_OUT = None


@pytest.mark.parametrize(
    ("source", "by", "flags", "sources", "why"),
    [
        ("198.18.2.1", "tun0", 0, SOURCES, LET_OUT),
        ("198.18.2.9", "tun0", 0, SOURCES, LET_OUT),
        ("2001:db8:2::1", "tun0", 0, SOURCES, LET_OUT),
        ("fe80::1", "tun0", 0, SOURCES, LET_OUT),
        ("198.18.2.1", "eth0", 0, SOURCES, Why.STRAY),
        ("2001:db8:2::1", "eth0", 0, SOURCES, Why.STRAY),
        ("fe80::1", "eth0", 0, SOURCES, Why.STRAY),
        ("198.18.1.1", "tun0", 0, SOURCES, Why.SOURCE),
        ("198.18.2.1", "tun0", 0, (), Why.SOURCE),
        ("2001:db8:1::1", "tun0", 0, SOURCES, Why.SOURCE),
        ("2001:db8:2::2", "tun0", 0, SOURCES, Why.SOURCE),
        ("fec0::1", "tun0", 0, SOURCES, Why.SOURCE),
        ("0.0.0.0", "tun0", 0, SOURCES, Why.SOURCE),
        ("::", "tun0", 0, SOURCES, Why.SOURCE),
        ("2001:db8:2::1", "tun0", programs.NO_IPV6, SOURCES, Why.IPV6),
        ("198.18.2.1", "tun0", programs.NO_IPV6, SOURCES, LET_OUT),
        *((source, "tun0", 0, FULL, LET_OUT) for source in (FULL[0], FULL[15], FULL[16], FULL[31])),
        *((source, "tun0", 0, MANY, LET_OUT) for source in (MANY[0], MANY[32], MANY[-1])),
        ("198.18.4.250", "tun0", 0, MANY, Why.SOURCE),
        ("::ffff:198.18.4.250", "tun0", 0, MANY, Why.SOURCE),
        ("2001:db8:4::fa", "tun0", 0, MANY, Why.SOURCE),
        (MANY[-1], "eth0", 0, MANY, Why.STRAY),
        ("0.0.0.0", "tun0", 0, MANY, Why.SOURCE),
        ("198.18.4.1", "tun0", 0, FULL, Why.SOURCE),
    ],
)
def test_what_leaves(
    module: Module,
    ways: tuple[Namespace, int, int],
    source: str,
    by: str,
    flags: int,
    sources: tuple[str, ...],
    why: Why | None,
) -> None:
    namespace, index, other = ways
    maps = programs.Maps(module.maps())
    own = tuple(map(ipaddress.ip_address, sources))
    maps.say(Policy(1, 1, index, flags, (), own))
    counted = maps.refused()
    at = index if by == "tun0" else other
    result = namespace.call(
        lambda: libbpf.test_run(module.program("route_out"), frame(source), tc_ifindex=at)
    )
    refused = {one: count - counted[one] for one, count in maps.refused().items()}
    assert {one for one, count in refused.items() if count} == ({why} if why is not None else set())
    assert bool(result.retval) == (why is None)


@pytest.mark.parametrize("sources", [(), SOURCES, FULL, MANY])
def test_a_policy_is_read_as_it_was_said(module: Module, sources: tuple[str, ...]) -> None:
    maps = programs.Maps(module.maps())
    said = Policy(1, 1, 5, programs.LAN, (), tuple(map(ipaddress.ip_address, sources)))
    maps.say(said)
    found = maps.policy()
    assert {*found.sources} == {*said.sources}
    assert found._replace(sources=said.sources) == said


def test_no_address_is_refused_in_a_change(
    module: Module, ways: tuple[Namespace, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that the interface has before and after leaves at each step, in whichever place it is."""
    namespace, index, _ = ways
    maps = programs.Maps(module.maps())
    stays, *gone = FULL[:16] + MANY[32:48]
    before = Policy(1, 1, index, 0, (), tuple(map(ipaddress.ip_address, (*gone, stays))))
    after = before._replace(sources=(ipaddress.ip_address(stays),))
    steps: list[int] = []

    def leaves() -> int:
        ran = libbpf.test_run(module.program("route_out"), frame(stays), tc_ifindex=index)
        return ran.retval

    def looked(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*words: Any) -> Any:
            found = change(*words)
            steps.append(namespace.call(leaves))
            return found

        return changed

    maps.say(before)
    for name in ("update", "delete"):
        monkeypatch.setattr(libbpf, name, looked(getattr(libbpf, name)))
    for policy in (after, before, after):
        maps.say(policy)
    assert len(steps) > 16
    assert all(steps)


def test_without_a_policy_nothing_leaves(ways: tuple[Namespace, int, int]) -> None:
    namespace, index, _ = ways
    with Module(programs.recipe()) as module:
        program = module.program("route_out")
        for source in SOURCES:
            result = namespace.call(
                lambda source=source: libbpf.test_run(program, frame(source), tc_ifindex=index)  # type: ignore[misc]
            )
            assert result.retval == 0
