# SPDX-License-Identifier: Apache-2.0
"""Filters of a user's own: each type of map and of member is shown; what is no filter is refused by
name."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import random
import shutil
import struct
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from carom.errors import BPFError, CaromError, CompileError, ObjectError, UsageError, VerifierError
from carom.filters import own, own_filter
from carom.filters.filter import Filter
from carom.filters.filter import recipe as built_in
from carom.filters.names import PLACES, Place
from carom.filters.own_filter import OwnFilter
from carom.kernel import bpf, elf, libbpf
from prog.test_filters import Judge, SocketJudge, mix

HERE = Path(__file__).parent
EVERY_MAP = HERE / "own_maps.c"
EXAMPLE = HERE.parents[1] / "filters/examples/clients.c"
CLANG = shutil.which("clang")
COMPILERS = ["bcc", pytest.param("clang", marks=pytest.mark.skipif(not CLANG, reason="no clang"))]


@pytest.fixture(params=COMPILERS)
def compiler(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def filters() -> Iterator[Callable[[Place], Filter]]:
    """A filter for each place, which takes own ones."""
    made: dict[Place, Filter] = {}

    def at(place: Place) -> Filter:
        if place not in made:
            made[place] = Filter("simple", place, 1, test_clock=True)
        made[place].clock[0] = 1000
        return made[place]

    yield at
    for one in made.values():
        one.close()


@pytest.fixture
def xdp(filters: Callable[[Place], Filter]) -> Filter:
    return filters("xdp")


@contextlib.contextmanager
def judging(filter: Filter) -> Iterator[Judge | SocketJudge]:
    with (SocketJudge if filter.place == "socket" else Judge)(filter) as judge:
        yield judge
    filter._links.clear()


def shown(filter: Filter, most: int = 1000) -> dict[str, dict[str, Any]]:
    """What is in its maps, as the control socket gives it, by name."""
    told = msgspec.json.decode(msgspec.json.encode(filter.tables(most)))
    return {one["name"]: one for one in told}


def pairs(table: dict[str, Any]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """A map's entries by what their keys say."""
    return {tuple(one["key"].values()): one["value"] for one in table["entries"]}


def mine(filter: Filter) -> OwnFilter:
    assert filter._own
    return filter._own


@pytest.mark.parametrize("place", PLACES)
def test_what_it_counts(filters: Callable[[Place], Filter], compiler: str, place: Place) -> None:
    """Each type of map holds what the program counted, summed over CPUs; records come in order."""
    filter = filters(place)
    filter.load_own(own.made(EVERY_MAP, place, compiler))
    requests = [request for request in mix(5, 60) if len(request) < 200]
    with judging(filter) as judge:
        assert filter.events(100) == []
        for request in requests:
            assert judge.accepts(request, "127.0.0.2") == request.startswith(b"P")
    firsts = [request[0] if request else 0 for request in requests]
    counts = {first: firsts.count(first) for first in firsts}
    maps = shown(filter)
    each = {(first,): {"value": count} for first, count in counts.items()}
    assert pairs(maps["counter_each"]) == each
    assert pairs(maps["counter_long"]) == each, "of a long array what is not zero"
    sizes = {
        first: sum(len(one) for one in requests if (one[0] if one else 0) == first)
        for first in counts
    }
    assert pairs(maps["counter_each_lru"]) == {
        (first,): {"requests": count, "bytes": sizes[first]} for first, count in counts.items()
    }
    assert [one["value"]["value"] for one in maps["counter_cells"]["entries"]] == [
        sum(count for first, count in counts.items() if first & 3 == cell) for cell in range(4)
    ]
    assert pairs(maps["gauge_last"]) == {(): {"value": len(requests[-1])}}
    cpus = pairs(maps["print_cpus"])
    assert len(cpus) == 2 * libbpf.possible_cpus()
    assert sum(one["value"] for one in cpus.values()) == len(requests)
    assert "own_state" not in maps
    room = requests[: len(filter.events(len(requests) - 10)) + 10]
    assert len(room) == len(requests)


def test_records(xdp: Filter, compiler: str) -> None:
    """Those that came before anybody looked are gone; each look takes so many."""
    xdp.load_own(own.made(EVERY_MAP, "xdp", compiler))
    with Judge(xdp) as judge:
        judge.accepts(b"early", "127.0.0.2")
        assert xdp.events(10) == []
        sent = [b"PUT", b"\x1b]0;title\x07<i>", b"\xff\\x\xd0\xb6", b""]
        for request in sent:
            judge.accepts(request, "127.0.0.3")
        found = xdp.events(3) + xdp.events(3) + xdp.events(3)
    assert {one["map"] for one in found} == {"print_happened"}
    assert [one["value"] for one in found] == [
        {"client": "127.0.0.3", "colour": "GREEN", "length": len(request), "text": text}
        for request, text in zip(
            sent, ("PUT", "\\x1b]0;title\\x07<i>", "\\xff\\\\xж", ""), strict=True
        )
    ]


EVERY = struct.Struct("<QqIhB?2s2sIIi4s16s16s6s2sHHHHI8sQB7xQ")


def every(pad: int = 0) -> bytes:
    """A value of struct every."""
    return EVERY.pack(
        2**64 - 1,
        -(2**63),
        2**32 - 1,
        -2,
        255,
        True,
        (51141).to_bytes(2, "big"),
        bytes(2),
        int.from_bytes((7).to_bytes(4, "big"), "little"),
        7,
        -1,
        ipaddress.ip_address("192.0.2.1").packed,
        ipaddress.ip_address("2001:db8::1").packed,
        ipaddress.ip_address("::ffff:198.18.0.1").packed,
        bytes.fromhex("02000000000a"),
        b"\x00\xff",
        1,
        2,
        3,
        4,
        5 | 9 << 3,
        b"a\x00bcdefg",
        0xDEADBEEF,
        6,
        pad,
    )


SAID = {
    "big": 2**64 - 1,
    "below": -(2**63),
    "middle": 2**32 - 1,
    "small_below": -2,
    "small": 255,
    "flag": "true",
    "port": 51141,
    "other_port": 0,
    "order": 7,
    "colour": "GREEN",
    "flavour": "SOUR",
    "near": "192.0.2.1",
    "far": "2001:db8::1",
    "either": "198.18.0.1",
    "station": "02:00:00:00:00:0a",
    "bytes": "0x00ff",
    "inner_one": 1,
    "inner_deeper_two": 2,
    "list_0": 3,
    "list_1": 4,
    "low": 5,
    "high": 9,
    "word": "a",
    "pointer": "0xefbeadde00000000",
    "unnamed": 6,
}


def test_every_member(xdp: Filter, compiler: str) -> None:
    """In a key and in a value; what fills gaps is left out, and what differs in it alone is one."""
    xdp.load_own(own.made(EVERY_MAP, "xdp", compiler))
    loaded = mine(xdp)
    (counted,) = (one for one in loaded.maps if one.name == "counter_every")
    assert counted.shape.key_size == len(every()) == EVERY.size
    numbers = struct.Struct("<QII")
    for gap in range(3):
        libbpf.update(loaded.map("counter_every"), every(gap), numbers.pack(2**63, gap, 77))
    libbpf.update(loaded.map("print_every"), struct.pack("<I", 9), every())
    maps = shown(xdp)
    (entry,) = maps["counter_every"]["entries"]
    assert entry["key"] == SAID
    assert entry["value"] == {"requests": 2**64 - 1, "bytes": 3}, "the largest that JSON has"
    assert pairs(maps["print_every"]) == {(9,): SAID}
    for level, flavour in ((-5, -1), (7, 0), (0, 12)):
        key, value = struct.pack("<i", flavour), struct.pack("<i", level)
        libbpf.update(loaded.map("gauge_level"), key, value)
    assert pairs(shown(xdp)["gauge_level"]) == {
        ("SOUR",): {"value": -5},
        ("SWEET",): {"value": 7},
        ("12",): {"value": 0},
    }


def test_hostile_names(xdp: Filter) -> None:
    """256 bytes of anything: none is a control character, and no two are shown alike."""
    xdp.load_own(own.made(EVERY_MAP, "xdp"))
    draw = random.Random(1)
    names = {b"", b"<script>alert(1)</script>", b"[/x]", b'"quoted"', b"a\\x1b", b"a\x1b", b"\x85"}
    names |= {"\u0085".encode(), "\u202egnp.exe".encode(), b"k" * 256, b"\xff" * 256}
    names |= {bytes(draw.choices(range(1, 256), k=draw.randint(1, 256))) for _ in range(300)}
    for number, name in enumerate(sorted(names)):
        key = name.ljust(256, b"\0")
        libbpf.update(mine(xdp).map("counter_names"), key, struct.pack("<Q", number + 1))
    table = shown(xdp)["counter_names"]
    texts = [one["key"]["text"] for one in table["entries"]]
    assert len(set(texts)) == len(names) == len(texts)
    assert all(text.isprintable() for text in texts)
    assert {"<script>alert(1)</script>", "a\\\\x1b", "a\\x1b", "\\x85", "\\u0085"} < set(texts)


def test_the_largest_are_shown(xdp: Filter, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as are wanted; the rest is counted, as far as it was looked at."""
    xdp.load_own(own.made(EVERY_MAP, "xdp"))
    for number in range(3000):
        key = f"name {number}".encode().ljust(256, b"\0")
        libbpf.update(mine(xdp).map("counter_names"), key, struct.pack("<Q", number))
    table = shown(xdp, 10)["counter_names"]
    assert list(pairs(table)) == [(f"name {number}",) for number in range(2999, 2989, -1)]
    assert (table["left_out"], table["all_seen"]) == (2990, True)
    monkeypatch.setattr(own_filter, "WALK_MAX", 10 * 1000)  # it has ten maps
    table = shown(xdp, 10)["counter_names"]
    assert 990 <= table["left_out"] < 2990
    assert not table["all_seen"]


def test_the_example(filters: Callable[[Place], Filter], compiler: str) -> None:
    """What docs/filters.md shows."""
    for place in PLACES:
        filter = filters(place)
        filter.load_own(own.made(EXAMPLE, place, compiler))
        with judging(filter) as judge:
            filter.events(1)
            verdicts = [
                judge.accepts(one, "127.0.0.2")
                for one in (b"PUT" + bytes(12), b"GET" + bytes(4), b"GETT" + bytes(9), b"")
            ]
            assert verdicts == [True, True, False, False]
        maps = shown(filter)
        assert pairs(maps["counter_asked"]) == {
            ("127.0.0.0", "G"): {"requests": 2, "bytes": 20},
            ("127.0.0.0", "P"): {"requests": 1, "bytes": 15},
            ("127.0.0.0", ""): {"requests": 1, "bytes": 0},
        }
        sizes = {key[0]: one["value"] for key, one in pairs(maps["counter_sizes"]).items()}
        assert {bits: count for bits, count in sizes.items() if count} == {0: 1, 3: 1, 4: 2}
        assert pairs(maps["gauge_longest"]) == {(): {"value": 15}}
        assert [one["value"]["text"] for one in filter.events(9)] == ["GETT", ""]


def test_the_first_of_the_docs(xdp: Filter, tmp_path: Path) -> None:
    """The filter that docs/filters.md begins with, as it stands there."""
    docs = (HERE.parents[1] / "docs/filters.md").read_text()
    code = docs.partition("   ```c\n")[2].partition("   ```\n")[0]
    path = tmp_path / "mine.c"
    path.write_text(textwrap.dedent(code.expandtabs()))
    xdp.load_own(own.made(path, "xdp"))
    with Judge(xdp) as judge:
        assert judge.accepts(b"STOP", "127.0.0.2")
        assert not judge.accepts(b"STOPP", "127.0.0.3")
    assert pairs(shown(xdp)["counter_clients"]) == {
        ("127.0.0.2",): {"value": 1},
        ("127.0.0.3",): {"value": 1},
    }


def test_beside_the_others(xdp: Filter) -> None:
    """Settings and counters are those of carom's own filters, before and after a swap; maps of
    these names are its own."""
    xdp.set("rate", 5)
    before = sum(xdp.tallies()["valid_accepted"])
    xdp.load_own(own.made(EVERY_MAP, "xdp"))
    assert (xdp.name, xdp.settings()["rate"]) == ("own_maps", 5)
    assert [one["name"] for one in xdp.maps()][:2] == ["counter_cells", "counter_each"]
    with Judge(xdp) as judge:
        judge.accepts(b"PUT" + bytes(12), "127.0.0.2")
        xdp.load("strict-valid-command")
        judge.accepts(b"PUT" + bytes(12), "127.0.0.2")
    assert sum(xdp.tallies()["valid_accepted"]) == before + 2
    assert xdp.maps() == xdp.tables(10) == xdp.events(10) == []
    xdp.set("rate", 0)


@pytest.mark.parametrize("place", PLACES)
def test_the_maps_that_all_filters_share(compiler: str, place: Place) -> None:
    """They are those of filter.h: with one more there, a filter of one's own would have its own."""
    compiled = own.made(EXAMPLE, place, compiler).object.compiled()
    mine = {"counter_asked", "counter_sizes", "gauge_longest", "print_refused"}
    absent = {"accepted"} if place == "socket" else set()
    assert compiled.maps.keys() - mine == own.SHARED - absent


def test_nothing_is_left_open(xdp: Filter) -> None:
    """Swaps, and filters that are refused, leave no program and no map behind."""
    made = own.made(EVERY_MAP, "xdp")
    xdp.load_own(made)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        xdp.load_own(made)
        with pytest.raises(VerifierError):
            xdp.load_own(own.made(HERE / "own_refused.c", "xdp"))
    assert len(os.listdir("/proc/self/fd")) == before
    assert xdp.name == "own_maps"


def test_refused_by_the_verifier(xdp: Filter, compiler: str) -> None:
    """In words, with the last lines of its log; the filter before goes on."""
    xdp.load("simple")
    with pytest.raises(VerifierError) as raised:
        xdp.load_own(own.made(HERE / "own_refused.c", "xdp", compiler))
    first, *log = str(raised.value).splitlines()
    assert "verifier refused own_refused of" in first
    assert "own_refused.c" in first
    assert 1 <= len(log) <= 6
    assert "off" in log[-1]
    assert "BPF_" not in first
    if compiler == "clang":
        assert any("own_refused.c" in line or line.strip().startswith(";") for line in log)
    assert xdp.name == "simple"


HEAD = '#include "filter.h"\n'
BODY = """
static __always_inline bool accepts(const struct command *command)
{
	return true;
}
int mine(CONTEXT *context)
{
	return filter(context, accepts);
}
"""
WRONG = {
    "no program": (HEAD, "has no program"),
    "two programs": (
        HEAD + BODY + BODY.replace("mine", "other").replace("accepts", "takes"),
        "2 prog",
    ),
    "an error": (
        HEAD + BODY.replace("true", "command->word"),
        "mine.c:5:18: error: no member named",
    ),
    "two errors": (HEAD + BODY.replace("true", "ja + nein"), "'nein'"),
    "no header": ('#include "nowhere.h"\n' + BODY, "includes nowhere.h"),
    "no map of a counter": (
        HEAD + "struct network { u32 length; u32 address; };"
        'BPF_F_TABLE("lpm_trie", struct network, u64, counter_x, 8, BPF_F_NO_PREALLOC);' + BODY,
        "counter_x cannot be shown: a map of kind counter is a hash",
    ),
    "a ring that counts": (HEAD + "EVENTS(counter_x, u64, 1);" + BODY, "counter_x cannot be shown"),
    "text that counts": (
        HEAD + "struct said { u64 fine; char text[8]; };"
        'BPF_TABLE("hash", u32, struct said, counter_x, 8);' + BODY,
        "counter_x cannot be a counter: text is none",
    ),
    "a counter below zero": (HEAD + "BPF_ARRAY(counter_x, int, 8);" + BODY, "its value is none"),
    "a colour as a gauge": (
        HEAD + 'enum tint { RED }; BPF_TABLE("hash", u32, enum tint, gauge_x, 8);' + BODY,
        "gauge_x cannot be a gauge",
    ),
    "a metric of carom's": (HEAD + "BPF_ARRAY(counter_requests, u64, 8);" + BODY, "has it"),
    "two of one metric": (
        HEAD + "BPF_ARRAY(counter_x, u64, 8); BPF_ARRAY(gauge_x, u64, 8);" + BODY,
        "counter_x has it",
    ),
    "a metric's sample": (
        HEAD + "BPF_ARRAY(counter_x, u64, 8); BPF_ARRAY(gauge_x_created, u64, 8);" + BODY,
        "carom_filter_x_created",
    ),
    "a total": (HEAD + "BPF_ARRAY(counter_x_total, u64, 8);" + BODY, "_total is what carom adds"),
    "two members": (
        HEAD + "struct twice { u32 a_b; struct { u32 b; } a; };"
        'BPF_TABLE("hash", struct twice, u64, counter_x, 8);' + BODY,
        "several members that are shown as a_b",
    ),
    "a long value": (
        HEAD + "struct longer { char text[5000]; };"
        'BPF_TABLE("hash", u32, struct longer, print_x, 8);' + BODY,
        "values of 5000 bytes",
    ),
    "a long name": (HEAD + f"BPF_ARRAY(counter_{'x' * 60}, u64, 8);" + BODY, "has a name that"),
    "many maps": (
        HEAD + "\n".join(f"BPF_ARRAY(counter_{n}, u64, 8);" for n in range(33)) + BODY,
        "it has 33 maps",
    ),
    "too much memory": (
        HEAD + "BPF_PERCPU_ARRAY(counter_x, u64, 4000000000);" + BODY,
        "counter_x",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_filters(tmp_path: Path, name: str) -> None:
    """Each is refused before anything is loaded, by a message that names it."""
    text, word = WRONG[name]
    path = tmp_path / "mine.c"
    path.write_text(text)
    with pytest.raises((BPFError, CompileError)) as raised:
        own.made(path, "xdp")
    assert word in str(raised.value)
    assert "mine.c" in str(raised.value)
    assert raised.value.hint


def test_two_errors_are_two_lines(tmp_path: Path) -> None:
    path = tmp_path / "mine.c"
    path.write_text(WRONG["two errors"][0])
    with pytest.raises(CompileError) as raised:
        own.made(path, "xdp")
    lines = str(raised.value).splitlines()[1:]
    assert [line.split(": error:")[0].split("/")[-1] for line in lines] == [
        "mine.c:5:9",
        "mine.c:5:14",
    ]


def files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Files that hold no filter, and the word by which each is refused."""
    folder.joinpath("folder.c").mkdir()
    yield folder / "folder.c", "is a folder"
    yield folder / "nowhere.c", "No such file"
    yield folder / "nul\0.c", "NUL"
    for name, data, word in (
        ("mine.rs", b"", "neither C nor an object"),
        ("large.c", bytes(2 << 20), "more than 1,048,576 bytes"),
        ("latin.c", b"\xff", "not UTF-8"),
        ("a b.c", b"", "has a name"),
        (f"{'x' * 65}.c", b"", "has a name"),
        ("empty.o", b"", "it is no object file"),
        ("text.o", b"int main;", "it is no object file"),
    ):
        path = folder / name
        path.write_bytes(data)
        yield path, word
    os.mkfifo(folder / "pipe.c")
    yield folder / "pipe.c", "no regular file"


def test_wrong_files(tmp_path: Path) -> None:
    for path, word in files(tmp_path):
        with pytest.raises((UsageError, ObjectError)) as raised:
            own.made(path, "xdp")
        assert word in str(raised.value), path
        assert raised.value.hint


def test_as_one_of_caroms(tmp_path: Path) -> None:
    path = tmp_path / "simple.c"
    path.write_text(HEAD + BODY)
    with pytest.raises(UsageError, match="cannot be called 'simple'"):
        own.made(path, "xdp")


@pytest.fixture(scope="module")
def file() -> bytes:
    return own.made(EXAMPLE, "tc").object.file


def test_objects(filters: Callable[[Place], Filter], file: bytes, tmp_path: Path) -> None:
    """One by carom is loaded, by its file or over the control socket."""
    path = tmp_path / "clients-tc.o"
    path.write_bytes(file)
    made = own.made(path, "tc")
    assert made.name == "clients"
    filters("tc").load_own(made)
    told = made.told()
    again = own.told(told["filter"], "tc", told["object"])
    filters("tc").load_own(again)
    assert filters("tc").name == "clients"
    assert len(filters("tc").maps()) == 4


def changed(file: bytes, **changes: Any) -> bytes:
    compiled, label = elf.read(file)
    return elf.write(compiled, msgspec.structs.replace(label, **changes))


def test_wrong_objects(file: bytes, tmp_path: Path) -> None:
    """Of another place, another ABI, no filter, damaged, or by a clang alone."""
    foreign = tmp_path / "foreign.o"
    if CLANG:
        source = tmp_path / "foreign.c"
        source.write_text("int x(void *context) { return 2; }")
        subprocess.run([CLANG, "-target", "bpf", "-c", "-O2", source, "-o", foreign], check=True)
    else:
        foreign.write_bytes(file[:-1])
    for data, word in (
        (file, "is a filter for tc, and this one is to be at xdp"),
        (changed(file, name="own-filter-xdp", abi="0" * 64), "with the ABI 000000000000"),
        (bpf.build(built_in("xdp")), "holds filters-xdp, and no filter of your own"),
        (file[:5000], "damaged or cut short"),
        (file[:5000] + b"\x55" + file[5001:], "damaged"),
        (foreign.read_bytes(), "it was not made by carom" if CLANG else "damaged"),
    ):
        path = tmp_path / "mine.o"
        path.write_bytes(data)
        with pytest.raises(ObjectError, match=word) as raised:
            own.made(path, "xdp")
        assert "carom " in (raised.value.hint or "")


def test_objects_that_lie(xdp: Filter, file: bytes) -> None:
    """A program of another hook is refused by the kernel; a map of filter.h's by its shape."""
    compiled, label = elf.read(changed(file, name="own-filter-xdp"))
    tallies = compiled.maps["tallies"]._replace(key_size=8, key_type=0)
    other = msgspec.structs.replace(compiled, maps={**compiled.maps, "tallies": tallies})
    for one in (compiled, other):
        with pytest.raises(CaromError):
            xdp.load_own(own.checked(own.Own("lies", "xdp", _object(elf.write(one, label)))))


def _object(file: bytes) -> Any:
    from carom.kernel.objects import Object

    return Object("lies.o", file, elf.label(file))


@pytest.mark.parametrize("seed", range(3))
def test_types_of_anything(xdp: Filter, seed: int) -> None:
    """Types that no compiler makes are refused, or shown in some way: no other error comes."""
    whole = own.made(EVERY_MAP, "xdp").object.file
    compiled, _ = elf.read(whole)
    draw, loaded = random.Random(seed), 0
    for _ in range(300):
        types = bytearray(compiled.btf)
        for _ in range(draw.randint(1, 3)):
            types[draw.randrange(24, len(types))] = draw.randrange(256)
        file = whole.replace(compiled.btf, types)
        with_types = own.Own("odd", "xdp", _object(elf._sealed(file, elf.Reader(file).note()[0])))
        try:
            own.checked(with_types)
        except CaromError:
            continue
        loaded += 1
    assert loaded


def test_completions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mine.c", "mine-xdp.o", "other.txt"):
        (tmp_path / name).touch()
    (tmp_path / "more").mkdir()
    monkeypatch.chdir(tmp_path)
    assert set(own.completions("m")) == {"mine.c", "mine-xdp.o", "more/"}
    assert list(own.completions("./mine.")) == ["./mine.c"]
    assert list(own.completions(f"{tmp_path}/mine-")) == [f"{tmp_path}/mine-xdp.o"]
    assert "simple" in own.completions("s")
    assert list(own.completions("/nowhere/at/all")) == []
