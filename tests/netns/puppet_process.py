# SPDX-License-Identifier: Apache-2.0
"""A process that does with sockets what it is told, a line of JSON at a time (puppet.py).

It is run as a text (python -c), for other users may not read this file. It knows nothing of carom.
"""

import json
import os
import select
import socket
import subprocess
import sys

FLAGS = {
    "reuseaddr": (socket.SOL_SOCKET, socket.SO_REUSEADDR),
    "reuseport": (socket.SOL_SOCKET, socket.SO_REUSEPORT),
    "v6only": (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY),
}

things = {}
children = {}


def keep(thing):
    number = max(things, default=0) + 1
    things[number] = thing
    return number


def made(kind, address, port, flags):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    one = socket.socket(family, kind)
    for flag in flags:
        if flag.startswith("on "):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, flag[3:].encode())
        else:
            one.setsockopt(*FLAGS[flag], 1)
    one.bind((address, port))
    return one


def udp(address, port, flags=()):
    return keep(made(socket.SOCK_DGRAM, address, port, flags))


def tcp(address, port, flags=("reuseaddr",)):
    one = made(socket.SOCK_STREAM, address, port, flags)
    one.listen(16)
    return keep(one)


def unix(name):
    one = socket.socket(socket.AF_UNIX)
    one.bind("\0" + name)
    one.listen()
    return keep(one)


def connect(address, port):
    return keep(socket.create_connection((address, port)))


def accept(number):
    return keep(things[number].accept()[0])


def take(number, seconds):
    one = things[number]
    if not select.select([one], [], [], seconds)[0]:
        return None
    data, origin = one.recvfrom(65536)
    return [data.hex(), *(origin or ("", 0))[:2]]


def send(number, data, host="", port=0):
    if host:
        things[number].sendto(bytes.fromhex(data), (host, port))
    else:
        things[number].sendall(bytes.fromhex(data))


def close(number):
    things.pop(number).close()


def run(*argv):
    subprocess.run(argv, check=True)


def spawn(code, name, passed):
    """A child that gets some sockets, of this program or, by its name, of another."""
    descriptors = [things[number].fileno() for number in passed]
    child = subprocess.Popen(
        [sys.executable, "-I", "-c", code, name, *map(str, descriptors)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=descriptors,
        text=True,
    )
    children[child.pid] = child
    child.stdout.readline()
    return child.pid


def child(pid, line):
    """Have a child do something."""
    one = children[pid]
    one.stdin.write(line + "\n")
    one.stdin.flush()
    return json.loads(one.stdout.readline())


def kill(pid):
    one = children.pop(pid)
    one.kill()
    one.wait()


def pid():
    return os.getpid()


def main():
    for descriptor in sys.argv[2:]:
        keep(socket.socket(fileno=int(descriptor)))
    print("ready", flush=True)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            result = [globals()[name](*arguments)]
        except OSError as error:
            result = [None, error.errno]
        print(json.dumps(result), flush=True)


main()
