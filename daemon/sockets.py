# SPDX-License-Identifier: Apache-2.0
"""The sockets of this host: where each is bound, whose it is, and which processes hold it.

Bound sockets are listed by sock_diag(7), in the network namespace of a process; who holds them is
read from proc(5).
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from carom.errors import ServerError
from carom.kernel import netlink, netns
from carom.kernel.links import At
from carom.kernel.netlink import Address
from carom.kernel.processes import name_of

_NS_GET_USERNS = 0xB701  # linux/nsfs.h
_NETLINK_SOCK_DIAG, _BY_FAMILY = 4, 20  # linux/netlink.h, linux/sock_diag.h
_REQUEST = struct.Struct("=BBxxI48x")  # struct inet_diag_req_v2: any address, and any port
_LISTED = struct.Struct("=BBxx2s2x16s16xIII12xII")  # struct inet_diag_msg
_SKV6ONLY = 11  # INET_DIAG_SKV6ONLY, linux/inet_diag.h
_CLOSE, _LISTEN = 7, 10  # net/tcp_states.h; a UDP socket without a peer is in the first
_ALL_STATES = 0xFFF
_ACCEPTS = 0x10000  # __SO_ACCEPTCON, linux/net.h

Result = TypeVar("Result")


class Namespace(NamedTuple):
    """A network namespace: its name as proc has it, a process that is in it, its cookie."""

    name: str
    process: Path
    cookie: int


class Socket(NamedTuple):
    """An internet socket; `inode` is 0 for a connection that nobody has accepted yet."""

    cookie: int
    inode: int
    uid: int
    stream: bool
    serves: bool
    """Whether it serves anybody: a UDP socket without a peer, or a TCP socket that listens."""
    address: Address
    port: int
    ipv6_only: bool
    device: int = 0
    """The ifindex of the only interface or VRF that it receives by; 0 for any."""

    @property
    def bound(self) -> tuple[Address, int]:
        """The address and the device that it is bound to."""
        return self.address, self.device

    def receives_at(self, at: At) -> bool:
        """Whether packets that come to its host this way reach it."""
        return self.receives(at.address) and takes_from(self.device, at.link, at.vrf)

    def receives(self, address: Address) -> bool:
        """Whether packets to an address of its host may reach it, by some link."""
        if not self.address.is_unspecified:
            return self.address == address
        return self.address.version == address.version or (
            self.address.version == 6 and not self.ipv6_only
        )

    def __str__(self) -> str:
        shown = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        device = f"%{_device_name(self.device)}" if self.device else ""
        return f"{shown}{device}:{self.port}"


def _device_name(device: int) -> str:
    """A device as ss(8) shows it, or by its number where it is another namespace's."""
    with contextlib.suppress(OSError):
        return socket.if_indextoname(device)
    return str(device)


def takes_from(device: int, link: int, vrf: int) -> bool:
    """Whether a UDP socket that is bound to a device (0: to none) gets packets that come by a link.

    Packets in a VRF get to a socket without a device only if a sysctl says so (ip-vrf(8)).
    """
    if device:
        return device in (link, vrf)
    return not vrf or _takes_from_vrfs()


def _takes_from_vrfs() -> bool:
    with contextlib.suppress(OSError):  # a kernel without VRFs
        return Path("/proc/sys/net/ipv4/udp_l3mdev_accept").read_text().strip() == "1"
    return False


def inside(process: Path, function: Callable[[], Result]) -> Result:
    """Call a function in a process' network namespace, in a thread that alone moves there.

    Raises what the function raises, and OSError where the process has ended.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            netns.enter(process)
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def namespace_of(process: Path) -> Namespace:
    """The network namespace of a process. Raises OSError where it has ended."""
    return Namespace(os.readlink(process / "ns/net"), process, inside(process, netns.own_cookie))


def _user_namespace(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def is_ours(process: Path) -> bool:
    """Whether the user namespace that owns a process' network namespace is carom's own.

    Any user can make other user namespaces, and be root in them. Raises OSError.
    """
    with contextlib.ExitStack() as stack:
        mine = os.open("/proc/self/ns/user", os.O_RDONLY)
        stack.callback(os.close, mine)
        netns = os.open(process / "ns/net", os.O_RDONLY)
        stack.callback(os.close, netns)
        try:
            owner = fcntl.ioctl(netns, _NS_GET_USERNS)
        except PermissionError:
            return False  # its owner is not within ours
        stack.callback(os.close, owner)
        return _user_namespace(owner) == _user_namespace(mine)


def other_namespaces() -> Iterator[Namespace]:
    """The network namespaces of this host's processes, without carom's own."""
    for process in _elsewhere():
        with contextlib.suppress(OSError):  # it has ended
            yield namespace_of(process)


def namespaces_at(port: int) -> Iterator[Namespace]:
    """Those of the others that carom's user namespace owns, and where a UDP socket has a port."""
    for process in _elsewhere():
        with contextlib.suppress(OSError):  # it has ended
            if _is_held(process, port) and is_ours(process):
                yield namespace_of(process)


def _elsewhere() -> Iterator[Path]:
    """A process of each other network namespace."""
    seen = {os.readlink("/proc/self/ns/net")}
    for process in processes():
        with contextlib.suppress(OSError):  # it has ended
            name = os.readlink(process / "ns/net")
            if name not in seen:
                seen.add(name)
                yield process


def _is_held(process: Path, port: int) -> bool:
    """Whether a process' network namespace has a UDP socket at a port; read from proc, fast."""
    end = b":%04X" % port
    for name in ("udp", "udp6"):
        lines = (process / "net" / name).read_bytes().splitlines()[1:]
        if any(line.split(None, 2)[1].endswith(end) for line in lines):
            return True
    return False


def processes() -> list[Path]:
    """This host's processes, as far as proc shows them."""
    return list(Path("/proc").glob("[0-9]*"))


def _dump(stream: bool) -> list[Socket]:
    """Raises ServerError where the kernel does not tell."""
    protocol = socket.IPPROTO_TCP if stream else socket.IPPROTO_UDP
    try:
        return [
            _socket_of(message, stream=stream)
            for family in (socket.AF_INET, socket.AF_INET6)
            for message in netlink.dump(
                _BY_FAMILY, _REQUEST.pack(family, protocol, _ALL_STATES), _NETLINK_SOCK_DIAG
            )
        ]
    except OSError as error:
        raise _not_listed(error) from error


def _socket_of(message: memoryview, *, stream: bool) -> Socket:
    family, state, port, source, device, low, high, uid, inode = _LISTED.unpack_from(message)
    told = dict(netlink.attributes(message[_LISTED.size :]))
    return Socket(
        cookie=high << 32 | low,
        inode=inode,
        uid=uid,
        stream=stream,
        serves=state == (_LISTEN if stream else _CLOSE),
        address=ipaddress.ip_address(source if family == socket.AF_INET6 else source[:4]),
        port=int.from_bytes(port, "big"),
        ipv6_only=any(told.get(_SKV6ONLY, b"")),
        device=device,
    )


def _not_listed(error: OSError) -> ServerError:
    return ServerError(
        f"this host's sockets cannot be listed: {error}",
        hint="that needs root, and the kernel's inet_diag, tcp_diag and udp_diag modules",
    )


def bound(process: Path, *, stream: bool) -> list[Socket]:
    """The UDP or TCP sockets of a process' network namespace that have a port.

    Raises ServerError where the kernel does not tell.
    """
    try:
        return [listed for listed in inside(process, lambda: _dump(stream)) if listed.port]
    except FileNotFoundError:
        return []  # the process has ended
    except OSError as error:
        raise _not_listed(error) from error


def holders(wanted: Iterable[int], among: Iterable[Path]) -> dict[int, set[int]]:
    """By inode: the pids of the processes, of `among`, that hold it."""
    wanted = set(wanted)
    pids: dict[int, set[int]] = {inode: set() for inode in wanted}
    for process in among if wanted else ():
        with contextlib.suppress(OSError):  # it has ended
            for inode in netns.inodes(process) & wanted:
                pids[inode].add(int(process.name))
    return pids


def parent(pid: int) -> int:
    """The pid of a process' parent; 0 for none, and where it has ended."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return 0
    return int(status.rpartition(")")[2].split()[1])


def program(pid: int) -> tuple[str, bytes]:
    """What a process runs: its executable, and its command line."""
    with contextlib.suppress(OSError):
        process = Path(f"/proc/{pid}")
        return os.readlink(process / "exe"), (process / "cmdline").read_bytes()
    return "", b""


def words(pid: int) -> list[str]:
    """A process' command line; none where it has ended."""
    with contextlib.suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        return command.rstrip("\0").split("\0")
    return []


def name(pid: int) -> str:
    """A process as a user knows it."""
    said = name_of(pid)
    return f"pid {pid}" if said == "?" else f"pid {pid}, {said}"


def runs(pid: int, program: str) -> bool:
    """Whether a process runs a program of this name."""
    process = Path(f"/proc/{pid}")
    with contextlib.suppress(OSError):
        if (process / "comm").read_text(errors="replace").strip() == program:
            return True
    with contextlib.suppress(OSError):
        return os.path.basename(os.readlink(process / "exe")) == program
    return False


def unix_listener(pid: int) -> str | None:
    """The path of a Unix socket that a process listens on; None for none."""
    process = Path(f"/proc/{pid}")
    try:
        mine = netns.inodes(process)
        lines = (process / "net/unix").read_text(errors="replace").splitlines()[1:]
    except OSError:
        return None
    for line in lines:
        with contextlib.suppress(ValueError):  # the rest of a path with a newline
            _, _, _, flags, _, _, inode, *path = line.split()
            if int(flags, 16) & _ACCEPTS and int(inode) in mine:
                return path[0] if path else "of no name"
    return None
