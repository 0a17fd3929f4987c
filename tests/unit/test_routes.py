# SPDX-License-Identifier: Apache-2.0
"""What routes are, before anything is done in the kernel: the file, marks, records, and the order
of changes."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carom.errors import CaromError, ConfigurationError, UsageError
from carom.kernel import netns
from carom.route_file import read
from carom.routes import leading, lost, programs, records, tables
from carom.routes.lost import Lost
from carom.routes.programs import FURTHER, LAN, NO_IPV6, OTHER_NETNS, Policy, Why
from carom.routes.records import Record
from carom.routes.route import MASK, Mark, Route, check_name, checked, leads_ipv6, table_of
from carom.routes.tables import FAMILIES, GONE, OWNER, Link, Rule, Table, Tables

V4, V6 = FAMILIES

# The file.


def written(folder: Path, text: str) -> Path:
    """A file with this text."""
    path = folder / "routes.toml"
    path.write_text(text)
    return path


def test_a_file(tmp_path: Path) -> None:
    text = """
        [route.private]
        via = "wg0"
        dns = ["10.64.0.1", "2001:db8::53"]
        ipv6 = "refuse"
        other_netns = "allow"
        [route."office.2"]
        via = "tun1"
        gateway = ["198.18.3.2", "2001:db8:3::2"]
        table = 51820
        [marks]
        mask = 0x3f0000
    """
    policy = read(written(tmp_path, text))
    assert policy.marks == Mark(0x3F0000)
    assert policy.routes == {
        "private": Route(
            "wg0", dns=("10.64.0.1", "2001:db8::53"), ipv6="refuse", other_netns="allow"
        ),
        "office.2": Route("tun1", gateway=("198.18.3.2", "2001:db8:3::2"), table=51820),
    }


def test_an_empty_file(tmp_path: Path) -> None:
    policy = read(written(tmp_path, ""))
    assert (policy.routes, policy.marks.mask) == ({}, MASK)


WRONG = {
    '[route.a]\nvia = "tun0"\nvai = 1': "3: route.a.vai: there is no such key",
    "[route.a]": "1: route.a: it has no interface",
    "[route.a]\nvia = 1": "2: route.a.via: Expected `str`",
    '[route.a]\nvia = ""': "2: route.a.via: ''",
    '[route.a]\nvia = "a-name-of-16-byt"': "2: route.a.via: 'a-name-of-16-byt'",
    '[route.a]\nvia = "a/b"': "2: route.a.via: 'a/b'",
    '[route.a]\nvia = "tün"': "2: route.a.via: 'tün'",
    '[route.a]\nvia = "lo"': "2: route.a.via: lo leads nowhere",
    '[route.a]\nvia = "t"\ndns = "1.1.1.1"': "3: route.a.dns: Expected `array`",
    '[route.a]\nvia = "t"\ndns = ["one"]': "3: route.a.dns: 'one' is no IP address",
    '[route.a]\nvia = "t"\ndns = ["1.1.1.1", "1.0.0.1"]': "3: route.a.dns: one address of a fam",
    '[route.a]\nvia = "t"\ngateway = ["::1", "x"]': "3: route.a.gateway: 'x' is no IP address",
    '[route.a]\nvia = "t"\nipv6 = "maybe"': "3: route.a.ipv6: .*'maybe'",
    '[route.a]\nvia = "t"\nother_netns = "x"': "3: route.a.other_netns: .*'x'",
    '[route.a]\nvia = "t"\nlan = "x"': "3: route.a.lan: .*'x'",
    '[route.a]\nvia = "t"\nresolver_sockets = "x"': "3: route.a.resolver_sockets: .*'x'",
    '[route.a]\nvia = "t"\ntable = "x"': "3: route.a.table: Expected `int",
    '[route.a]\nvia = "t"\ntable = 0': "3: route.a.table: 0 is no number",
    '[route.a]\nvia = "t"\ntable = 4294967296': "3: route.a.table: 4294967296 is no number",
    '[route."-a"]\nvia = "t"': "1: route.-a: '-a' cannot be a route's name",
    '[route."a/b"]\nvia = "t"': "1: route.*a/b.*: 'a/b' cannot be",
    "route = 1": "1: route: a table is needed",
    "[route]\na = 1": "2: route.a: a table is needed",
    "marks = 1": "1: marks: a table is needed",
    "[marks]\nmaks = 1": "2: marks.maks: there is no such key",
    "[marks]\nmask = 0": "2: marks.mask: 0",
    "[marks]\nmask = 5": "2: marks.mask: 5 is no run of bits",
    "[marks]\nmask = 4294967296": "2: marks.mask: 4294967296",
    "[marks]\nmask = -1": "2: marks.mask: -1",
    '[marks]\nmask = "x"': "2: marks.mask: 'x'",
    "[marks]\nmask = 1.5": "2: marks.mask: 1.5",
    "[marks]\nmask = true": "2: marks.mask: True",
    "[marks]\nmask = []": r"2: marks.mask: \[\]",
    "\n[routes.a]": "2: routes: there is no such table",
    "[route.a": "1: it is not TOML",
}


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_in_a_file(tmp_path: Path, text: str) -> None:
    """Each by its line and its key."""
    with pytest.raises(ConfigurationError) as caught:
        read(written(tmp_path, text))
    assert re.search(rf"/routes\.toml:{WRONG[text]}", str(caught.value)), caught.value


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    text = '[route.a]\nvia = "lo"\ndns = ["x"]\n[route.b]\n[marks]\nmask = 0\n[more]\n'
    with pytest.raises(ConfigurationError) as caught:
        read(written(tmp_path, text))
    keys = [line.split(": ")[1] for line in str(caught.value).splitlines()]
    assert keys == ["route.a.via", "route.a.dns", "route.b", "marks.mask", "more"]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read(tmp_path / "nope.toml")
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="it is not UTF-8"):
        read(path)


def test_a_route_of_options() -> None:
    route = Route("tun0", dns=("1.1.1.1",))
    assert checked(route) is route
    with pytest.raises(UsageError, match=r"via: lo.*dns: 'x'"):
        checked(Route("lo", dns=("x",)))


# Names, marks and numbers.


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "0", "x" * 48, "tun0-4194304"])
def test_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", ".", "..", ".a", "a/b", "a b", "ä", "x" * 49, "a\n"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a route's name"):
        check_name(name)


@given(st.integers(0, 31), st.integers(1, 32), st.data())
def test_marks(low: int, width: int, data: st.DataObject) -> None:
    """Each number has its own within the mask, and is never 0, which is nobody's."""
    width = min(width, 32 - low)
    mark = Mark(((1 << width) - 1) << low)
    assert mark.numbers == (1 << width) - 1
    one, other = (data.draw(st.integers(1, mark.numbers)) for _ in range(2))
    assert 0 < mark.of(one) <= mark.mask
    assert mark.of(one) & ~mark.mask == 0
    assert (mark.of(one) == mark.of(other)) == (one == other)


@given(st.text(min_size=1, max_size=15))
def test_numbers_of_tables(via: str) -> None:
    """No table that others use."""
    assert 51_820_000 <= table_of(via) < 51_830_000


def test_whether_ipv6_is_led() -> None:
    for ipv6, has, led in (
        ("auto", True, True),
        ("auto", False, False),
        ("lead", False, True),
        ("refuse", True, False),
    ):
        assert leads_ipv6(Route("t", ipv6=ipv6), has) is led  # type: ignore[arg-type]


# What programs are told.

ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).filter(
    lambda one: not one.is_unspecified
)


@given(st.lists(ADDRESSES, max_size=40), st.integers(0, 2**32 - 1))
def test_a_policy(sources: list[Any], index: int) -> None:
    """It has the first of each family's addresses, then zeros; others are apart."""
    resolver = ipaddress.ip_address("10.0.0.1")
    said = Policy(7, 5, index, NO_IPV6 | OTHER_NETNS, (resolver,), tuple(sources))
    packed = said.packed()
    four, six = (
        [one.packed for one in sources if one.version == version][: programs.ADDRESSES_MAX]
        for version in (4, 6)
    )
    further = said.further()
    assert len(further) == len(sources) - len(four) - len(six)
    assert all(len(one) == 16 for one in further)
    flags = NO_IPV6 | OTHER_NETNS | FURTHER * bool(further)
    assert (
        packed[:24]
        == b"".join(
            (number.to_bytes(size, "little"))
            for number, size in ((7, 8), (5, 4), (index, 4), (flags, 4))
        )
        + resolver.packed
    )
    assert packed[24:40] == bytes(16)
    assert packed[40:104] == b"".join(four).ljust(64, b"\0")
    assert packed[104:] == b"".join(six).ljust(256, b"\0")


def test_reasons_are_those_of_the_programs() -> None:
    text = (Path(programs.__file__).resolve().parent / "lead.h").read_text()
    theirs = dict(re.findall(r"^\tWHY_(\w+) = (\d+),", text, re.MULTILINE))
    assert {why.name: str(why.value) for why in Why} == theirs
    flags = dict(re.findall(r"^\tROUTE_(\w+) = (\d+),", text, re.MULTILINE))
    assert flags == {
        "NO_IPV6": str(NO_IPV6),
        "OTHER_NETNS": str(OTHER_NETNS),
        "LAN": str(LAN),
        "FURTHER": str(FURTHER),
    }
    assert f"#define ADDRESSES_MAX {programs.ADDRESSES_MAX} " in text
    assert f"#define FURTHER_MAX {programs.FURTHER_MAX} " in text


# Records.


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where records are."""
    monkeypatch.setenv("CAROM_RUN", str(tmp_path))
    return tmp_path / "routes"


def record(name: str = "one", number: int = 1, via: str = "tun0", **route: Any) -> Record:
    """A route that is up."""
    used = {via: route.get("gateway", ())}
    return Record(name, netns.own_cookie(), 1, number, MASK, Route(via, **route), used)


def test_records(folder: Path) -> None:
    assert records.all_of_them() == []
    assert records.find("one") is None
    one, other = record("one"), record("a.b", 2, dns=("1.1.1.1",))
    records.write(one)
    records.write(other)
    assert records.all_of_them() == [other, one]
    assert records.find("one") == one
    assert records.free_number(Mark()) == 3
    records.write(record("one", 9))
    assert [found.number for found in records.all_of_them()] == [2, 9]
    assert records.free_number(Mark()) == 1
    records.remove("one")
    records.remove("one")
    assert records.all_of_them() == [other]


def test_all_numbers_are_taken() -> None:
    mark = Mark(0x3000)
    for number in range(1, 4):
        records.write(record(f"r{number}", number))
    with pytest.raises(UsageError, match="all 3 marks"):
        records.free_number(mark)


@pytest.mark.parametrize("damage", [b"", b"{", b'{"name": 1}', b"\xff", b"[]"])
def test_a_record_that_is_damaged(folder: Path, damage: bytes) -> None:
    records.write(record())
    (folder / "one.json").write_bytes(damage)
    with pytest.raises(CaromError, match=r"one\.json cannot be read"):
        records.find("one")


def test_a_record_that_is_half_written(folder: Path) -> None:
    """By one that was killed: the one before is there."""
    records.write(record())
    (folder / "one.new").write_bytes(b"{")
    assert records.all_of_them() == [record()]
    records.write(record("one", 2))
    assert [path.name for path in folder.iterdir()] == ["one.json"]


def test_one_at_a_time() -> None:
    with records.locked():
        reads, writes = os.pipe()
        pid = os.fork()
        if not pid:
            with records.locked():
                os.write(writes, b"theirs")
            os._exit(0)
        os.set_blocking(reads, False)
        with pytest.raises(BlockingIOError):
            os.read(reads, 9)
        os.set_blocking(reads, True)
    os.waitpid(pid, 0)
    assert os.read(reads, 9) == b"theirs"
    os.close(reads)
    os.close(writes)


def test_a_lock_that_is_a_link(folder: Path, tmp_path: Path) -> None:
    """Nobody has carom write elsewhere."""
    folder.mkdir()
    (folder / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CaromError, match="cannot be opened"), records.locked():
        pass
    assert not (tmp_path / "elsewhere").exists()


# Rules and tables.


def addresses(*texts: str) -> tuple[Any, ...]:
    """These."""
    return tuple(map(ipaddress.ip_address, texts))


def test_rules() -> None:
    assert {rule.family for rule in tables.marked(1, 3, 7)} == {*FAMILIES}
    assert [
        (rule.family, rule.source)
        for rule in tables.sourced(addresses("10.0.0.1", "2001:db8::1", "fe80::1"), 7)
    ] == [(V4, "10.0.0.1"), (V6, "2001:db8::1")]
    (rule,) = tables.endpoints(["198.18.1.2", "0.0.0.0", "239.1.1.1", "ff02::1"], 1, 3)
    assert (rule.destination, rule.table) == ("198.18.1.2", 254)
    priorities = [
        rule.priority
        for rule in (rule, *tables.marked(1, 3, 7), *tables.sourced(addresses("::2"), 7))
    ]
    assert priorities == sorted(priorities)
    assert 0 < min(priorities) <= max(priorities) < 32766, "behind local, before main"


class Attributes(dict[str, Any]):
    """A message of pyroute2's, as far as it is read here."""

    def get_attr(self, name: str) -> Any:
        """One, or None."""
        return self.get(name)


def _bits(words: dict[str, Any]) -> int:
    length: int = words.get("dst_len", 0)
    return 0 if length in (32, 128) else length


class Kernel:
    """What would be done to rules and tables, in its order."""

    def __init__(self) -> None:
        self.rules: dict[Rule, int] = {}
        self.done: list[tuple[str, str, Any]] = []

    def get_rules(self, family: int) -> list[Attributes]:
        """All of a family."""
        return [
            Attributes(
                FRA_PROTOCOL=owner,
                FRA_PRIORITY=rule.priority,
                FRA_TABLE=rule.table,
                FRA_FWMARK=rule.mark,
                FRA_FWMASK=rule.mask,
                FRA_SRC=rule.source,
                FRA_DST=rule.destination,
                dst_len=rule.bits or (32 if family == V4 else 128),
            )
            for rule, owner in self.rules.items()
            if rule.family == family
        ]

    def get_links(self) -> list[Any]:
        """None."""
        return []

    def get_routes(self, **words: Any) -> list[Any]:
        """None; that they were asked for is noted."""
        self.done.append(("empty", str(words["table"]), words["family"]))
        return []

    def route(self, command: str, **words: Any) -> None:
        """A change of a table."""
        kind = words.get("type", "by interface")
        self.done.append((command, kind, words["table"]))

    def rule(self, command: str, protocol: int, **words: Any) -> None:
        """A change of a rule."""
        made = Rule(
            words["family"],
            words["priority"],
            words["table"],
            words.get("fwmark", 0),
            words.get("fwmask", 0),
            words.get("src", ""),
            words.get("dst", ""),
            _bits(words),
        )
        if command == "add":
            self.rules[made] = protocol
        else:
            del self.rules[made]
        kind = "mark" if made.mask and not made.destination else "source"
        self.done.append((command, kind, made.table))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """In the place of this machine's."""
    kernel = Kernel()

    @contextlib.contextmanager
    def route_socket() -> Iterator[Kernel]:
        yield kernel

    monkeypatch.setattr("carom.kernel.netlink.route_socket", route_socket)
    return kernel


def test_what_is_nobodys_must_not_be_removed(kernel: Kernel) -> None:
    theirs = Rule(V4, 100, 254, 1, 0xFF)
    kernel.rules[theirs] = 3
    Tables().remove([])
    assert kernel.rules == {theirs: 3}


def test_a_mask_that_another_looks_at(kernel: Kernel) -> None:
    kernel.rules[Rule(V6, 77, 254, 0x1000000, 0xFF000000)] = 3
    with pytest.raises(UsageError, match="rule 77 looks at marks 0xff000000"):
        Tables().check(MASK)
    Tables().check(0xFF0000)


def test_rules_of_others_that_come_later(kernel: Kernel, interfaces: dict[str, Link]) -> None:
    """Routes that are there lead on, and are taken away."""
    settle(kernel, record())
    theirs = Rule(V6, 77, 254, 0x1000000, 0xFF000000)
    kernel.rules[theirs] = 3
    settle(kernel, record())
    settle(kernel)
    assert {*kernel.rules} == {theirs}


def test_the_record_is_the_last_to_go(
    kernel: Kernel, interfaces: dict[str, Link], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One who is killed before leaves it to the next."""
    records.write(record())
    settle(kernel, record())
    monkeypatch.setattr(records, "remove", lambda name: kernel.done.append(("forget", name, 0)))
    leading._forget("one")
    assert kernel.rules == {}
    assert kernel.done[-1] == ("forget", "one", 0)


def test_the_order_of_a_table(kernel: Kernel) -> None:
    """First of all, nothing: what finds no other way must not find the main table's."""
    Tables().add(tables.marked(1, 3, 7), {7: Table(5, {})})
    assert [step for step in kernel.done if step[1] != "mark"] == [
        ("replace", "unreachable", 7),
        ("replace", "by interface", 7),
    ] * 2
    assert [step[1] for step in kernel.done[-2:]] == ["mark", "mark"]


def test_routers_of_one_family(kernel: Kernel) -> None:
    """Of the other there is nothing but `unreachable`."""
    Tables().add([], {7: Table(5, {V4: "198.18.2.2"})})
    assert [step[1] for step in kernel.done] == ["unreachable", "by interface", "unreachable"]


def test_an_interface_that_is_gone(kernel: Kernel) -> None:
    Tables().add([], {7: Table(0, {V4: "198.18.2.2"})})
    assert [step[1] for step in kernel.done] == ["unreachable", "unreachable"]


class Told:
    """A route's maps: that they were written is a step among the kernel's."""

    def __init__(self, kernel: Kernel):
        self._kernel = kernel
        self.said: list[Policy] = []

    def say_lans(self, networks: list[Any]) -> None:
        """Note it."""
        self._kernel.done.append(("say", "networks", len(networks)))

    def say(self, policy: Policy) -> None:
        """Note it."""
        self.said.append(policy)
        self._kernel.done.append(("say", "policy", policy.ifindex))


@pytest.fixture
def interfaces(monkeypatch: pytest.MonkeyPatch) -> dict[str, Link]:
    """Two that are up."""
    there = {
        "tun0": Link(5, True, addresses("198.18.2.1", "2001:db8:2::1")),
        "tun1": Link(6, True, addresses("198.18.3.1")),
    }
    monkeypatch.setattr(tables, "links", lambda: there)
    return there


def settle(kernel: Kernel, *wanted: Record) -> tuple[Told, list[tuple[str, str, Any]]]:
    """Bring all to what is wanted; what the first route is told, and each step."""
    kernel.done.clear()
    told = Told(kernel)
    maps: Mapping[str, Any] = {wanted[0].name: told} if wanted else {}
    leading._settle(wanted, maps)
    return told, [*kernel.done]


def test_the_order_of_a_start_and_a_stop(kernel: Kernel, interfaces: dict[str, Link]) -> None:
    """Tables, rules by source, the switch, the rules by mark; and all is taken away."""
    told, steps = settle(kernel, record())
    kinds = [kind for _, kind, _ in steps]
    assert kinds.index("unreachable") < kinds.index("source") < kinds.index("policy")
    assert kinds.index("policy") < kinds.index("mark")
    assert told.said[0].ifindex == 5
    assert {*kernel.rules.values()} == {OWNER}
    _, steps = settle(kernel)
    assert kernel.rules == {}
    assert ("empty", str(table_of("tun0")), V4) in steps


def test_the_order_of_a_change(kernel: Kernel, interfaces: dict[str, Link]) -> None:
    """The old rule by mark is the last to go, and the rules by source of the old one stay."""
    settle(kernel, record())
    used: dict[str, tuple[str, ...]] = {"tun0": (), "tun1": ()}
    changed = msgspec.structs.replace(record(), route=Route("tun1"), used=used)
    told, steps = settle(kernel, changed)
    names = [step[:2] for step in steps]
    assert names.index(("add", "source")) < names.index(("say", "policy"))
    assert names.index(("say", "policy")) < names.index(("add", "mark"))
    assert names.index(("add", "mark")) < names.index(("del", "mark"))
    assert ("del", "source") not in names
    assert told.said[0].ifindex == 6
    assert {rule.table for rule in kernel.rules if rule.mask} == {table_of("tun1")}
    assert {rule.source for rule in kernel.rules if rule.source} == {
        "198.18.2.1",
        "2001:db8:2::1",
        "198.18.3.1",
    }


def test_nothing_is_done_where_nothing_changed(kernel: Kernel, interfaces: dict[str, Link]) -> None:
    settle(kernel, record())
    _, steps = settle(kernel, record())
    assert {command for command, *_ in steps} == {"replace", "say"}


def test_rules_of_an_interface_that_is_gone_stay(
    kernel: Kernel, interfaces: dict[str, Link]
) -> None:
    """Its addresses are not known any more, but what comes late for them is answered."""
    settle(kernel, record())
    before = {*kernel.rules}
    del interfaces["tun0"]
    told, _ = settle(kernel, record())
    assert {*kernel.rules} == before
    assert told.said[0].ifindex == 0


def test_rules_of_an_interface_that_is_made_anew_stay(
    kernel: Kernel, interfaces: dict[str, Link]
) -> None:
    """It is there before its addresses are: rules that come after them would come too late."""
    settle(kernel, record())
    before = {*kernel.rules}
    interfaces["tun0"] = Link(9, True, ())
    told, steps = settle(kernel, record())
    assert {*kernel.rules} == before
    assert told.said[0].ifindex == 9
    assert {command for command, *_ in steps} == {"replace", "say"}


def test_rules_of_addresses_that_are_away_for_long_go(
    kernel: Kernel, interfaces: dict[str, Link], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For an hour of the interface without them, which starts anew when they are seen, or when it
    is away itself; and no route keeps what another one lets go."""
    now = 10_000.0
    monkeypatch.setattr(lost.time, "monotonic", lambda: now)
    known, two = Lost(), record("two", 2)
    has, has_not = interfaces["tun0"], Link(5, True, addresses("198.18.2.1"))

    def sources(link: Link) -> int:
        interfaces["tun0"] = link
        leading._settle([record(), two], {}, known)
        return len([rule for rule in kernel.rules if rule.source])

    assert sources(has) == 2
    for link in (has_not, has, has_not, has_not._replace(up=False), has_not, GONE):
        assert sources(link) == 2
        now += lost.STAY - 1
    assert sources(has_not) == 2
    now += 1
    assert sources(has_not) == 1
    assert sources(has) == 2


def test_an_address_that_moves(kernel: Kernel, interfaces: dict[str, Link]) -> None:
    """To an interface that is not led by: its rule is no more."""
    settle(kernel, record())
    interfaces["tun0"] = Link(5, True, addresses("198.18.2.7"))
    interfaces["eth0"] = Link(7, True, addresses("198.18.2.1"))
    settle(kernel, record())
    assert {rule.source for rule in kernel.rules if rule.source} == {"198.18.2.7", "2001:db8:2::1"}


def test_an_interface_that_is_down_is_not_led_by(
    kernel: Kernel, interfaces: dict[str, Link]
) -> None:
    interfaces["tun0"] = interfaces["tun0"]._replace(up=False)
    told, _ = settle(kernel, record())
    assert told.said[0].ifindex == 0


def test_another_route_keeps_what_is_common(kernel: Kernel, interfaces: dict[str, Link]) -> None:
    one, two = record("one", 1), record("two", 2)
    settle(kernel, one, two)
    settle(kernel, two)
    assert {rule.mark for rule in kernel.rules if rule.mask} == {two.mark}
    assert {rule.source for rule in kernel.rules if rule.source} == {"198.18.2.1", "2001:db8:2::1"}


def test_a_table_of_the_users(kernel: Kernel, interfaces: dict[str, Link]) -> None:
    """Nothing is put into it, or taken out."""
    _, steps = settle(kernel, record(table=77))
    assert {rule.table for rule in kernel.rules} == {77}
    assert [step for step in steps if step[1] in ("unreachable", "by interface")] == []
    _, steps = settle(kernel)
    assert kernel.rules == {}
