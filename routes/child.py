# SPDX-License-Identifier: Apache-2.0
"""A program started in a route's group: it is led from its first socket on."""

from __future__ import annotations

import os
import pwd
import signal
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from carom.errors import UsageError
from carom.kernel import capabilities
from carom.routes.group import Group

RIGHTS = ("NET_RAW", "NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE", "SYS_MODULE", "BPF")
"""What a program could get out by: raw frames and other marks, namespaces and control groups,
others' sockets, the kernel itself."""

NOT_FOUND, NOT_EXECUTED = 127, 126  # as env(1) has it
_SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE
_DESCRIPTORS_MAX = 1 << 20


class User(NamedTuple):
    """Who a program runs as."""

    uid: int
    gid: int
    name: str = ""


def user_of(said: str) -> User:
    """A user by name or number. Raises UsageError."""
    try:
        found = pwd.getpwuid(int(said)) if said.isdigit() else pwd.getpwnam(said)
    except KeyError:
        if said.isdigit():
            return User(int(said), int(said))
        raise UsageError(f"there is no user {said}") from None
    return User(found.pw_uid, found.pw_gid, found.pw_name)


def caller() -> User | None:
    """Who called sudo; None where nobody did."""
    uid, gid = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if os.geteuid() or not uid.isdigit() or not gid.isdigit() or uid == "0":
        return None
    return User(int(uid), int(gid), os.environ.get("SUDO_USER", ""))


def start(group: Group, command: Sequence[str], user: User | None, *, keep_rights: bool) -> int:
    """Start a program; its pid. It has this process' terminal, and no other descriptor of it.

    It ends with 127 if there is none of that name, with 126 if it cannot be executed.
    Raises OSError.
    """
    waits, goes = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(goes)
        _become(command, user, waits, keep_rights)
    os.close(waits)
    try:
        group.enter(pid)
        os.write(goes, b"\n")
    finally:
        os.close(goes)
    return pid


def _become(command: Sequence[str], user: User | None, waits: int, keep: bool) -> NoReturn:
    """Wait until this process is in the group, and be the program."""
    status = NOT_EXECUTED
    try:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        if not os.read(waits, 1):  # who was to lead it could not
            os._exit(status)
        if not keep:
            capabilities.give_up(RIGHTS)
        if user:
            _be(user)
        os.closerange(3, _DESCRIPTORS_MAX)
        os.execvp(command[0], [*command])
    except FileNotFoundError:
        status = NOT_FOUND
        _say(f"{command[0]}: there is no such program")
    except BaseException as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        _say(f"{command[0]} cannot be started: {why}")
    os._exit(status)


def _be(user: User) -> None:
    if user.name:
        os.initgroups(user.name, user.gid)
    else:
        os.setgroups([])
    os.setgid(user.gid)
    os.setuid(user.uid)


def _say(text: str) -> None:
    os.write(2, f"carom: {text}\n".encode(errors="replace"))
