# SPDX-License-Identifier: Apache-2.0
"""Try whether one datagram gets from a host to another and back, before anything is measured.

`python3 -c TEXT listen ADDRESS PORT` there, `... ask INTERFACE ADDRESS SERVER PORT` here, where
TEXT is this file: it needs nothing but Python. One interface is asked, not whichever the routes
would take.
"""

from __future__ import annotations

import socket
import sys
from typing import NoReturn

WORD = b"carom, are you there?"
TRIES = 6
PATIENCE = 0.5  # seconds for each


def listen(address: str, port: str) -> NoReturn:
    """Reply to datagrams that say the word."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind((address, int(port)))
        print("ready", flush=True)
        while True:
            word, asker = udp.recvfrom(2048)
            if word == WORD:
                udp.sendto(word, asker)


def ask(interface: str, address: str, server: str, port: str) -> int:
    """Ask until there is a reply; 1 if there is none."""
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
