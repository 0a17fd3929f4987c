# SPDX-License-Identifier: Apache-2.0
"""Checks of a service: whether its server gets requests, and whom the fast path passes by."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from carom import protocols
from carom.daemon import sockets
from carom.daemon.bypassed_programs import cgroup_programs
from carom.daemon.doctor.check import CHECKS, Found, NotKnown, check
from carom.daemon.doctor.look import Asked, Look
from carom.daemon.firewall_check import FirewallCheck, cgroup_words
from carom.daemon.fronted_server import FrontedServer
from carom.errors import CaromError
from carom.kernel.cgroups import open_root

_UDP = "; ".join(
    f"{spec.name}: `{option}`"
    for spec in protocols.SPECS.values()
    if (option := spec.how_to_have_udp(spec.port or 0))
)

Looks = Callable[[Look, Asked], Iterator[Found]]


def _refused(trap: str) -> Looks:
    """What keeps carom from finding where a service receives, if this trap does."""

    def looks(look: Look, asked: Asked) -> Iterator[Found]:
        error = look.refusal(asked)
        if error and error.trap == trap:
            yield Found(str(error), error.hint or "")

    return looks


check(
    "no-server",
    "service",
    "useless",
    means="no process of this host receives at the service's UDP port",
    remedy="start the server; for one at another port behind a translation `--server-port`",
)(_refused("no-server"))

check(
    "no-udp",
    "service",
    "useless",
    means="the server listens over TCP alone",
    remedy=f"turn its UDP on ({_UDP})",
)(_refused("no-udp"))

check(
    "not-received",
    "service",
    "useless",
    means="the server is bound to addresses that no request by these interfaces reaches, as to "
    "loopback's alone",
    remedy="bind it to an address of the interface, or to all",
)(_refused("not-received"))

check(
    "several-servers",
    "service",
    "useless",
    means="servers of several users, or in several network namespaces, hold the port",
    remedy="`--bind ADDRESS` chooses the one that is bound to it",
)(_refused("several-servers"))

check(
    "unix-socket",
    "service",
    "useless",
    means="the server can be written to by a Unix socket, where writes are not seen",
    remedy="start it without; or `--writes-elsewhere ttl` accepts replies as old as the TTL",
)(_refused("unix-socket"))

check(
    "unseen-processes",
    "service",
    "useless",
    means="the processes that hold the server's sockets are not seen, nor so its other doors",
    remedy="run carom as root, in the host's PID namespace; or `--writes-elsewhere ttl`",
)(_refused("unseen-processes"))

check(
    "address",
    "service",
    "useless",
    means="no interface that is named has the address that is to be bound",
    remedy="`-i` with the one that has it, or another `--bind`",
)(_refused("address"))


@check(
    "refused",
    "service",
    "useless",
    means="carom would not start before this server, for another reason",
    remedy="as it says",
)
def refused(look: Look, asked: Asked) -> Iterator[Found]:
    """Any other reason."""
    error = look.refusal(asked)
    if error and error.trap not in CHECKS:
        yield Found(str(error), error.hint or "")


@check(
    "port-held",
    "service",
    "useless",
    means="another process holds the UDP port, at which a Python service could not receive",
    remedy="stop it, or another `-p`; `carom front` goes before a server that is there",
)
def port_held(look: Look, asked: Asked) -> Iterator[Found]:
    """Is the port free for a Python service?"""
    if asked.front or look.pid:
        return
    options, bind = asked.options, ipaddress.ip_address(asked.options.bind)
    held = [
        socket
        for socket in sockets.bound(Path("/proc/self"), stream=False)
        if socket.port == options.port
        and (socket.receives(bind) or (bind.is_unspecified and _meets(socket, bind.version)))
    ]
    if held:
        holders = sockets.holders((socket.inode for socket in held), sockets.processes())
        pids = sorted({pid for pids in holders.values() for pid in pids})
        who = ", ".join(map(sockets.name, pids)) or "a process that is not seen"
        yield Found(
            f"UDP port {options.port} is held by {who}",
            "stop it, or take another -p; carom front goes before a server that is there",
        )


def _meets(socket: sockets.Socket, version: int) -> bool:
    return version == 6 or socket.address.version == 4 or not socket.ipv6_only


@check(
    "control-groups",
    "service",
    "useless",
    means="control groups of version 2 cannot be used here: the edge's programs are attached there",
    remedy="a kernel with CONFIG_CGROUP_BPF, and the rights to mount",
)
def control_groups(look: Look, asked: Asked) -> Iterator[Found]:
    """Can the server's sockets be watched?"""
    if not asked.front:
        return
    try:
        os.close(open_root())
    except PermissionError as error:
        raise NotKnown("control groups are opened as root alone") from error
    except OSError as error:
        yield Found(
            f"control groups of version 2 cannot be opened: {error.strerror}",
            "a kernel with CONFIG_CGROUP_BPF",
        )


@check(
    "dropped",
    "service",
    "slow",
    means="the server's sockets have dropped requests that missed: their buffers were full",
    remedy="a larger buffer (`net.core.rmem_default` before the server starts), more threads, "
    "or more hits",
)
def dropped(look: Look, asked: Asked) -> Iterator[Found]:
    """Does the server keep up with the misses?"""
    receiver = look.receiver(asked)
    count = sum(
        _drops(Path(f"/proc/{pid}"), receiver.server_port) for pid in receiver.processes()[:1]
    )
    if count:
        yield Found(
            f"the server's sockets at port {receiver.server_port} have dropped {count:,} requests "
            "since they were opened: their buffers were full",
            "larger buffers (sysctl net.core.rmem_default, then start the server anew), or more "
            "threads",
        )


def _drops(process: Path, port: int) -> int:
    """The datagrams that the sockets at a port have dropped, in a process' network namespace."""
    count, end = 0, f":{port:04X}"
    for name in ("udp", "udp6"):
        try:
            lines = (process / "net" / name).read_text().splitlines()[1:]
        except OSError as error:
            raise NotKnown(f"{process}/net/{name} cannot be read: {error.strerror}") from error
        rows = (line.split() for line in lines)
        count += sum(int(row[-1]) for row in rows if row[1].endswith(end))
    return count


@check(
    "cookies",
    "service",
    "slow",
    means="the name server gives cookies: queries that have one go up to it",
    remedy="give it a secret of its own, and carom `--cookie-secret-file`",
)
def cookies(look: Look, asked: Asked) -> Iterator[Found]:
    """Can hits return the server's cookies?"""
    keeping = protocols.spec(asked.options.protocol).cookies
    if not keeping or not asked.front:
        return
    remedy = (
        "give it a secret, and carom --cookie-secret-file FILE with that "
        f"(docs/{asked.options.protocol}.md)"
    )
    for service in look.running.status["services"] if look.running and look.running.status else ():
        if service["port"] == asked.options.port and service.get("cookies"):
            if advice := service["cookies"]["advice"]:
                yield Found(advice, remedy)
            return
    if asked.options.cookie_secret_file:
        return
    receiver = look.receiver(asked)
    processes = [Path(f"/proc/{pid}") for pid in receiver.processes()]
    gives = keeping.gives(processes, receiver.server_port)
    if gives is None:
        raise NotKnown("the name server does not answer carom, so it may give cookies or not")
    if gives:
        yield Found(
            f"the server at port {receiver.server_port} gives cookies: queries that have one go "
            "up to it",
            remedy,
        )


def _firewall(look: Look, asked: Asked) -> FirewallCheck:
    found = look.firewall(asked)
    if isinstance(found, CaromError):
        raise NotKnown("see firewall")
    return found


@check(
    "firewall",
    "service",
    "useless",
    means="the firewall drops by default what would be answered: carom does not start",
    remedy="a rule that accepts the port, `--allow PREFIX`, or `--bypass-firewall` "
    "([firewalls](#firewalls))",
)
def firewall(look: Look, asked: Asked) -> Iterator[Found]:
    """Does the firewall forbid it?"""
    found = look.firewall(asked)
    if isinstance(found, CaromError):
        yield Found(str(found), found.hint or "")
    elif any(found.unread()):
        raise NotKnown("not all of it could be read (see firewall-rules)")


@check(
    "firewall-rules",
    "service",
    "note",
    means="the firewall has rules on the port, or drops, which hits pass by",
    remedy="`--allow PREFIX` repeats what they say",
)
def firewall_rules(look: Look, asked: Asked) -> Iterator[Found]:
    """Which rules do hits pass by?"""
    found = _firewall(look, asked)
    for words in found.rules():
        yield Found(words, "--allow PREFIX has to say the same")
    if unread := list(found.unread()):
        raise NotKnown("; ".join(unread))


@check(
    "redirected",
    "service",
    "useless",
    means="rules send requests on to somebody else: nothing is answered at that address",
    remedy="take the rule away, or front the server that it sends them to",
)
def redirected(look: Look, asked: Asked) -> Iterator[Found]:
    """Do requests get to the server?"""
    for words in _firewall(look, asked).elsewhere():
        yield Found(words, "take the rule away, or front the server that it sends them to")


@check(
    "cgroup-programs",
    "service",
    "note",
    means="programs of control groups on the server (systemd's `IPAddressDeny=`) do not see hits",
    remedy="`--allow PREFIX` repeats what they say",
)
def programs(look: Look, asked: Asked) -> Iterator[Found]:
    """Who is at the server's sockets?"""
    names = list(cgroup_programs(look.receiver(asked).processes()))
    if names:
        yield Found(cgroup_words(asked.options.port, names), "--allow PREFIX has to say the same")


@check(
    "access-lists",
    "service",
    "note",
    means="the server's configuration refuses some clients, or answers them otherwise: hits do not",
    remedy="`--allow PREFIX` repeats it ([name servers](#name-servers))",
)
def access_lists(look: Look, asked: Asked) -> Iterator[Found]:
    """Does the server answer everybody alike?"""
    receiver = look.receiver(asked)
    if isinstance(receiver, FrontedServer):
        for words in receiver.protocol.access_lists(receiver.processes()):
            yield Found(words, "--allow PREFIX has to say the same")
