# SPDX-License-Identifier: Apache-2.0
"""Configuration files: all that is wrong is told at once, and nothing is a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from typer.testing import CliRunner

from carom import apps
from carom.cli import app
from carom.cli_serve import known
from carom.configuration import Configuration, Kind, Plan
from carom.daemon.options import Options
from carom.errors import CaromError, ConfigurationError
from carom.settings import fields


def read(folder: Path, text: str, **said: Any) -> Plan:
    """The plan that a file makes."""
    file = folder / "carom.toml"
    file.write_text(text)
    return Configuration(known(), file, **said).read()


def problems(folder: Path, text: str, **said: Any) -> list[str]:
    """What is wrong with a file, without its path."""
    with pytest.raises(ConfigurationError) as raised:
        read(folder, text, **said)
    lines = str(raised.value).replace(f"{folder}/", "").splitlines()
    return lines[1:] if len(lines) > 1 else lines


ALL_WRONG = """\
interfaces = ["eth0"]
ttl = "soon"
speed = 3

[[service]]
protocol = "memcached"
Total-Rate = "4M"
exptime = "never"
slip = true

[[service]]
app = "carom.apps:mixed"
bind = "here"
allow = [
    "198.18.0.0/15",
    "198.18.0.1/15",
    7,
]
echoes = 99999999999
exptime = "ask"
"""


def test_all_at_once(tmp_path: Path) -> None:
    """In the order of lines, each with its path; what both services have is told once."""
    found = problems(tmp_path, ALL_WRONG)
    assert [line.split(": ")[:2] for line in found] == [
        ["carom.toml:2", "ttl"],
        ["carom.toml:3", "speed"],
        ["carom.toml:7", "service[0].Total-Rate"],
        ["carom.toml:8", "service[0].exptime"],
        ["carom.toml:9", "service[0].slip"],
        ["carom.toml:13", "service[1].bind"],
        ["carom.toml:16", "service[1].allow[1]"],
        ["carom.toml:17", "service[1].allow[2]"],
        ["carom.toml:19", "service[1].echoes"],
        ["carom.toml:20", "service[1].exptime"],
    ]
    said = "\n".join(found)
    for words in (
        "'soon' is not a duration (for example",
        "unknown option 'speed' (there are admit,",
        "unknown option 'Total-Rate' (is total_rate meant?)",
        "exptime 'never' is unknown (auto | ask | ttl)",
        "echoes 99999999999 is out of range (0 to 1000000)",
        "serve has no option 'exptime' (it is for services that run in `carom front`)",
    ):
        assert words in said


ON = 'interfaces = ["eth0"]\n'
FRONT, APP = "[[service]]\n", '[[service]]\napp = "echo"\n'
WRONG = {
    "a = [": "carom.toml:1: it is not TOML: Invalid value",
    "": "carom.toml: it names no service",
    ON: "carom.toml: it names no service",
    "service = 5": "carom.toml:1: service: it names no service",
    "service = [5]": "carom.toml:1: service: it names no service",
    "[service]\nport = 5": "carom.toml:1: service: it names no service",
    FRONT: "carom.toml: interfaces: no interface to answer on",
    "interfaces = []\n" + FRONT: "carom.toml:1: interfaces: no interface to answer on",
    'interfaces = ["a", 5]\n' + APP: "carom.toml:1: interfaces: interfaces is a list of names",
    ON + FRONT + FRONT: "carom.toml:3: service[1]: two services are to answer on port 11211",
    ON + APP + APP: "carom.toml:5: service[1].app: echo serves twice",
    ON + APP + '[[service]]\napp = "mixed"\nbind = "192.0.2.1"\n': (
        "carom.toml:4: service[1]: two services are to answer on port 51141"
    ),
    ON + APP + "[[service]]\nport = 51141\nbind = '0.0.0.0'": (
        "carom.toml:5: service[1].port: two services are to answer on port 51141"
    ),
    ON + "[[service]]\napp = 5": "carom.toml:3: service[0].app: app is a text",
    ON + "[[service]]\napp = 'nowhere:x'": "service[0].app: there is no module 'nowhere'",
    ON + "[[service]]\napp = 'carom.apps:x'": "service[0].app: carom.apps has no Service named",
    ON + APP + "protocol = 'dns'": "carom.toml:4: service[0].protocol: a Python service does not",
    ON + FRONT + "protocol = 'raw'": "service[0].protocol: front cannot learn raw",
    ON + FRONT + "hook = 'none'": "carom.toml:3: service[0].hook: front is a cache in the kernel",
    ON + FRONT + "ttl = 0.5": "carom.toml:3: service[0].ttl: ttl 0.5 is not whole seconds",
    "ttl = 0.5\n" + ON + FRONT: "carom.toml:1: ttl: ttl 0.5 is not whole seconds",
    ON + FRONT + "ttl = nan": "carom.toml:3: service[0].ttl: ttl nan s is out of range",
    ON + FRONT + "memory = '1K'": "service[0].memory: a memory of 1024 bytes is too little",
    ON + FRONT + f"memory = '{'9' * 400}G'": "service[0].memory: a size of so many digits",
    ON + FRONT + "admit = 'second'\npolicy = 'fcfs'": "carom.toml:3: service[0].admit: admit seco",
    "policy = 'fcfs'\n" + ON + FRONT + "admit = 'second'": "carom.toml:4: service[0].admit: admit",
    ON + FRONT + "capacity = 9\nmemory = '1G'": "carom.toml:4: service[0].memory: memory is in the",
    ON + FRONT + "cookie_secret_file = '/x'": "service[0].cookie_secret_file: memcached has no",
    ON + FRONT + "responses_per_second = 5": "service[0].responses_per_second: responses-per-se",
    ON + "hook = 'tc'\n" + FRONT + APP + "hook = 'xdp'": (
        "carom.toml:6: service[1].hook: services that run together share hook: 'tc' is not 'xdp'"
    ),
    ON + FRONT + "port = 2026-01-01": "service[0].port: wrong option: port: Expected `int`",
    ON + FRONT + "port = 0x1ffffffffffffffff": "service[0].port is a number of more than 64",
    ON + FRONT + "port = {a = 1}": "service[0].port: wrong option: port: Expected `int`",
    ON + FRONT + "allow = ['::/0', '::1/0']": "carom.toml:3: service[0].allow[1]: allow '::1/0'",
    ON + FRONT + "allow = '::/0'": "carom.toml:3: service[0].allow: wrong option: allow: Expected",
}


@pytest.mark.parametrize(("text", "said"), WRONG.items())
def test_one_thing(tmp_path: Path, text: str, said: str) -> None:
    (found,) = problems(tmp_path, text)
    assert said in found


def test_not_utf8(tmp_path: Path) -> None:
    file = tmp_path / "carom.toml"
    file.write_bytes(b"# one\n# \xff\n")
    with pytest.raises(ConfigurationError, match=r"carom\.toml:2: it is not TOML: not UTF-8"):
        Configuration(known(), file).read()


def test_both_kinds(tmp_path: Path) -> None:
    """Options of all services go to those that have them."""
    text = "work = '2ms'\nexptime = 'ttl'\nttl = '5m'\n" + ON + FRONT + APP + "ttl = 7\n"
    plan = read(tmp_path, text, given={"total_rate": 5})
    front, echo = plan.services
    assert [one.kind for one in plan.services] == ["front", "serve"]
    assert (front.options.ttl, echo.options.ttl) == (300, 7)
    assert (front.options.work, echo.options.work) == (0, 0.002)
    assert (front.wishes.exptime, front.options.port, front.options.bind) == ("ttl", 11211, "::")
    assert (echo.options.port, echo.options.bind) == (51141, "0.0.0.0")
    lines = {name: (at.source, at.line) for name, at in echo.origins.items()}
    assert lines["ttl"] == ("file", 8)
    assert lines["work"] == ("file", 1)
    assert lines["total_rate"] == ("command line", None)
    assert lines["port"] == ("app", None)
    assert lines["amplify"] == ("default", None)


def test_what_one_kind_shares(tmp_path: Path) -> None:
    """A Python service's options bind no server that is fronted."""
    plan = read(tmp_path, "wait = 'spin'\ncpu = 0\n" + ON + FRONT + APP)
    assert [one.options.wait for one in plan.services] == ["block", "spin"]
    text = ON + APP + "wait = 'spin'\n[[service]]\napp = 'mixed'\nport = 9\n" + FRONT
    (found,) = problems(tmp_path, text)
    assert "service[1]: services that run together share wait: 'spin' is not 'block'" in found


def test_the_command_line_is_named(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, ON + FRONT, given={"ttl": 0.0})
    assert found == "--ttl: ttl 0 s is out of range"


def test_an_app_is_as_it_came_each_time(tmp_path: Path) -> None:
    """What one reading changed is forgotten by the next."""
    file = tmp_path / "carom.toml"
    file.write_text(ON + APP + "ttl = 5\n")
    said = Configuration(known(), file)
    before = apps.echo.options
    try:
        said.read().services[0].made()
        assert apps.echo.options.ttl == 5
        file.write_text(ON + APP + "ttl = 'soon'\nport = 9\n")
        with pytest.raises(ConfigurationError):
            said.read()
        file.write_text(ON + APP)
        assert said.read().services[0].options == before
    finally:
        apps.echo.options = before


def test_check_and_show(tmp_path: Path) -> None:
    file = tmp_path / "carom.toml"
    file.write_text("allow = ['198.18.0.0/15']\n" + ON + FRONT + "ttl = '5m'\n" + APP)

    def carom(*words: str) -> str:
        done = CliRunner().invoke(app, ["config", *words], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    assert carom("check", str(file)) == f"{file}: 2 services, no errors\n"
    told = json.loads(carom("show", str(file), "--capacity", "5", "--json"))
    assert told["interfaces"] == {"value": ["eth0"], "from": "file", "line": 2}
    front, echo = told["services"]
    assert (front["kind"], front["app"]) == ("front", None)
    assert (echo["kind"], echo["app"]) == ("serve", "echo")
    options = front["options"]
    assert options["ttl"] == {"value": 300.0, "from": "file", "line": 4}
    assert options["capacity"] == {"value": 5, "from": "command line"}
    assert options["bind"] == {"value": "::", "from": "default"}
    assert options["exptime"] == {"value": "auto", "from": "default"}
    assert echo["options"]["port"] == {"value": 51141, "from": "app"}
    shown = carom("show", str(file))
    assert "service[0] front" in shown and '["198.18.0.0/15"]        line 1' in shown


NAMES = sorted({*known()["serve"], *known()["front"], "app", "colour", "no-name", ""})
VALUES = some.recursive(
    some.one_of(
        some.integers(),
        some.floats(),
        some.booleans(),
        some.text(max_size=5),
        some.dates(),
        some.sampled_from(
            ["tc", "5m", "1G", "echo", "carom.apps:mixed", "::", "1.2.3.4/32", "ids"]
        ),
        some.sampled_from([1, 0, 53, 51141, 0.001, 1e300]),
    ),
    lambda inner: some.one_of(
        some.lists(inner, max_size=3),
        some.dictionaries(some.sampled_from(NAMES), inner, max_size=2),
    ),
    max_leaves=4,
)


def toml(value: Any) -> str:
    """A value as TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{json.dumps(key)} = {toml(one)}" for key, one in value.items()) + "}"
        )
    return str(value)


PAIRS = some.dictionaries(some.sampled_from(NAMES), VALUES, max_size=5).map(
    lambda table: "".join(f"{json.dumps(key)} = {toml(value)}\n" for key, value in table.items())
)
FILES = some.tuples(PAIRS, some.lists(PAIRS, max_size=3)).map(
    lambda parts: ON + parts[0] + "".join(f"[[service]]\n{pairs}" for pairs in parts[1])
)


@settings(max_examples=400, deadline=None)
@given(FILES)
def test_any_file(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """It makes a plan that can be made, or is refused by lines that name the file."""
    folder = tmp_path_factory.getbasetemp()
    try:
        plan = read(folder, text)
    except ConfigurationError as error:
        lines = str(error).splitlines()
        assert all(line.startswith(f"{folder}/carom.toml") for line in lines), lines
        return
    for planned in plan.services:
        assert planned.options.checked() is planned.options


@settings(max_examples=300, deadline=None)
@given(some.binary(max_size=60))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "carom.toml"
    file.write_bytes(data)
    with pytest.raises(CaromError):
        Configuration(known(), file).read()


@pytest.mark.parametrize(("kind", "service"), [("serve", APP), ("front", FRONT)])
def test_each_option_is_checked(tmp_path: Path, kind: Kind, service: str) -> None:
    names = list(known()[kind])
    text = ON + service + "".join(f"{name} = {{}}\n" for name in names)
    first = len((ON + service).splitlines()) + 1
    starts = [f"carom.toml:{first + at}: service[0].{name}: " for at, name in enumerate(names)]
    found = problems(tmp_path, text)
    assert all(line.startswith(start) for line, start in zip(found, starts, strict=True))


def test_every_field_is_an_option() -> None:
    assert set(fields(Options)) == set(Options.__struct_fields__)
