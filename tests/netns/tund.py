# SPDX-License-Identifier: Apache-2.0
"""One end of a tunnel that is a program: packets of a TUN device, each in a datagram.

python tund.py DEVICE LOCAL REMOTE
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import sys

PORT = 5555
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x1, 0x1000  # linux/if_tun.h

if __name__ == "__main__":
    name, local, remote = sys.argv[1:]
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as carrier:
        carrier.bind((local, PORT))
        print("ready", flush=True)
        while True:
            for ready in select.select([device, carrier], [], [])[0]:
                if ready is carrier:
                    os.write(device, carrier.recv(65536))
                else:
                    carrier.sendto(os.read(device, 65536), (remote, PORT))
