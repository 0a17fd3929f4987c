# SPDX-License-Identifier: Apache-2.0
"""The programs that count what leaves by an interface: they decide nothing."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from carom.kernel import libbpf, netns
from carom.kernel.bpf import Module
from carom.routes import account
from carom.vm.namespace import Namespace
from prog.test_abi import pythons
from prog.test_routes import fields, frame
from prog.test_verified import VERIFIED_MAX, leeway

GO_ON = 0xFFFFFFFF
"""TC_ACT_UNSPEC."""


@pytest.fixture
def module() -> Iterator[Module]:
    with Module(account.recipe()) as module:
        module.load(account._HOOKS)
        yield module


def test_layouts(module: Module) -> None:
    """A socket's maker is one field of bytes here."""
    layout = struct.Struct("=40sQQ")
    assert module._compiled.maps["sent_by"].value_size == layout.size == account._SENT.size
    assert module._compiled.maps["counted"].value_size == account._INTERFACE.size
    expected = dict(zip(("maker", "packets", "bytes"), pythons(layout), strict=True))
    assert fields(module, "sent_by", "value") == expected


def test_no_program_comes_near_the_limit(module: Module) -> None:
    most = leeway(module._compiled.compiler) * VERIFIED_MAX
    walked = {name: libbpf.verified_instructions(module.program(name)) for name in account._HOOKS}
    assert all(0 < count < most for count in walked.values()), walked


@pytest.mark.parametrize("source", ["198.18.2.1", "2001:db8:2::1"])
@pytest.mark.parametrize("length", [40, 60, 1400])
def test_it_decides_nothing(module: Module, source: str, length: int) -> None:
    """Whatever it sees, and of whichever interface."""
    packet = frame(source)[:14] + bytes(length)
    with Namespace("counted") as namespace:
        namespace.up("lo")
        for program, verdict in (("account_at_tc", GO_ON), ("account_at_group", 1)):
            ran = namespace.call(
                lambda program=program: libbpf.test_run(  # type: ignore[misc]
                    module.program(program), packet, tc_ifindex=1
                )
            )
            assert ran.retval == verdict
            if program == "account_at_tc":  # a group's packets have no link's header
                assert ran.data == packet


@pytest.mark.parametrize(("index", "counts"), [(1, True), (2, False)])
def test_a_group_counts_one_interface(module: Module, index: int, counts: bool) -> None:
    before = sent(module)
    with Namespace("counted") as namespace:
        namespace.up("lo")
        interface = account._INTERFACE.pack(namespace.call(netns.own_cookie), index)
        libbpf.update(module.map("counted"), bytes(4), interface)
        namespace.call(
            lambda: libbpf.test_run(
                module.program("account_at_group"), frame("198.18.2.1"), tc_ifindex=1
            )
        )
    assert sent(module) - before == counts


def sent(module: Module) -> int:
    """How many packets were counted."""
    found = 0
    for count, _, packed in libbpf.batches(module.map("sent_by"), 8, account._SENT.size):
        for n in range(count):
            found += account._SENT.unpack_from(packed, n * account._SENT.size)[5]
    return found
