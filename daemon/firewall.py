# SPDX-License-Identifier: Apache-2.0
"""What the host's firewall would drop: it does not see what is answered before it."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from carom.daemon import iptables, nftables, ruleset, xfrm
from carom.daemon.ruleset import Chain, Requests
from carom.kernel import forked, netlink, netns
from carom.kernel.links import Interface
from carom.kernel.netlink import Address

T = TypeVar("T")

_PATIENCE = 20.0  # seconds for a tool to list its rules
_OF_IPTABLES = {"raw", "mangle", "nat", "filter", "security"}
_APART = 64
"""Up to this many addresses of an interface are looked at one by one, more all together."""

_NETFILTER, _GETCHAIN = 12, 10 << 8 | 4  # NETLINK_NETFILTER; NFT_MSG_GETCHAIN
_GETTABLE = 10 << 8 | 1  # NFT_MSG_GETTABLE
_TABLE_NAME, _TABLE_FLAGS, _DORMANT = 1, 2, 1  # NFTA_TABLE_*, NFT_TABLE_F_DORMANT
_FAMILIES = {1: "inet", 2: "ip", 5: "netdev", 7: "bridge", 10: "ip6"}  # NFPROTO_*
_GENERIC = struct.Struct("=BBH")  # struct nfgenmsg
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK = 1, 3, 4  # NFTA_CHAIN_*
_HOOK_DEV, _HOOK_DEVS = 3, 4  # NFTA_HOOK_*
_KIND = 0x3FFF  # without NLA_F_NESTED


class Way(NamedTuple):
    """By which interface requests come to which address; `lower` and `bridged` as in Requests."""

    interface: str
    address: Address
    lower: bool = False
    bridged: bool = False


def ways(
    interfaces: Iterable[Interface], answered_at: Callable[[str, Iterable[Address]], list[Address]]
) -> Iterator[Way]:
    """The ways by some interfaces to those of their addresses that `answered_at` chooses."""
    for interface in interfaces:
        for address in answered_at(interface.name, interface.addresses):
            yield Way(interface.name, address, interface.enslaved, interface.enslaved)
        for upper in interface.uppers:
            for address in answered_at(interface.name, upper.addresses):
                yield Way(interface.name, address, lower=True, bridged=interface.enslaved)


class Findings(NamedTuple):
    """What the firewall does with requests to a port.

    `certain`: what it drops by default, and by which rule. `rules`: all that may drop requests, or
    name the port. `unread`: what could not be read.
    """

    certain: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


class Ruleset:
    """The rules in force in a network namespace."""

    def __init__(self) -> None:
        """Read those of the calling thread's namespace."""
        self.unread: list[str] = []
        self._saved = dict(self._iptables())
        by_nft = _iptables_is_nft()
        self._twice = by_nft
        text = self._output("nft", "-j", "list", "ruleset")
        self._objects: list[dict[str, Any]] = msgspec.json.decode(text)["nftables"] if text else []
        skip = (
            {(family, table) for family in ("ip", "ip6") for table in _OF_IPTABLES}
            if by_nft
            else set()
        )
        skip |= set(_dormant())
        chains = list(_kernel_chains())
        devices = {
            (chain.family, chain.table, chain.name): chain.devices
            for chain in chains
            if chain.devices
        }
        self._tables = nftables.tables(self._objects, skip, devices)
        for tool, saved in self._saved.items():
            self._tables += iptables.tables(tool, saved)
        with contextlib.suppress(OSError):  # a kernel without IPsec
            self._tables.append({policy.where: policy for policy in xfrm.policies()})
        if not shutil.which("nft"):
            self.unread += _hidden_chains(chains, seen=self._twice)

    def _output(self, *command: str) -> str:
        if not shutil.which(command[0]):
            return ""
        try:
            return forked.run(command, timeout=_PATIENCE).decode()
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self.unread.append(f"`{' '.join(command)}` failed: {error}")
            return ""

    def _iptables(self) -> Iterator[tuple[str, str]]:
        """iptables-save(8) by tool; legacy ones load modules, so only where their tables are."""
        for tool in ("iptables", "ip6tables"):
            exact = f"{tool}-nft-save"
            yield tool, self._output(exact if shutil.which(exact) else f"{tool}-save")
            legacy = f"{tool}-legacy"
            names = Path("/proc/thread-self/net") / f"{tool.removesuffix('tables')}_tables_names"
            try:
                if not names.exists() or not names.read_text():
                    continue
            except PermissionError:
                self.unread.append(f"{names} cannot be read: that needs root")
                continue
            if not shutil.which(f"{legacy}-save"):
                self.unread.append(f"{legacy}-save is not installed, and its tables have rules")
            yield legacy, self._output(f"{legacy}-save")

    def chains(self) -> Iterator[tuple[Chain, dict[str, Chain]]]:
        """The chains that the kernel starts at, each with all chains of its table."""
        for table in self._tables:
            for chain in table.values():
                if chain.policy:
                    yield chain, table

    def naming(self, port: int) -> Iterator[str]:
        """The place of each rule that names this UDP destination port."""
        yield from _nftables(self._objects, port, twice=self._twice)
        for tool, saved in self._saved.items():
            yield from _naming(tool, saved, port)


def look(
    rules: Ruleset, port: int, ways: Iterable[Way], allow: Sequence[str] = (), *, exact: bool = True
) -> Findings:
    """What the firewall does with the requests that are answered on a port.

    With `allow`, only with those from these prefixes: what it drops by default of these, the
    allow-list lets through wrongly. `exact` is False for another network namespace, where the ways
    are not known. In both cases a drop is not `certain` where some rule may accept before.
    """
    certain: dict[str, None] = {}
    listed: dict[str, None] = {}
    for requests, name in _requests(port, ways, allow, exact=exact):
        for chain, table in rules.chains():
            if not chain.applies(requests):
                continue
            fate = ruleset.judge(chain, table, requests, strictly=bool(allow))
            if fate.why and not (fate.perhaps and (allow or not exact)):
                certain[f"{name}: {fate.why}"] = None
            if fate.why:
                listed.setdefault(fate.why)
            listed |= dict.fromkeys(fate.drops)
    named = {rule.removesuffix(ruleset.HANDS_ON) for rule in listed}
    listed |= dict.fromkeys(rule for rule in rules.naming(port) if rule not in named)
    return Findings(tuple(certain), tuple(listed), tuple(rules.unread))


def _requests(
    port: int, ways: Iterable[Way], allow: Sequence[str], *, exact: bool
) -> Iterator[tuple[Requests, str]]:
    """The requests that are answered, by way and prefix, each with a name."""
    together: dict[tuple[str, bool, bool, int], list[Address]] = {}
    for way in ways:
        if not exact:  # there it has another address, and another interface
            way = Way("", way.address, lower=True)
        key = way.interface, way.lower, way.bridged, way.address.version
        together.setdefault(key, []).append(way.address)
    for (interface, lower, bridged, version), addresses in together.items():
        apart = exact and len(addresses) <= _APART
        groups = [[address] for address in addresses] if apart else [addresses]
        networks = [
            network for network in map(ipaddress.ip_network, allow) if network.version == version
        ]
        sources = [(ruleset.spans_of(network), f"from {network} ") for network in networks]
        for group in groups:
            to = str(group[0]) if len(group) == 1 else f"{len(group):,} addresses"
            for source, who in sources if allow else [(ruleset.all_sources(version), "")]:
                spans = tuple((int(address), int(address)) for address in group)
                if not exact:
                    spans = ((0, 2**128),)
                yield (
                    Requests(version, source, spans, port, interface, lower, False, bridged),
                    f"{who}to {to} port {port} on {interface or 'any interface'}",
                )


def inside(pid: int, function: Callable[[], T]) -> T | None:
    """Call a function in the network namespace of a process; None where that fails."""
    results: list[T] = []

    def enter() -> None:  # in a thread, so that nothing else moves there
        with contextlib.suppress(OSError):
            netns.enter(Path(f"/proc/{pid}"))
            results.append(function())

    thread = threading.Thread(target=enter, name=f"namespace of {pid}")
    thread.start()
    thread.join()
    return results[0] if results else None


def elsewhere(pids: Iterable[int]) -> list[int]:
    """Of these processes, one for each network namespace that is not ours."""
    seen = {_namespace(os.getpid())}
    chosen = []
    for pid in pids:
        namespace = _namespace(pid)
        if namespace and namespace not in seen:
            seen.add(namespace)
            chosen.append(pid)
    return chosen


def _namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return ""


def _iptables_is_nft() -> bool:
    """Whether iptables-save shows the tables that iptables keeps in nftables."""
    if shutil.which("iptables-nft-save"):
        return True
    if not shutil.which("iptables-save"):
        return False
    try:
        version = forked.run(["iptables-save", "-V"], timeout=_PATIENCE)
    except (OSError, subprocess.SubprocessError):
        return False
    return b"nf_tables" in version


class _KernelChain(NamedTuple):
    family: str
    table: str
    name: str
    devices: tuple[str, ...]


def _listed(kind: int) -> Iterator[tuple[str, dict[int, bytes]]]:
    """Family and attributes of every object of a kind that the kernel's nftables has."""
    try:
        messages = netlink.dump(kind, _GENERIC.pack(socket.AF_UNSPEC, 0, 0), _NETFILTER)
    except OSError:  # a kernel without nftables
        return
    for message in messages:
        family = _FAMILIES.get(_GENERIC.unpack_from(message)[0])
        if family:
            yield family, _nested(bytes(message[_GENERIC.size :]))


def _nested(data: bytes) -> dict[int, bytes]:
    return {kind & _KIND: value for kind, value in netlink.attributes(memoryview(data))}


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")


def _dormant() -> Iterator[tuple[str, str]]:
    """Family and name of the tables that are switched off: nft's JSON does not say so."""
    for family, attributes in _listed(_GETTABLE):
        if int.from_bytes(attributes.get(_TABLE_FLAGS, b""), "big") & _DORMANT:
            yield family, _text(attributes[_TABLE_NAME])


def _kernel_chains() -> Iterator[_KernelChain]:
    """The chains at hooks, with their devices, which an old nft's JSON leaves out."""
    for family, attributes in _listed(_GETCHAIN):
        if _CHAIN_HOOK not in attributes:
            continue
        hook = _nested(attributes[_CHAIN_HOOK])
        names = [hook[_HOOK_DEV]] if _HOOK_DEV in hook else []
        if _HOOK_DEVS in hook:
            names = [value for _, value in netlink.attributes(memoryview(hook[_HOOK_DEVS]))]
        table, name = (_text(attributes.get(kind, b"")) for kind in (_CHAIN_TABLE, _CHAIN_NAME))
        yield _KernelChain(family, table, name, tuple(map(_text, names)))


def _hidden_chains(chains: Iterable[_KernelChain], *, seen: bool) -> Iterator[str]:
    """A line on chains that no installed tool can read; with `seen`, iptables' own are read."""
    names = [
        f"{chain.table} {chain.name}"
        for chain in chains
        if not (seen and chain.table in _OF_IPTABLES and chain.family in ("ip", "ip6"))
    ]
    if names:
        yield f"nft is not installed, and nftables has chains: {', '.join(names[:5])}"


def _nftables(objects: list[dict[str, Any]], port: int, *, twice: bool) -> Iterator[str]:
    """Rules of `nft -j` (libnftables-json(5)) on a port; `twice`: without those iptables shows."""
    sets = {
        (content["family"], content["table"], content["name"]): content.get("elem", [])
        for wrapped in objects
        for kind, content in wrapped.items()
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
            named |= any(
                _covers(element, port) for element in _walk(sets.get((*table, node[1:]), []))
            )
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


def _naming(tool: str, saved: str, port: int) -> Iterator[str]:
    """Lines of iptables-save(8) that name a port."""
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith("-A") and _names(line.split(), port):
            yield f"{tool} -t {table} {line}"


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
