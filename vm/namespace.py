# SPDX-License-Identifier: Apache-2.0
"""Network namespaces as hosts: made, joined by veths, and removed, also after a crash."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyroute2
import pyroute2.netns

from carom.errors import ExperimentError, PrivilegeError
from carom.kernel import signals
from carom.kernel.resource import Resource

T = TypeVar("T")

PREFIX = "carom-"
_IPV6 = Path("/proc/sys/net/ipv6/conf")
_MOUNTS = Path("/run/netns")


def _claims() -> Path:
    """The folder with a locked file for each namespace in use; see `control.directory`."""
    return Path(os.environ.get("CAROM_RUN", "/run/carom")) / "namespaces"


class Namespace(Resource):
    """A network namespace with a unique name; leaving the context ends what runs in it and removes
    it.

    Its owner keeps a file locked, so that `clean` can tell what a killed owner left.
    Raises PrivilegeError, ExperimentError.
    """

    def __init__(self, role: str):
        if os.geteuid() != 0:
            raise PrivilegeError("network namespaces need root", hint="run it with sudo")
        self.name = f"{PREFIX}{secrets.token_hex(3)}-{role}"
        claims = _claims()
        claims.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._claim = open(claims / self.name, "w")  # noqa: SIM115  # open for as long as it is claimed
        try:
            fcntl.flock(self._claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with signals.waiting():  # a process that it starts would go on alone
                self._make()
            self.call(self._prepare)
        except OSError as error:
            self.close()
            raise ExperimentError(
                f"cannot make the network namespace {self.name}: {error}",
                hint="does this kernel have network namespaces (CONFIG_NET_NS)?",
            ) from error
        except BaseException:  # Ctrl-C
            self.close()
            raise

    def _make(self) -> None:
        """Raises OSError."""
        made = subprocess.run(
            ["ip", "netns", "add", self.name], capture_output=True, text=True, check=False
        )
        if made.returncode:
            raise OSError(made.stderr.strip())

    @staticmethod
    def _prepare() -> None:
        ipv6 = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
        if ipv6.exists():  # its traffic for neighbours and addresses would be measured too
            ipv6.write_text("1")

    def netlink(self, ask: Callable[[Any], T]) -> T:
        """What a function gets from a pyroute2 socket inside.

        pyroute2's own NetNS forks for each, which takes ten times as long.
        """

        def inside() -> T:
            with pyroute2.IPRoute() as netlink:
                return ask(netlink)

        return self.call(inside)

    def up(self, interface: str) -> None:
        """Set an interface up."""
        self.netlink(
            lambda netlink: netlink.link("set", index=_index(netlink, interface), state="up")
        )

    def address(self, interface: str, address: str, prefix: int) -> None:
        """Add an address, usable at once: IPv6 does not look for duplicates first."""
        flags = {}
        if ":" in address:
            flags = {"flags": _NODAD}
            self.call(lambda: (_IPV6 / interface / "disable_ipv6").write_text("0"))
        self.netlink(
            lambda netlink: netlink.addr(
                "add",
                index=_index(netlink, interface),
                address=address,
                prefixlen=prefix,
                **flags,
            )
        )

    def neighbour(self, interface: str, address: str, mac: str) -> None:
        """Set an address' MAC for good, so that no ARP disturbs a measurement."""
        self.netlink(
            lambda netlink: netlink.neigh(
                "replace",
                dst=address,
                lladdr=mac,
                ifindex=_index(netlink, interface),
                state="permanent",
            )
        )

    def mac(self, interface: str) -> str:
        """The MAC address of an interface."""
        (link,) = self.netlink(lambda netlink: netlink.link("get", ifname=interface))
        return str(link.get_attr("IFLA_ADDRESS"))

    def call(self, function: Callable[[], T]) -> T:
        """Run a function inside, in a thread of its own; returns and raises what it does."""
        results: list[T] = []
        errors: list[BaseException] = []

        def inside() -> None:
            try:
                pyroute2.netns.setns(self.name)
                results.append(function())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=inside, name=self.name)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def argv(self, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` inside; it ends when the thread that started it does."""
        return ["setpriv", "--pdeathsig", "TERM", "ip", "netns", "exec", self.name, *argv]

    def popen(self, argv: Sequence[str]) -> subprocess.Popen[str]:
        """Start a program inside, with pipes on stdin and stdout; Ctrl-C does not reach it."""
        return subprocess.Popen(
            self.argv(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *argv: str) -> str:
        """Run a program inside to its end and return its stdout. Raises ExperimentError."""
        done = subprocess.run(self.argv(argv), capture_output=True, text=True, check=False)
        if done.returncode:
            raise ExperimentError(f"{' '.join(argv)} failed in {self.name}: {done.stderr.strip()}")
        return done.stdout

    def close(self) -> None:
        """End what runs inside and remove the namespace."""
        _remove(self.name)
        Path(self._claim.name).unlink(missing_ok=True)
        self._claim.close()


_NODAD = 0x02  # IFA_F_NODAD, linux/if_addr.h


def _index(netlink: Any, interface: str) -> int:
    return int(netlink.link_lookup(ifname=interface)[0])


def join(a: Namespace, a_interface: str, b: Namespace, b_interface: str) -> None:
    """Join two namespaces by a veth, both ends up."""
    a.netlink(
        lambda netlink: netlink.link(
            "add",
            ifname=a_interface,
            kind="veth",
            peer={"ifname": b_interface, "net_ns_fd": b.name},
        )
    )
    for namespace, interface in ((a, a_interface), (b, b_interface)):
        # It makes no address itself, and so sends no packets that nobody asked for.
        namespace.run("ip", "link", "set", interface, "addrgenmode", "none")
        namespace.up(interface)


def pids(name: str) -> Iterator[int]:
    """The pids of the processes inside a namespace, without this one."""
    inside = (_MOUNTS / name).stat()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            theirs = (process / "ns/net").stat()
            same = (theirs.st_dev, theirs.st_ino) == (inside.st_dev, inside.st_ino)
            if same and int(process.name) != os.getpid():
                yield int(process.name)


def _remove(name: str) -> None:
    """End the processes inside, first by SIGTERM, and remove the namespace if it exists."""
    if not (_MOUNTS / name).exists():
        return
    for number, patience in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
        with contextlib.suppress(FileNotFoundError):
            for pid in pids(name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            end = time.monotonic() + patience
            while time.monotonic() < end and any(pids(name)):
                time.sleep(0.02)
    with contextlib.suppress(FileNotFoundError):
        pyroute2.netns.remove(name)


def clean() -> list[str]:
    """Remove namespaces whose owner is gone, and what runs in them; returns their names.

    Raises PrivilegeError.
    """
    if os.geteuid() != 0:
        raise PrivilegeError("network namespaces are root's to remove", hint="run it with sudo")
    removed = []
    for path in sorted(_claims().glob(PREFIX + "*")):
        with contextlib.suppress(BlockingIOError, FileNotFoundError), open(path) as claim:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its owner lives
            _remove(path.name)
            path.unlink(missing_ok=True)
            removed.append(path.name)
    return removed
