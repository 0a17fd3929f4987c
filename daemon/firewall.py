# SPDX-License-Identifier: Apache-2.0
"""The firewall's rules on a UDP port: they do not apply to what is answered before the firewall."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import structlog

_PATIENCE = 5.0  # seconds for a tool to list its rules
_LEGACY_TABLES = ("net/ip_tables_names", "net/ip6_tables_names")
_OF_IPTABLES = {"raw", "mangle", "nat", "filter", "security"}

log = structlog.get_logger()


def rules_on(port: int) -> list[str]:
    """Where each rule of nftables or iptables that names this UDP destination port is.

    Of this network namespace; none where `nft` and `iptables-save` are not installed.
    """
    iptables = list(_iptables(port))
    nft = _output("nft", "-j", "list", "ruleset")
    found = msgspec.json.decode(nft)["nftables"] if nft else []
    return [*_nftables(found, port, twice=shutil.which("iptables-save") is not None), *iptables]


def _output(*command: str) -> str:
    if not shutil.which(command[0]):
        return ""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("the firewall's rules could not be read", error=str(error))
        return ""
    return done.stdout


def _nftables(objects: list[dict[str, Any]], port: int, *, twice: bool) -> Iterator[str]:
    """Rules among the objects of `nft -j` (libnftables-json(5)); iptables' own, if not `twice`."""
    sets = {
        (one["family"], one["table"], one["name"]): one.get("elem", [])
        for wrapped in objects
        for kind, one in wrapped.items()
        if kind in ("set", "map")
    }
    for wrapped in objects:
        rule = wrapped.get("rule")
        if not rule:
            continue
        family, table = rule["family"], rule["table"]
        if twice and family in ("ip", "ip6") and table in _OF_IPTABLES:
            continue
        if any(_is_about(statement, port, (family, table), sets) for statement in rule["expr"]):
            yield f"nft {family} {table} {rule['chain']} handle {rule['handle']}"


def _is_about(
    statement: Any, port: int, table: tuple[str, str], sets: dict[tuple[str, str, str], Any]
) -> bool:
    """Whether a statement looks at UDP destination ports, this one among them."""
    looks = named = False
    for node in _walk(statement):
        if isinstance(node, dict) and node.get("field") == "dport":
            looks |= node.get("protocol") in ("udp", "th")
        elif isinstance(node, str) and node.startswith("@"):
            named |= any(_covers(one, port) for one in _walk(sets.get((*table, node[1:]), [])))
        else:
            named |= _covers(node, port)
    return looks and named


def _walk(tree: Any) -> Iterator[Any]:
    yield tree
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    for part in parts:
        yield from _walk(part)


def _covers(node: Any, port: int) -> bool:
    if isinstance(node, dict) and "range" in node:
        low, high = node["range"]
        return isinstance(low, int) and isinstance(high, int) and low <= port <= high
    return type(node) is int and node == port


def _iptables(port: int) -> Iterator[str]:
    """Lines of iptables-save(8). The legacy tools load modules, so only where their tables are."""
    legacy = any((Path("/proc/thread-self") / name).read_text() for name in _legacy_tables())
    for tool in ("iptables", "ip6tables", *(("iptables-legacy", "ip6tables-legacy") * legacy)):
        table = ""
        for line in _output(f"{tool}-save").splitlines():
            if line.startswith("*"):
                table = line[1:]
            elif line.startswith("-A") and _names(line.split(), port):
                yield f"{tool} -t {table} {line}"


def _legacy_tables() -> list[str]:
    return [name for name in _LEGACY_TABLES if (Path("/proc/thread-self") / name).exists()]


def _names(words: list[str], port: int) -> bool:
    """Whether a rule's words are about UDP and this destination port."""
    return "udp" in words and any(
        option in ("--dport", "--dports", "--ports")
        and any(_within(part, port) for part in value.split(","))
        for option, value in itertools.pairwise(words)
    )


def _within(ports: str, port: int) -> bool:
    """`53`, or `50:60`."""
    low, _, high = ports.partition(":")
    return int(low) <= port <= int(high or low)
