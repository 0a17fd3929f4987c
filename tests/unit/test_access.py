# SPDX-License-Identifier: Apache-2.0
"""Configurations of name servers: what some clients are refused by, and what is for everybody."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from carom.protocols.dns import access

OPEN4, OPEN6 = "access-control: 0.0.0.0/0 allow\n", "access-control: ::/0 allow\n"
REFUSED = "without access-control for {}, all others but localhost are refused"
LOCAL = "without allow-recursion, allow-query-cache and allow-query, the recursion is for localnets"
VIEWS = """
options {{ {} }};
view "in" {{ match-clients {{ 198.18.0.0/15; }}; {} }};
view "out" {{ {} }};
"""


def found_in(folder: Path, name: str, text: str, *arguments: str) -> list[str]:
    """What is found, each with the file's last name."""
    (folder / "main.conf").write_text(text)
    found = access.lists_of(name, folder, ["/main.conf"], arguments)
    assert found is not None
    return found


def agree(found: list[str], wanted: list[str]) -> bool:
    """Whether each begins as it should, and names its file."""
    return len(found) == len(wanted) and all(
        one.startswith(start) and one.endswith(" (/main.conf)")
        for one, start in zip(found, wanted, strict=True)
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ["without access-control for 0.0.0.0/0 and ::/0, all but localhost are refused"]),
        ("server:\n  # " + OPEN4 + "  # " + OPEN6, ["without access-control for 0.0.0.0/0 and"]),
        (OPEN4 + OPEN6, []),
        ("server: access-control:0.0.0.0/0 allow access-control:::0/0 allow", []),
        (OPEN4 + 'access-control: "::0/0" "allow" # all', []),
        (OPEN4, [REFUSED.format("::/0")]),
        (OPEN4 + "do-ip6: no", []),
        (OPEN6 + OPEN4.replace("allow", "refuse") + OPEN4, []),  # the last holds
        (OPEN6 + OPEN4 + "access-control: 0.0.0.0/0 deny", ["access-control: 0.0.0.0/0 deny"]),
        (OPEN4 + "interface: 198.18.0.2@53", []),
        (OPEN4 + "interface: 198.18.0.2 interface: 2001:db8::2", [REFUSED.format("::/0")]),
        (OPEN4 + "interface: eth0", [REFUSED.format("::/0")]),
        (OPEN4 + OPEN6 + "access-control: 127.0.0.0/8 allow", []),
        (OPEN4 + OPEN6 + "access-control: 10.0.0.0/8 deny", ["access-control: 10.0.0.0/8 deny"]),
        (OPEN4 + OPEN6 + "access-control: 10.0.0.0/8 allow_snoop", ["access-control: 10.0.0.0/8"]),
        (OPEN6 + "access-control: 0.0.0.0/0 refuse", ["access-control: 0.0.0.0/0 refuse"]),
        (OPEN6 + "access-control: 0.0.0.0/0 allow_cookie", ["access-control: 0.0.0.0/0 allow_c"]),
        (
            "access-control: 10.0.0.0/8 allow # ours",
            [REFUSED.format("0.0.0.0/0 and ::/0"), "access-control: 10.0.0.0/8 allow"],
        ),
        (OPEN4 + OPEN6 + "access-control-view: 10.0.0.0/8 a", ["access-control-view: 10.0.0.0/8"]),
        (OPEN4 + OPEN6 + 'access-control-tag: 10.0.0.0/8 "a"', ["access-control-tag: 10.0.0.0/8"]),
        (OPEN4 + OPEN6 + "interface-view: eth0 a", ["interface-view: eth0 a"]),
        (OPEN4 + OPEN6 + "rpz:\n  name: rpz.example", ["rpz:"]),
        (OPEN4 + OPEN6 + "local-zone-override: a 10.0.0.0/8 deny", ["local-zone-override: a"]),
        (OPEN4 + OPEN6 + "client-subnet-always-forward: no", []),
        ("interface: eth0\ninterface-action: eth0 allow", []),
        (
            "interface: eth0\ninterface: eth1\ninterface-action: eth0 allow",
            ["without access-control for", "interface-action: eth0 allow"],
        ),
    ],
)
def test_unbound(tmp_path: Path, text: str, wanted: list[str]) -> None:
    found = found_in(tmp_path, "unbound", text)
    assert agree(found, wanted), found


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", [LOCAL]),
        ("options { recursion yes; };", [LOCAL]),
        ("options { recursion no; };", []),
        ("options { recursion no; /* allow-query { a; }; */ # allow-query { b; };\n };", []),
        ("options { // recursion no;\n };", [LOCAL]),
        ("options { allow-query { any; }; // allow-query { none; };\n };", []),
        ("options { allow-recursion { any; }; };", []),
        ("options { allow-query-cache { any; }; };", []),
        ("options { allow-recursion { none; }; };", []),
        ("options { allow-recursion { localnets; any; }; };", []),
        ("options { allow-recursion { !10/8; any; }; };", ["allow-recursion { !10/8; any; }"]),
        ("options { allow-recursion { ! { a; }; any; }; };", ["allow-recursion"]),
        ("options { allow-recursion { { !b; }; any; }; };", []),
        ("options { allow-recursion { 0.0.0.0/0; ::/0; }; };", []),
        ("options { allow-recursion { 0.0.0.0/0; }; };", ["allow-recursion { 0.0.0.0/0; }"]),
        ("options { allow-recursion { 0.0.0.0/0; }; listen-on-v6 { none; }; };", []),
        ("acl us { any; }; options { allow-recursion { us; }; };", []),
        ("acl us { 10/8; }; options { allow-recursion { us; }; };", ["allow-recursion { us; }"]),
        ("options { allow-query { 10/8; }; allow-recursion { any; }; };", ["allow-query { 10/8;"]),
        (
            "options { recursion no; allow-query { 10/8; }; };\n"
            'zone "a" { type primary; allow-query { any; }; };',
            [],
        ),
        (
            "options { recursion no; allow-query { 10/8; }; };\n"
            'zone "a" { type primary; allow-query { any; }; }; zone "b" { type primary; };',
            ["allow-query { 10/8; }"],
        ),
        (
            'options { recursion no; };\nzone "a" { allow-query { key "k"; }; };',
            ["allow-query { key k; }"],
        ),
        (
            "options { allow-query-cache { any; }; allow-recursion { localhost; }; };",
            ["allow-recursion { localhost; }"],
        ),
        ("options { recursion no; blackhole { 10/8; }; };", ["blackhole { 10/8; }"]),
        ("options { recursion no; blackhole { none; }; };", []),
        ("options { recursion no; allow-query-cache { 10.0.0.1; }; };", []),
        ("options { allow-query-cache-on { a; }; };", [LOCAL, "allow-query-cache-on { a; }"]),
        ('options { recursion no; response-policy { zone "a"; }; };', ["response-policy { zone"]),
        ("options { recursion no; dns64 64:ff9b::/96 { clients { any; }; }; };", []),
        ("options { recursion no; dns64 64:ff9b::/96 { clients { a; }; }; };", ["clients { a; }"]),
        ('options { recursion no; directory "/a;b{"; };', []),
        (VIEWS.format("recursion no;", "", ""), ["match-clients { 198.18.0.0/15; }"]),
        (
            VIEWS.format("recursion no;", "recursion yes;", "match-clients { any; };"),
            ["without allow-recursion", "match-clients"],
        ),
        ('options { recursion no; }; view "a" { match-clients { any; }; };', []),
        (
            'options { allow-recursion { 10/8; }; }; view "a" { allow-recursion { any; }; };',
            [],
        ),
        ('options { recursion no; }; view "a" { match-destinations { b; }; };', ["match-dest"]),
    ],
)
def test_bind(tmp_path: Path, text: str, wanted: list[str]) -> None:
    found = found_in(tmp_path, "named", text)
    assert agree(found, wanted), found


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("nsd", "zone:\n  name: a\n", []),
        ("nsd", "zone:\n  allow-query: 10.0.0.0/8 NOKEY\n", ["allow-query: 10.0.0.0/8 NOKEY"]),
        ("nsd", "zone:\n  allow-query: 0.0.0.0/0 NOKEY\n  allow-query: ::/0 NOKEY\n", []),
        ("nsd", "zone:\n  allow-query: 0.0.0.0/0 NOKEY\n", ["allow-query: 0.0.0.0/0 NOKEY"]),
        ("knotd", "zone:\n  - domain: a\n#mod-queryacl:\n", []),
        ("knotd", "mod-queryacl:\n  - id: a\n", ["mod-queryacl:"]),
        ("knotd", "mod-geoip:\n  - id: a\n", ["mod-geoip:"]),
        ("kresd", "net.listen('198.18.0.2', 53)\n-- view:addr('a', b)\n", []),
        ("kresd", "view:addr('10.0.0.0/8', policy.all(policy.DENY))", ["view:addr('10.0.0.0/8'"]),
        ("kresd", "views:\n  - subnets: [10.0.0.0/8]\n", ["views:"]),
        ("pdns_recursor", "local-address=0.0.0.0\n", ["without allow-from, clients of private"]),
        ("pdns_recursor", "# allow-from=\n", ["without allow-from"]),
        ("pdns_recursor", "allow-from=\n", []),
        ("pdns_recursor", "allow-from=0.0.0.0/0, ::/0\n", []),
        ("pdns_recursor", "allow-from=0.0.0.0/0\n", ["allow-from: 0.0.0.0/0"]),
        ("pdns_recursor", "incoming:\n  allow_from: ['0.0.0.0/0', '::/0']\n", []),
        ("pdns_recursor", "incoming:\n  allow_from:\n    - 0.0.0.0/0\n    - ::/0\n", []),
        ("pdns_recursor", "incoming:\n  allow_from:\n    - 10.0.0.0/8\n", ["allow-from: - 10"]),
        ("pdns_recursor", "incoming:\n  allow_from:\n    # a\n    - 10/8\n", ["allow-from: - 10"]),
        ("pdns_recursor", "incoming:\n  allow_from:\n    [10.0.0.0/8]\n", ["allow-from: [10.0"]),
        ("pdns_recursor", "incoming:\n  listen: [::]\n", ["without allow-from"]),
        ("dnsmasq", "", []),
        ("dnsmasq", "#local-service\nport=53\n", []),
        ("dnsmasq", "local-service\n", ["local-service"]),
        ("dnsmasq", "local-service # here\n", ["local-service"]),
        ("dnsmasq", "local-service\nlisten-address=198.18.0.2\n", []),
        ("dnsmasq", "interface=eth0\n", ["interface=eth0"]),
        ("dnsmasq", "interface=eth0\nbind-interfaces\n", []),
    ],
)
def test_others(tmp_path: Path, name: str, text: str, wanted: list[str]) -> None:
    found = found_in(tmp_path, name, text)
    assert agree(found, wanted), found


def test_arguments(tmp_path: Path) -> None:
    assert found_in(tmp_path, "dnsmasq", "", "--local-service") == ["local-service (its arguments)"]
    (found,) = found_in(tmp_path, "pdns_recursor", "allow-from=", "--allow-from=10.0.0.0/8")
    assert found == "allow-from: 10.0.0.0/8 (its arguments)"
    text = "options { allow-recursion { 0/0; }; };"
    assert found_in(tmp_path, "named", text, "-4") == []


@pytest.mark.parametrize(
    ("name", "include", "part", "open_part"),
    [
        ("unbound", 'include: "{}"', "do-ip6: no", OPEN4 + OPEN6),
        ("unbound", "server: include-toplevel: {}", "do-ip6: no", OPEN4 + OPEN6),
        ("named", 'include "{}";', "acl a { b; };", "options { recursion no; };"),
        ("named", 'options {{ include "{}"; }};', "version none;", "recursion no;"),
    ],
)
@pytest.mark.parametrize("where", ["part.conf", "/part.conf", "parts/*.conf"])
def test_included(
    tmp_path: Path, name: str, include: str, part: str, open_part: str, where: str
) -> None:
    file = tmp_path / where.lstrip("/").replace("*", "a")
    file.parent.mkdir(exist_ok=True)
    file.write_text(part)
    (found,) = found_in(tmp_path, name, include.format(where))
    assert found.endswith("(/main.conf)")
    file.write_text(open_part)
    assert found_in(tmp_path, name, include.format(where)) == []


def test_a_statement_of_an_included_file_is_named_with_it(tmp_path: Path) -> None:
    (tmp_path / "part.conf").write_text("blackhole { 10/8; };")
    text = 'options { recursion no; include "part.conf"; };'
    assert found_in(tmp_path, "named", text) == ["blackhole { 10/8; } (/part.conf)"]


@pytest.mark.parametrize("name", ["unbound", "named", "nsd", "knotd", "kresd", "pdns_recursor"])
def test_what_cannot_be_read(tmp_path: Path, name: str) -> None:
    assert access.lists_of(name, tmp_path, ["/nothing"]) is None


INCLUDES = {
    "unbound": f'include: "{{}}"\n{OPEN4}{OPEN6}',
    "named": 'include "{}"; options {{ recursion no; }};',
    "nsd": 'include: "{}"\n',
    "knotd": "include: {}\n",
    "kresd": "dofile('{}')\n",
    "dnsmasq": "conf-file={}\n",
}


@pytest.mark.parametrize("name", INCLUDES)
def test_not_all_is_known(tmp_path: Path, name: str) -> None:
    """What a file includes is not there, or has no end: nobody says that there are no lists."""
    main, include = tmp_path / "main.conf", INCLUDES[name]
    for included in ("/main.conf", "/absent", "/etc"):
        (tmp_path / "etc").mkdir(exist_ok=True)
        main.write_text(include.format(included))
        assert access.lists_of(name, tmp_path, ["/main.conf"]) is None, included
    for depth in range(7):
        (tmp_path / f"{depth}.conf").write_text(include.format(f"/{depth + 1}.conf"))
    (tmp_path / "7.conf").touch()
    assert access.lists_of(name, tmp_path, ["/2.conf"]) == []
    assert access.lists_of(name, tmp_path, ["/1.conf"]) is None


@pytest.mark.parametrize(
    "text", ["}; options { recursion no; };", "options { recursion no; ", "options { { }; }; }; x;"]
)
def test_braces_that_do_not_match(tmp_path: Path, text: str) -> None:
    """What is behind one too many would not be read."""
    (tmp_path / "main.conf").write_text(text)
    assert access.lists_of("named", tmp_path, ["/main.conf"]) is None


def test_long_lists(tmp_path: Path) -> None:
    for end in ("]", ""):
        text = f"incoming:\n  allow_from: [{'10.0.0.0/8, ' * 1000}{end}\n"
        (found,) = found_in(tmp_path, "pdns_recursor", text)
        assert found.startswith("allow-from: [10.0.0.0/8")


def test_what_is_shown(tmp_path: Path) -> None:
    """Nothing that a terminal obeys, or that cannot be printed, and not much."""
    os.mkdir(os.fsencode(tmp_path) + b"/\xff" + b"x" * 200)
    (part,) = tmp_path.iterdir()
    (part / "a.conf").write_text("access-control-view: \33[2J a\n" + OPEN4 + OPEN6)
    (found,) = found_in(tmp_path, "unbound", "include: /*/a.conf")
    assert found.startswith("access-control-view: ?[2J a (/?xx")
    assert len(found) < 400


def test_a_child_tells_no_more_than_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"access-control-view: 10.{one}.0.0/16 a\n" for one in range(50)]
    (tmp_path / "main.conf").write_text("".join([OPEN4, OPEN6, *lines]))
    monkeypatch.setattr(access, "_where", lambda *_: (tmp_path, ["/main.conf"], []))
    monkeypatch.setattr(access, "_bound", lambda: None)
    access._main("unbound", 1)
    told = json.loads(capsys.readouterr().out)
    assert len(told) == 4
    assert told[3] == "and 47 more"
