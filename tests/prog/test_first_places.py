# SPDX-License-Identifier: Apache-2.0
"""Programs for IPv6 and for tagged frames come with the first place that needs them."""

from __future__ import annotations

import ipaddress

import pytest

from carom.daemon.fastpath import FastPath
from carom.kernel.abi import Hook, Verdict
from prog.host import Host, Setting, passed
from prog.packets import PLAIN, WIRES, Wire

OTHERS = [wire for wire in WIRES if wire != PLAIN]
QUESTION, ANSWER = b"question", b"answer"


def step(wire: Wire) -> str:
    return "other" if wire.tags else "ipv6"


@pytest.mark.parametrize("hook", list(Hook), ids=lambda hook: hook.name.lower())
@pytest.mark.parametrize("wire", OTHERS, ids=str)
def test_it_comes_with_the_first_place(hook: Hook, wire: Wire) -> None:
    """Before, such a request passes, and is told of as one that is for nobody's address."""
    with FastPath(hooks=(hook,), test_clock=True) as fastpath:
        name = f"{hook.name.lower()}_{step(wire)}"
        plain = Host(fastpath, Setting(hook))
        assert name not in fastpath._module._programs
        frame = wire.request(QUESTION)
        assert plain.run(frame) == passed(Verdict.PASS_SERVICE, frame)
        (stray,) = fastpath.strays().values()
        assert (stray.address, stray.seen) == (ipaddress.ip_address(wire.host), 1)
        host = Host(fastpath, Setting(hook, wire))
        assert name in fastpath._module._programs
        host.fill(QUESTION, ANSWER)
        assert host.run(frame) == host.hit(ANSWER)


@pytest.mark.parametrize("wire", OTHERS, ids=str)
def test_what_is_no_request_is_counted_as_ever(wire: Wire) -> None:
    with FastPath(hooks=(Hook.XDP,), test_clock=True) as fastpath:
        host = Host(fastpath)
        frame = wire.request(QUESTION)
        cut = frame[: len(frame) - len(QUESTION) - 1]
        assert host.run(cut) == passed(Verdict.PASS_TRUNCATED, cut)
        assert host.run(wire.request(b"", udp={"dport": 9})).verdict is Verdict.PASS_SERVICE


def test_where_xdp_is_first_tc_stores_nothing() -> None:
    """It has only what XDP hands over, which has stored what waits."""
    with FastPath(hooks=(Hook.XDP,)) as at_xdp, FastPath(hooks=(Hook.TC,)) as at_tc:
        assert "tc_store" not in at_xdp._module._programs
        assert {"tc_store", "xdp_store"} <= at_tc._module._programs.keys()
        assert "xdp_fastpath" not in at_tc._module._programs
