# SPDX-License-Identifier: Apache-2.0
"""Rules of iptables, as iptables-save(8) prints them: no I/O here."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import itertools
import shlex
from collections.abc import Iterator

from carom.daemon.ruleset import (
    PORTS,
    Chain,
    Destination,
    Match,
    Requests,
    Rule,
    Spans,
    Verdict,
    interface_match,
    merged,
    spans_of,
    state_match,
    within,
)

HOOKS = {"PREROUTING", "INPUT"}
_UDP = {"udp", "17", "all", "0"}
_READ = {"udp", "multiport", "conntrack", "state", "comment", "addrtype"}
"""Extensions whose options are read here; what any other matches is not known."""

_VERDICTS = {
    "ACCEPT": Verdict("accept"),
    "DROP": Verdict("drop"),
    "REJECT": Verdict("drop"),
    "TARPIT": Verdict("drop"),
    "RETURN": Verdict("return"),
    **dict.fromkeys(("NFQUEUE", "QUEUE", "TPROXY"), Verdict("elsewhere")),
}
_GO_ON = {
    *("LOG", "NFLOG", "MARK", "CONNMARK", "CT", "NOTRACK", "TRACE", "SET", "TOS", "DSCP", "TTL"),
    *("HL", "CLASSIFY", "AUDIT", "SECMARK", "CONNSECMARK", "CHECKSUM", "TCPMSS", "HMARK", "TEE"),
    *("RATEEST", "IDLETIMER", "ULOG", "MASQUERADE", "SNAT", "NETMAP", "TCPOPTSTRIP", "LED"),
}


def tables(tool: str, text: str) -> list[dict[str, Chain]]:
    """Each table's chains by name; `tool` names them, and its version of IP."""
    version = 6 if tool.startswith("ip6") else 4
    result: list[dict[str, Chain]] = []
    rules: dict[str, list[Rule]] = {}
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
            result.append({})
            rules = {}
        elif line.startswith(":"):
            name, policy, *_ = line[1:].split()
            rules[name] = []
            result[-1][name] = _chain(f"{tool} -t {table}", version, name, policy, rules[name])
        elif line.startswith("-A"):
            words = shlex.split(line)
            rule = functools.partial(_verdicts, words[2:])
            rules.setdefault(words[1], []).append(Rule(f"{tool} -t {table} {line}", rule))
    return result


def _chain(tool: str, version: int, name: str, policy: str, rules: list[Rule]) -> Chain:
    where = f"{tool} {name}"

    def applies(requests: Requests) -> bool:
        return requests.version == version

    if name not in HOOKS:
        return Chain(where, rules, None, applies)
    kind = "drop" if policy == "DROP" else "accept"
    return Chain(where, rules, kind, applies, f"{tool} -P {name} {policy}")  # type: ignore[arg-type]


def _verdicts(words: list[str], requests: Requests) -> Iterator[tuple[Match, Verdict]]:
    match = Match.ALL
    inverted = False
    verdict = None
    rest = iter(words)
    for word in rest:
        if word == "!":
            inverted = True
            continue
        if word in ("-j", "-g"):
            verdict = _verdict(word, next(rest, ""), list(rest))
            break  # what follows are the target's options
        if word == "-f":
            held = Match.NONE
        elif word.startswith("-") and word not in _FLAGS:
            held = _held(word, next(rest, ""), requests)
        else:
            continue
        match = min(match, held.inverted() if inverted else held)
        inverted = False
    if verdict:
        yield match, verdict


_FLAGS = {"--syn", "--physdev-is-in", "--physdev-is-bridged", "--rcheck", "--update", "--set"}


def _verdict(word: str, target: str, options: list[str]) -> Verdict | None:
    if target in _VERDICTS:
        return _VERDICTS[target]
    if target in ("DNAT", "REDIRECT"):
        return Verdict("elsewhere", to=_destination(options))
    if target in _GO_ON:
        return None
    return Verdict("goto" if word == "-g" else "jump", target)


def _destination(options: list[str]) -> Destination | None:
    """`--to-destination 192.0.2.1:53`, `--to-ports 53`; None where that is no single place."""
    given = dict(itertools.pairwise(options))
    try:
        if "--to-destination" not in given:
            port = given.get("--to-ports")
            return Destination(None, int(port) if port else None, local=True)
        to = given["--to-destination"]
        with contextlib.suppress(ValueError):
            return Destination(ipaddress.ip_address(to))
        address, _, port = to.rpartition(":")
        return Destination(
            ipaddress.ip_address(address.strip("[]")) if address else None, int(port)
        )
    except ValueError:  # a range
        return None


def _held(option: str, value: str, requests: Requests) -> Match:
    if option == "-p":
        return Match.ALL if value in _UDP else Match.NONE
    if option in ("-s", "-d"):
        have = requests.source if option == "-s" else requests.destination
        return within(have, _networks(value))
    if option == "-i":
        return interface_match(requests, [value])
    if option in ("--dport", "--dports", "--sport", "--sports", "--ports"):
        mine: Spans = ((requests.port, requests.port),)
        either = [within(mine, _ports(value))] if option != "--sport" else []
        if option in ("--sport", "--sports"):
            return within(PORTS, _ports(value))
        if option == "--ports":
            either.append(within(PORTS, _ports(value)))
        return max(either)
    if option in ("--ctstate", "--state"):
        return state_match(requests, value.split(","))
    if option == "--dst-type":
        return Match.ALL if "LOCAL" in value.split(",") else Match.NONE
    if option == "-m":
        return Match.ALL if value in _READ else Match.UNKNOWN
    return Match.ALL if option == "--comment" else Match.UNKNOWN


def _networks(text: str) -> Spans:
    spans: Spans = ()
    for network in text.split(","):
        spans += spans_of(ipaddress.ip_network(network, strict=False))
    return merged(spans)


def _ports(text: str) -> Spans:
    """`53`, `50:60`, `53,60:`."""
    spans = []
    for part in text.split(","):
        low, colon, high = part.partition(":")
        spans.append((int(low or 0), int(high or 65_535) if colon else int(low)))
    return merged(spans)
