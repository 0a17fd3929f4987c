# SPDX-License-Identifier: Apache-2.0
"""`carom why` before anything is attached: it says what a carom would say that has just begun."""

from __future__ import annotations

import contextlib
import functools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from carom.daemon.front import Front
from carom.daemon.offline import Offline
from carom.daemon.options import options_of
from carom.daemon.service import Service
from carom.daemon.why import why
from carom.kernel import libbpf
from carom.kernel.abi import Hook, Verdict
from carom.lab.tools import bench as bench_tool
from carom.protocols import SPECS
from netns import coap_server
from netns.coap_server import AIOCoAP
from netns.line import Line
from netns.memcache import Memcached, TCPClient
from netns.nameserver import NSD
from netns.process import INTERFACE, Carom, Ended, attached, run, until
from netns.wire import Client
from prog.test_walker import SERVED, frames, taken

FRAMES = 200
"""Of each protocol, at each hook."""


def offline(line: Line, *arguments: str) -> Ended:
    """`carom why` on the server's host, where no carom is asked."""
    return run(line.server, "why", *arguments, "-i", INTERFACE)


def told(line: Line, *arguments: str) -> dict[str, Any]:
    ended = offline(line, "--json", *arguments)
    assert ended.code == 0, ended
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def last(walks: list[dict[str, Any]]) -> str:
    return str(walks[-1]["verdict"])


@pytest.fixture(scope="module", params=["xdp", "tc"])
def all_of_them(straight: Line, request: pytest.FixtureRequest) -> Iterator[Offline]:
    """A service of each protocol, as it would be at a hook."""
    made: list[Service | Front] = []
    for spec in SPECS.values():
        port, told = spec.port or SERVED, {"protocol": spec.name, "hook": request.param}
        if spec.learned:
            made.append(Front(options_of({"port": port, "bind": "::", **told})))
        else:
            made.append(Service(port, **told))
    with straight.server.call(lambda: Offline(made, [INTERFACE])) as offline:
        yield offline


def test_it_says_what_the_programs_do(straight: Line, all_of_them: Offline) -> None:
    """The very ones that would be attached, on requests and mutated ones of every protocol."""
    asked = all_of_them.asked
    assert asked.fastpath
    hook = Hook.TC if asked.attachments[0].hook == "tc" else Hook.XDP
    program = asked.fastpath.tc_program if hook == Hook.TC else asked.fastpath.program
    index = asked.attachments[0].interface.ifindex
    at = {"tc_ifindex": index} if hook == Hook.TC else {"xdp_ifindex": index}
    mac = asked.attachments[0].interface.mac
    here = bytes.fromhex(bench_tool.MAC.replace(":", ""))
    seen: Counter[str] = Counter()
    counts = asked.fastpath.verdicts(hook)
    for spec in SPECS.values():
        made = [
            (mac + one[6:] if one[:6] == here else one)
            for one in frames(spec, FRAMES)
            if taken(one, hook)
        ]
        hexed = [one.hex() for one in made]
        walks = straight.server.call(functools.partial(why, asked, hexed, INTERFACE))
        for frame, walk in zip(made, walks, strict=True):
            straight.server.call(functools.partial(libbpf.test_run, program, frame, **at))
            before, counts = counts, asked.fastpath.verdicts(hook)
            (verdict,) = [one for one in Verdict if counts[one] != before[one]]
            assert walk[0]["verdict"] == verdict.name.lower(), frame.hex()
            seen[walk[0]["verdict"]] += 1
    assert seen["miss"] > 100 and len(seen) > 10, seen
    assert not seen["hit"], "nothing is in the cache"


ASKED = {
    "raw": ["known", "x" * 257],
    "kv": ["GET 7", "PUT 7 1", "STOP"],
    "memcached": ["get foo", "get a b", "set foo 0 0 1", "stats"],
    "dns": ["www.example.org", "example.org MX"],
    "coap": ["/sensors/1", "/sensors/2?unit=K"],
}


@pytest.mark.parametrize("name", SPECS)
def test_in_words(straight: Line, name: str) -> None:
    """Nothing is cached; once a reply is, a request that missed would be a hit."""
    for request in ASKED[name]:
        found = told(straight, request, "--protocol", name, "--port", "51141")
        verdict = last(found["walks"])
        assert verdict in ("miss", "pass_size", "pass_write", "pass_request")
        if verdict == "miss":
            assert last(found["filled"]) == "hit"
        else:
            assert "filled" not in found
    assert attached(straight.server) is None
    ended = offline(straight, "x" if name == "raw" else ASKED[name][0], "--protocol", name)
    assert ("once its reply is in the cache" in ended.stdout) == ("\nmiss: " in ended.stdout)


@contextlib.contextmanager
def running(line: Line, name: str, folder: Path) -> Iterator[Carom]:
    """One that has just begun."""
    if name == "memcached":
        with Memcached(line.server), Carom(line.server, command="front") as carom:
            yield carom
    elif name == "dns":
        how = ("--protocol", "dns")
        with NSD(line.server, folder), Carom(line.server, *how, command="front") as carom:
            yield carom
    elif name == "coap":
        how = ("--protocol", "coap")
        with AIOCoAP(line.server), Carom(line.server, *how, command="front") as carom:
            yield carom
    else:
        with Carom(line.server, "--app", "echo" if name == "raw" else name) as carom:
            yield carom


@pytest.mark.parametrize("name", SPECS)
def test_a_running_one_says_the_same(own_line: Line, name: str, tmp_path: Path) -> None:
    """Stop by stop, of requests and who may ask them."""
    sources = (("--from", "198.18.0.1:99"), ("--from", "127.0.0.1"))
    asked = [(request,) for request in ASKED[name]]
    asked += [(ASKED[name][0], *source) for source in sources]
    with running(own_line, name, tmp_path) as carom:
        port = str(carom.ready["services"][0]["port"])
        live = [
            run(own_line.server, "why", "--json", *one, "--pid", str(carom.pid)) for one in asked
        ]
    for one, ended in zip(asked, live, strict=True):
        found = told(own_line, *one, "--protocol", name, "--port", port)
        assert found["walks"] == json.loads(ended.stdout)["walks"], one


REAL = {
    "memcached": b"VALUE foo 0 3\r\nbar\r\nEND\r\n",
    "dns": bytes((198, 18, 0, 10)),
    "coap": b"\xff22.5",
}
"""What of a server's reply to the first that is asked is in the frame of a hit."""


def put_there(line: Line, name: str) -> None:
    """What a server does not have by itself."""
    if name == "memcached":
        with TCPClient(line.client, line.address) as tcp:
            tcp.set(b"foo", b"bar")
    elif name == "coap":
        with coap_server.Client(line.client, line.address) as client:
            client.put("sensors/1", b"22.5")


@pytest.mark.parametrize("name", REAL)
def test_a_hit_of_a_real_server_is_the_same(own_line: Line, name: str, tmp_path: Path) -> None:
    """Stop by stop, as what was made up for it: what its socket sent was learned."""
    request = ASKED[name][0]
    with running(own_line, name, tmp_path) as carom:
        put_there(own_line, name)
        port = int(carom.ready["services"][0]["port"])
        why = ("why", "--json", request, "--from", f"{own_line.client_address}:4321")
        payload = SPECS[name].asking(request.encode())
        assert payload

        def live() -> list[dict[str, Any]]:
            ended = run(own_line.server, *why, "--pid", str(carom.pid))
            found: list[dict[str, Any]] = json.loads(ended.stdout)["walks"]
            return found

        with Client(own_line.client, own_line.address, port=port) as client:
            until(lambda: client.ask(payload) and last(live()) == "hit", "its reply to be learned")
        hit = live()
    made_up = told(own_line, *why[2:], "--protocol", name, "--port", str(port))["filled"]
    assert REAL[name] in bytes.fromhex(hit[-1]["reply"])
    for walk in (*hit, *made_up):
        del walk["reply"]
    assert made_up == hit


CONFIGURATION = """
interfaces = ["carom0"]
allow = ["198.18.0.1/32"]

[[service]]
app = "echo"
port = 51142

[[service]]
protocol = "memcached"
"""


def test_a_configuration(straight: Line, tmp_path: Path) -> None:
    """Its services, and what it says of them."""
    file = tmp_path / "carom.toml"
    file.write_text(CONFIGURATION)
    told = run(straight.server, "why", "get foo", "--config", str(file), "--port", "11211")
    assert told.code == 0 and "\nmiss: not in the cache" in told.stdout, told
    told = run(straight.server, "why", "x", "--config", str(file))
    assert told.code == 2 and "several services run" in told.stderr
    arguments = ("why", "x", "--config", str(file), "--port", "51142", "--json")
    near = run(straight.server, *arguments, "--from", straight.client_address)
    assert last(json.loads(near.stdout)["filled"]) == "hit"
    far = run(straight.server, *arguments, "--from", "198.18.0.77")
    assert last(json.loads(far.stdout)["filled"]) == "pass_allow"


def test_a_capture_is_asked_of_an_empty_cache(straight: Line, tmp_path: Path) -> None:
    """Each frame for itself: none is a hit because of one before."""
    from scapy.utils import RawPcapWriter

    frame = bytes.fromhex(told(straight, "x", "--protocol", "raw", "--port", "51141")["frame"])
    file = tmp_path / "some.pcap"
    with RawPcapWriter(str(file), linktype=1) as writer:
        for _ in range(3):
            writer.write(frame)
    ended = offline(straight, "--pcap", str(file), "--protocol", "raw", "--port", "51141", "--json")
    found = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [last(one["walks"]) for one in found] == ["miss"] * 3
    assert not any("filled" in one for one in found)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("x", "--protocol", "http", "-i", INTERFACE), "protocol 'http' is unknown"),
        (("x", "--protocol", "raw"), "no interface to answer on"),
        (("x", "--protocol", "raw", "-i", "nowhere0"), "nowhere0"),
        (("x", "--config", "/nowhere.toml"), "cannot read /nowhere.toml"),
        (("x", "--protocol", "raw", "--pid", "1"), "each say who is asked"),
        (("x", "--protocol", "raw", "--config", "y"), "each say who is asked"),
        (("x", "--protocol", "raw", "--port", "70000", "-i", INTERFACE), "70000"),
    ],
)
def test_what_cannot_be_asked(straight: Line, arguments: tuple[str, ...], said: str) -> None:
    ended = run(straight.server, "why", *arguments)
    assert ended.code in (1, 2) and ended.stdout == "", ended
    assert said in ended.stderr and "Traceback" not in ended.stderr, ended


def test_without_rights(straight: Line) -> None:
    """It says which are missing."""
    prefix = ("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups")
    ended = run(straight.server, "why", "x", "--protocol", "raw", "-i", INTERFACE, prefix=prefix)
    assert ended.code == 1 and "no CAP_" in ended.stderr, ended
