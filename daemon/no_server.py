# SPDX-License-Identifier: Apache-2.0
"""Messages on why there is no server to front: who else is at the port, what is not seen."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from carom import protocols
from carom.daemon import sockets
from carom.daemon.options import Options
from carom.daemon.receiver import listed, some
from carom.daemon.sockets import Namespace, Socket
from carom.errors import InterfaceError, ServerError
from carom.kernel import capabilities, links, netlink
from carom.kernel.links import Interface
from carom.kernel.netlink import Address

_LOOKING = 19, 2  # CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH, linux/capability.h
_FIRST_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO, linux/proc_ns.h


def none_listens(
    options: Options,
    port: int,
    at: str,
    namespaces: Iterable[Namespace],
    keepers: Iterable[Socket] = (),
    handing: Sequence[str] = (),
) -> ServerError:
    """The error that nobody listens on a UDP port, `at` the given address, in these namespaces.

    `keepers` are sockets held for a container, whose server may have another port; `handing` are
    rules that send some requests on, or send them where nobody can tell.
    """
    message = f"no process of this host listens on UDP port {port}{at}"
    if port != options.port:
        message += f", which requests to port {options.port} are translated to"
    others = _over_tcp(port, namespaces)
    how = protocols.spec(options.protocol).how_to_have_udp(port)
    if others:
        more = f"{how}, else it has none" if how else "UDP"
        return ServerError(
            f"{message}, and over TCP alone {', '.join(others)} does",
            hint=f"carom answers over UDP: start the server with {more}",
            passing=True,
            trap="no-udp",
        )
    if any(keepers):
        message += f"; port {options.port} itself is only held for a container"
    if handing:
        message += f"; rules send some requests on, or nobody can tell where: {some(handing)}"
    udp = f" (a {options.protocol} with {how}: else it has no UDP)" if how else ""
    hints = [
        f"start the server first{udp}; one on another host cannot be fronted from here",
        "--server-port PORT for one that has another port, which this host translates requests to"
        + (" (with --allow PREFIX where it does so for some sources alone)" if handing else ""),
    ]
    hint = "; ".join((*hints, *_unseen()))
    return ServerError(message, hint=hint, passing=True, trap="no-server")


def none_receives(
    names: Iterable[str], at_port: Sequence[Socket], addresses: Sequence[Address]
) -> ServerError:
    """The error that no request by these interfaces, with these addresses, gets to the server."""
    return ServerError(
        f"the server on UDP port {at_port[0].port} is bound to "
        f"{', '.join(map(str, at_port))} alone, which no request by {', '.join(names)} reaches",
        hint="; or ".join(_where_to_receive(at_port, addresses)),
        passing=True,
        trap="not-received",
    )


def _where_to_receive(at_port: Sequence[Socket], addresses: Sequence[Address]) -> Iterator[str]:
    """Hints for that server: about its device, or about its address."""
    devices = [links.numbered(index) for index in {socket.device for socket in at_port} if index]
    bound = [device for device in devices if device]
    in_vrf = any(device.driver == "vrf" for device in bound) or not bound
    for device in bound:
        if device.driver == "vrf":
            yield f"-i an interface that is in the VRF {device.name}"
        elif _may_be_named(device):
            yield f"-i {device.name}, the device that it is bound to"
    if not any(socket.receives(address) for socket in at_port for address in addresses):
        yield from _where_to_bind({socket.address for socket in at_port}, addresses)
    elif in_vrf:
        yield (
            "ip vrf exec starts it in the interface's VRF, and sysctl "
            "net.ipv4.udp_l3mdev_accept=1 lets one that is bound to no device receive from all"
        )
    else:
        yield "start it without binding it to a device"


def _where_to_bind(at: set[Address], addresses: Sequence[Address]) -> Iterator[str]:
    """Hints for a server at addresses that the interfaces do not have."""
    for index, own in netlink.addresses().items():
        interface = None if at.isdisjoint(own) else links.numbered(index)
        if interface and _may_be_named(interface):
            yield f"-i {interface.name}, which has its address"
    yield f"bind it to an address of the interface: {listed(addresses) or 'it has none'}"


def _may_be_named(interface: Interface) -> bool:
    with contextlib.suppress(InterfaceError):
        return bool(links.interface(interface.name))
    return False


def _over_tcp(port: int, namespaces: Iterable[Namespace]) -> list[str]:
    """The processes that listen on the TCP port, as a user knows them."""
    names = []
    for namespace in namespaces:
        listening = [
            socket.inode
            for socket in sockets.bound(namespace.process, stream=True)
            if socket.serves and socket.port == port
        ]
        for pids in sockets.holders(listening, sockets.processes()).values():
            names += [sockets.name(pid) for pid in sorted(pids)] or ["a process that is not seen"]
    return list(dict.fromkeys(names))


def _unseen() -> list[str]:
    """Hints at what may hide a server that does run."""
    hints = []
    if capabilities.missing("SYS_ADMIN"):
        hints.append("in other network namespaces it is looked for with CAP_SYS_ADMIN alone")
    if os.readlink("/proc/self/ns/pid") != _FIRST_PID_NAMESPACE:
        hints.append("of a PID namespace other than carom's own no process is seen")
    hidden = [int(process.name) for process in sockets.processes() if _is_hidden(process)]
    if hidden:
        status = Path("/proc/self/status").read_text()
        hints.append(hidden_words([sockets.name(pid) for pid in sorted(hidden)], status))
    return hints


def hidden_words(hidden: Sequence[str], status: str) -> str:
    """A hint at processes that could not be looked into; `status` is carom's own, as in proc(5)."""
    many = f"{len(hidden):,} processes" if len(hidden) > 1 else "1 process"
    effective = next(int(line.split()[1], 16) for line in status.splitlines() if "CapEff" in line)
    why = (
        "the kernel keeps that back from root here, too (a security module, or another user "
        "namespace)"
        if all(effective >> capability & 1 for capability in _LOOKING)
        else "that takes root, or CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
    )
    return f"{many} may not be looked into ({some(hidden)}): {why}"


def _is_hidden(process: Path) -> bool:
    try:
        os.readlink(process / "ns/net")
    except PermissionError:
        return True
    except OSError:  # it has ended
        pass
    return False
