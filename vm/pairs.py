# SPDX-License-Identifier: Apache-2.0
"""The pairs that `--on` can name: `netns`, `vagrant`, or a file with two machines."""

from __future__ import annotations

import functools
import ipaddress
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from carom.errors import UsageError
from carom.vm.netns import NamespacePair
from carom.vm.pair import Make, Pair
from carom.vm.ssh import Machine, SSHHost, SSHPair
from carom.vm.vagrant import VagrantPair

_PATHS = ("identity", "config", "known_hosts")


class Machines(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of a pair's file: a table for each machine."""

    client: Machine
    server: Machine


def make(on: str) -> Make:
    """A function that makes the pair of this name. Raises UsageError."""
    if on == "netns":
        return NamespacePair
    if on == "vagrant":
        return _vagrant
    if on.endswith(".toml"):
        return functools.partial(_ssh, read(Path(on)))
    raise UsageError(
        f"there is no pair {on!r}", hint="there are netns, vagrant, and files that end in .toml"
    )


def read(path: Path) -> Machines:
    """The machines of a file. Raises UsageError that names the key that is wrong."""
    try:
        machines = msgspec.convert(tomllib.loads(path.read_text()), Machines)
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}", hint="it names two machines: see docs/pairs.md"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{path}: {_said(str(error))}", hint="docs/pairs.md has what there is"
        ) from error
    return Machines(
        client=_checked(path, "client", machines.client),
        server=_checked(path, "server", machines.server),
    )


def _said(error: str) -> str:
    """msgspec's message, with the key as in TOML."""
    problem, _, where = error.partition(" - at `$.")
    return f"{where.rstrip('`')}: {problem}" if where else problem


def _checked(path: Path, role: str, machine: Machine) -> Machine:
    """The machine, with paths relative to the pair's file made whole. Raises UsageError."""

    def wrong(key: str, hint: str) -> UsageError:
        return UsageError(f"{path}: {role}.{key} cannot be {getattr(machine, key)!r}", hint=hint)

    try:
        ipaddress.IPv4Address(machine.address)
    except ValueError as error:
        raise wrong("address", "the IPv4 address of `interface`: 198.18.0.1") from error
    if machine.port is not None and not 1 <= machine.port <= 65_535:
        raise wrong("port", "1 to 65535")
    if not machine.host or machine.host.startswith("-"):
        raise wrong("host", "a name or an address, as ssh takes it")
    if not re.fullmatch(r"[^/\s-][^/\s]{0,14}", machine.interface):
        raise wrong("interface", "as `ip link` shows it there: eth1")
    if not machine.folder.startswith("/"):
        raise wrong("folder", "a path from the root")
    if machine.host_keys == "accept-new" and machine.config and not machine.known_hosts:
        raise wrong("host_keys", "with `config`, name the file that keeps them: `known_hosts`")
    beside: dict[str, Any] = {}
    for key in _PATHS:
        value = getattr(machine, key)
        try:
            beside[key] = value and str(path.parent / Path(value).expanduser())
        except RuntimeError as error:
            raise wrong(key, "a file below the home of a user that there is") from error
    return msgspec.structs.replace(machine, **beside)


def _ssh(machines: Machines, *, bare: bool = False) -> Pair:
    """The pair of two machines. It is always `bare`: no program of ours is on the client's end."""
    return SSHPair(SSHHost("client", machines.client), SSHHost("server", machines.server), _tell)


def _vagrant(*, bare: bool = False) -> Pair:
    """The pair of VMs, which is always `bare` too."""
    return VagrantPair(_tell)


def _tell(line: str) -> None:
    print(line, file=sys.stderr)
