# SPDX-License-Identifier: Apache-2.0
"""A relay of UDP that is called what Docker's is, and takes the same command line.

`NAME -proto udp -host-ip A -host-port P -container-ip B -container-port Q`; without a container's
port it holds its own and relays nothing.
"""

from __future__ import annotations

import itertools
import selectors
import socket
import sys
from pathlib import Path


def relay(near: socket.socket, far: tuple[str, int]) -> None:
    """Carry datagrams to `far` and its replies back, a socket for each client, until the end."""
    clients: dict[tuple[str, int], socket.socket] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(near, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data:
                    near.sendto(key.fileobj.recv(65_536), key.data)  # type: ignore[union-attr]
                    continue
                data, origin = near.recvfrom(65_536)
                if origin not in clients:
                    clients[origin] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                    clients[origin].connect(far)
                    selector.register(clients[origin], selectors.EVENT_READ, origin)
                clients[origin].send(data)


def main() -> None:
    """Take its name and its port."""
    Path("/proc/self/comm").write_text(sys.argv[1])
    said = dict(itertools.pairwise(sys.argv))
    near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    near.bind((said["-host-ip"], int(said["-host-port"])))
    print("bound", flush=True)
    if "-container-port" not in said:
        sys.stdin.read()
        return
    relay(near, (said["-container-ip"], int(said["-container-port"])))


if __name__ == "__main__":
    main()
