# SPDX-License-Identifier: Apache-2.0
"""Whom unbound and NSD answer: their configurations have the same syntax."""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from carom.protocols.dns.configuration import Finding, Tree

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_TOKEN = re.compile(r'#[^\n]*|"[^"\n]*"|\'[^\'\n]*\'|[^\s"\']+')
_READ = r"(?:access-control|interface|include|do-ip[46]|allow-query)[a-z-]*"  # `KEY:VALUE`, too
_KEY = re.compile(rf"([a-z][a-z0-9-]*):$|({_READ}):(.+)$")
_WHOLE: dict[int, _Network] = {
    4: ipaddress.IPv4Network("0.0.0.0/0"),
    6: ipaddress.IPv6Network("::/0"),
}
_DIFFER = re.compile(
    r"(?:access-control|interface)-(?:view|tag(?:-action|-data)?)$|local-zone-override$|rpz$"
    r"|send-client-subnet$|client-subnet-(?:zone|always-forward)$"
)
_ALLOWS = ("allow", "allow_setrd", "allow_snoop")


class _Entry(NamedTuple):
    """A key and its values."""

    key: str
    values: tuple[str, ...]
    file: str

    def finding(self) -> Finding:
        return Finding(" ".join((f"{self.key}:", *self.values)), self.file)


def read(tree: Tree, arguments: Sequence[str] = ()) -> list[Finding] | None:
    """The statements that refuse clients of unbound or answer them differently; None: no file."""
    del arguments
    texts = list(tree.texts())
    if not texts:
        return None
    entries = list(_entries(tree, *texts[0]))
    findings = list(_actions(entries, texts[0][0]))
    return findings + [entry.finding() for entry in entries if _differs(entry)]


def _differs(entry: _Entry) -> bool:
    return bool(_DIFFER.match(entry.key)) and entry.values != ("no",)


def _actions(entries: list[_Entry], file: str) -> Iterator[Finding]:
    """For each IP version: what is refused by default, and blocks treated differently."""
    interfaces = [entry.values[0] for entry in entries if entry.key == "interface" and entry.values]
    by_interface = [entry for entry in entries if entry.key == "interface-action"]
    common = _common(interfaces, by_interface)
    served = _families(entries, interfaces)
    # The last entry for a block holds.
    blocks = {
        _block(entry): entry for entry in entries if entry.key == "access-control" and entry.values
    }
    rest = {
        family: blocks[whole].values[-1] if whole in blocks else common
        for family, whole in _WHOLE.items()
    }
    silent = [str(_WHOLE[family]) for family in sorted(served) if rest[family] is None]
    if silent:
        others = "all others but localhost" if blocks or by_interface else "all but localhost"
        where = " and ".join(silent)
        yield Finding(f"without access-control for {where}, {others} are refused", file)
    if common is None:
        yield from (entry.finding() for entry in by_interface)
    for block, entry in blocks.items():
        action = entry.values[-1]
        if block is None or (
            block.version in served and (action != rest[block.version] or action not in _ALLOWS)
        ):
            yield entry.finding()


def _common(interfaces: list[str], actions: list[_Entry]) -> str | None:
    """The action of the interfaces, if all have the same and it allows; else None."""
    by_interface = {entry.values[0]: entry.values[-1] for entry in actions if entry.values}
    common = {by_interface.get(name) for name in interfaces}
    action = common.pop() if len(common) == 1 else None
    return action if action in _ALLOWS else None


def _block(entry: _Entry) -> _Network | None:
    """The block of addresses that an entry is about; None if it names none."""
    try:
        return ipaddress.ip_network(entry.values[0], strict=False)
    except (IndexError, ValueError):
        return None


def _families(entries: list[_Entry], interfaces: list[str]) -> set[int]:
    """The IP versions that are served."""
    served = {_family(interface) for interface in interfaces} or {0}
    if 0 in served:
        served = set(_WHOLE)
    return served - {
        family for family in _WHOLE for entry in entries if entry[:2] == (f"do-ip{family}", ("no",))
    }


def _family(interface: str) -> int:
    try:
        return ipaddress.ip_address(interface.partition("@")[0]).version
    except ValueError:  # it is an interface's name
        return 0


def read_nsd(tree: Tree, arguments: Sequence[str] = ()) -> list[Finding] | None:
    """The lists that keep clients from NSD's zones; a zone without one answers everybody."""
    del arguments
    texts = list(tree.texts())
    if not texts:
        return None
    findings = []
    zone: list[_Entry] = []
    for entry in itertools.chain(_entries(tree, *texts[0]), [_Entry("zone", (), "")]):
        if entry.key == "allow-query":
            zone.append(entry)
        elif entry.key in ("zone", "pattern"):
            findings += _unlike(zone)
            zone = []
    return findings


def _unlike(queries: list[_Entry]) -> list[Finding]:
    """The lists of a zone, unless they let in everybody."""
    if {_block(query) for query in queries} >= set(_WHOLE.values()) and all(
        query.values[1:] == ("NOKEY",) for query in queries
    ):
        return []
    return [query.finding() for query in queries]


def _entries(tree: Tree, file: str, text: str, depth: int = 0) -> Iterator[_Entry]:
    for entry in _own(file, text):
        if entry.key not in ("include", "include-toplevel"):
            yield entry
        else:
            for name, inner in tree.included(file, entry.values, depth):
                yield from _entries(tree, name, inner, depth + 1)


def _own(file: str, text: str) -> Iterator[_Entry]:
    key, values = "", []
    for token in _TOKEN.findall(text):
        if token[0] == "#":
            continue
        match = _KEY.match(token)
        if not match:
            values.append(token.strip("\"'"))
            continue
        if key:
            yield _Entry(key, tuple(values), file)
        key, values = match[1] or match[2], [match[3]] if match[3] else []
    if key:
        yield _Entry(key, tuple(values), file)
