# SPDX-License-Identifier: Apache-2.0
"""A program started in a route's group: it is led from its first socket on."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

from carom.errors import UsageError
from carom.kernel import capabilities, signals
from carom.routes import hidden
from carom.routes.group import Group
from carom.routes.route import Route

RIGHTS = ("NET_RAW", "NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE", "SYS_MODULE", "BPF")
"""What a program could get out by: raw frames and other marks, namespaces and control groups,
others' sockets, the kernel itself."""

NOT_FOUND, NOT_EXECUTED = 127, 126  # as env(1) has it
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


class Program(NamedTuple):
    """What to start, as whom (None: as this process), and with which rights.

    With `hides` it does not see the sockets of resolvers, and `resolvers` are all that resolv.conf
    names then.
    """

    command: Sequence[str]
    user: User | None = None
    keep_rights: bool = False
    hides: bool = False
    resolvers: tuple[str, ...] = ()


def of_route(program: Program, route: Route | None) -> Program:
    """The same, with what its route says of resolvers."""
    if route is None or route.resolver_sockets != "hide":
        return program
    return program._replace(hides=True, resolvers=route.dns)


class Child:
    """A program in a group, which has this process' terminal and none of its other descriptors.

    It ends with 127 if there is none of that name, with 126 if it cannot be executed. Signals that
    end this process are passed on to it.
    """

    def __init__(self, group: Group, program: Program):
        """Raises OSError."""
        signals.not_yet()
        self._pid = _started(group, program)
        signals.hand_on(self._pid, signal.SIGHUP)
        self._status: int | None = None

    def ended(self) -> int | None:
        """Its exit status as a shell has it, once it has ended."""
        if self._status is None:
            found, status = os.waitpid(self._pid, os.WNOHANG)
            if found:
                self._status = _as_shell(status)
                signals.nobody_to_hand_on_to()
        return self._status

    def wait(self) -> int:
        """Wait until it has ended; its exit status as a shell has it."""
        _, status = os.waitpid(self._pid, 0)
        return _as_shell(status)

    def tell(self, told: Callable[[], object]) -> None:
        """Call `told` in another thread when it ends."""

        def watch() -> None:
            with contextlib.suppress(ChildProcessError):  # it has ended, and `ended` has seen it
                os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
            told()

        threading.Thread(target=watch, daemon=True).start()


def _as_shell(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _started(group: Group, program: Program) -> int:
    waits, goes = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(goes)
        _become(program, waits)
    os.close(waits)
    try:
        group.enter(pid)
        os.write(goes, b"\n")
    finally:
        os.close(goes)
    return pid


def _become(program: Program, waits: int) -> NoReturn:
    """Wait until this process is in the group, and be the program."""
    status, command = NOT_EXECUTED, program.command
    try:
        signals.as_usual()
        if not os.read(waits, 1):  # who was to lead it could not
            os._exit(status)
        if program.hides:
            hidden.hide(program.resolvers)
        if not program.keep_rights:
            capabilities.give_up(RIGHTS)
        if program.user:
            _be(program.user)
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
