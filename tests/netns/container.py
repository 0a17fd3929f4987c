# SPDX-License-Identifier: Apache-2.0
"""A container as Docker has them: a namespace behind the host, with a port that is published.

Before it carom looks into all network namespaces: each test has a port of its own (`any_port`).
"""

from __future__ import annotations

import contextlib
import random
import subprocess
from pathlib import Path

from carom.errors import ExperimentError
from carom.kernel.resource import Resource
from carom.vm.namespace import Namespace, join

GATEWAY = "198.19.7.1"


def any_port() -> int:
    """A port that no other test has at the same time."""
    return random.SystemRandom().randrange(20_000, 30_000)


class Container(Resource):
    """A namespace joined to a host by a veth of its own; both are gone when it is closed."""

    def __init__(self, host: Namespace, address: str, interface: str = "dock0"):
        self.address = address
        self._host, self._interface = host, interface
        self.namespace = Namespace("container")
        try:
            self.namespace.up("lo")
            join(host, interface, self.namespace, "eth0")
            host.run("ip", "address", "add", GATEWAY, "peer", address, "dev", interface)
            for words in (
                f"address add {address}/24 dev eth0",
                f"route add default via {GATEWAY}",
            ):
                self.namespace.run("ip", *words.split())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End what runs there, and take it away."""
        with contextlib.suppress(ExperimentError):  # it is gone
            self._host.run("ip", "link", "del", self._interface)
        self.namespace.close()


def publish(host: Namespace, to: str, port: int, *, told: bool = True) -> None:
    """What comes to a port of the host is a container's from now on, and of no other.

    Unless it is `told`, nobody can tell that from the rules: a map says it.
    """
    rule = f"meta l4proto {{ tcp, udp }} th dport {port} dnat to {to}"
    if not told:
        rule = f"meta l4proto {{ tcp, udp }} dnat ip to th dport map {{ {port} : {to} }}"

    def forward() -> None:
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")

    host.call(forward)
    rules = f"""
        table ip docker
        delete table ip docker
        table ip docker {{
            chain prerouting {{
                type nat hook prerouting priority dstnat
                {rule}
            }}
        }}"""
    subprocess.run(host.argv(["nft", "-f", "-"]), input=rules, text=True, check=True)
