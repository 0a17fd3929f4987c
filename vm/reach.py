# SPDX-License-Identifier: Apache-2.0
"""Try whether a datagram gets from one host to another and back, before anything is measured.

`python3 -c TEXT listen ADDRESS PORT` runs on the server and `... ask INTERFACE ADDRESS SERVER PORT`
on the client, where TEXT is this file: it needs nothing but Python. The datagram leaves by
INTERFACE, whatever the routes say.
"""

from __future__ import annotations

import socket
import sys
from typing import NoReturn

WORD = b"carom, are you there?"
TRIES = 6
PATIENCE = 0.5  # seconds for each


def listen(address: str, port: str) -> NoReturn:
    """Send each datagram that is WORD back, for ever."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind((address, int(port)))
        print("ready", flush=True)
        while True:
            word, asker = udp.recvfrom(2048)
            if word == WORD:
                udp.sendto(word, asker)


def ask(interface: str, address: str, server: str, port: str) -> int:
    """Send WORD until it comes back, TRIES times at most; returns 0, or 1 without a reply."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        udp.bind((address, 0))
        udp.settimeout(PATIENCE)
        reason: object = "other bytes came back"
        for _ in range(TRIES):
            try:
                udp.sendto(WORD, (server, int(port)))
                if udp.recv(2048) == WORD:
                    return 0
            except OSError as error:
                reason = error
        print(reason, file=sys.stderr)
        return 1


if __name__ == "__main__":
    try:
        if sys.argv[1] == "listen":
            listen(*sys.argv[2:])
        sys.exit(ask(*sys.argv[2:]))
    except OSError as error:
        sys.exit(str(error))
