# SPDX-License-Identifier: Apache-2.0
"""Programs that send all they can while their interface comes and goes: nothing leaves by another.

What a route is made of is left out piece by piece, and then something must: so the test sees it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from carom.routes import leading
from carom.routes.route import Route
from netns.process import CAROM, until
from netns.routed import NOBODY, Routed, Running, by, own, router

SHORT, LONG = 4.0, 30.0
"""Seconds of each storm."""
FEWEST = 200
"""Packets by the interface below which a storm was none."""
PAUSE = 0.1

Act = Callable[[Routed, str, Running], None]


@pytest.fixture(scope="module")
def all_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routed]:
    with Routed(tmp_path_factory.mktemp("storm")) as hosts:
        yield hosts


@pytest.fixture
def hosts(all_hosts: Routed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Routed]:
    """The same hosts for all; here routes are changed by this process, too."""
    monkeypatch.setenv("CAROM_RUN", all_hosts.variables["CAROM_RUN"])
    all_hosts.told()
    yield all_hosts
    all_hosts.check_clean()


def flaps(hosts: Routed, name: str, keeper: Running) -> None:
    """Down and up again."""
    hosts.down("tun0")
    time.sleep(PAUSE)
    hosts.up("tun0")
    time.sleep(PAUSE)


def is_remade(hosts: Routed, name: str, keeper: Running) -> None:
    """Deleted, and made anew."""
    hosts.remove("tun0")
    time.sleep(PAUSE)
    hosts.make("tun0")
    time.sleep(2 * PAUSE)


def changes(hosts: Routed, name: str, keeper: Running) -> None:
    """Another one, and this one again."""
    for way in ("tun1", "tun0"):
        route = Route(via=way, gateway=router(way))
        hosts.host.call(lambda route=route: leading.change(name, route))  # type: ignore[misc]


def loses_its_keeper(hosts: Routed, name: str, keeper: Running) -> None:
    """Its keeper is killed, and it comes and goes."""
    time.sleep(PAUSE)
    keeper.kill()
    flaps(hosts, name, keeper)


def storm(
    hosts: Routed, act: Act, seconds: float, program: Sequence[str] = CAROM
) -> tuple[int, int]:
    """Packets by eth0 and by tunnels, of programs whose interface has this done to it."""
    name = hosts.name("storm")
    gateways = ", ".join(f'"{one}"' for one in router("tun0"))
    config = hosts.file({name: f'via = "tun0"\ngateway = [{gateways}]'})
    with (
        hosts.started(name, config, program) as keeper,
        hosts.led("storm", "3", route=(name, *NOBODY)) as led,
    ):
        hosts.told()
        counts = {"eth0": 0, "tun0": 0, "tun1": 0}

        def count() -> int:
            seen = {way: sum(found.values()) for way, found in hosts.seen().items()}
            for way in counts:
                counts[way] += seen.get(way, 0)
            return sum(seen.values())

        end = time.monotonic() + seconds
        while time.monotonic() < end:
            act(hosts, name, keeper)
            count()
        assert led.end().code == 0
        until(lambda: not count(), "that the last one has left")
        hosts.done("stop", name, "--kill")
    return counts["eth0"], counts["tun0"] + counts["tun1"]


@pytest.mark.slow
@pytest.mark.parametrize("act", [flaps, is_remade, changes, loses_its_keeper])
def test_nothing_leaves_by_another_interface(hosts: Routed, long_form: bool, act: Act) -> None:
    astray, led = storm(hosts, act, LONG if long_form else SHORT)
    print(f"{astray} of {led}")
    assert led > FEWEST
    assert astray == 0


# What must be seen.

NO_SWITCH = """
from carom.kernel.recipe import Recipe
from carom.routes import programs
file = programs._HERE / "lead.c"
before, function, after = file.read_text().partition("static __always_inline int refuse_packet")
broken = before + function + after.replace("return refuse(process, why);", "return 1;", 1)
assert function and broken != file.read_text()
words = dict(include=(programs._HERE,), hooks=programs._ATTACHED)
programs.recipe = lambda: Recipe(file, written={"lead.c": broken}, **words)
"""
NO_UNREACHABLE = """
from carom.routes import tables
class Without:
    def __init__(self, asked):
        self.asked = asked
    def route(self, *words, **more):
        if more.get("type") != "unreachable":
            self.asked.route(*words, **more)
fill = tables._fill
tables._fill = lambda asked, *words: fill(Without(asked), *words)
"""
NO_SOURCES = """
from carom.routes import tables
tables.sourced = lambda *words: []
"""


def without(*parts: str) -> list[str]:
    """carom, but for some of what routes are made of."""
    text = "\n".join((*parts, "from carom.cli import main", "main()"))
    return [sys.executable, "-P", "-c", text]


@pytest.mark.slow
@pytest.mark.parametrize(
    "parts",
    [
        pytest.param((NO_SWITCH, NO_UNREACHABLE), id="no switch, no unreachable"),
        pytest.param((NO_UNREACHABLE,), id="no unreachable"),
        pytest.param((NO_SOURCES,), id="no rules by source"),
    ],
)
def test_a_part_that_is_left_out_is_seen(hosts: Routed, parts: tuple[str, ...]) -> None:
    for _ in range(5):  # it is a matter of what is on its way when the interface goes
        astray, led = storm(hosts, flaps, SHORT, without(*parts))
        print(f"{astray} of {led}")
        if astray:
            break
    assert astray


def test_a_switch_that_is_left_out_is_seen(hosts: Routed) -> None:
    """Rules alone lead who does not mean to get out."""
    route = (*by("tun0"), "--user", "0", "--keep-rights")
    words = (own("eth0")[0], router("eth0")[0])
    told = hosts.run("escapes", *words, route=route, program=without(NO_SWITCH))
    assert own("eth0")[0] in told.values()
    assert hosts.seen()["eth0"]
