# SPDX-License-Identifier: Apache-2.0
"""Namespaces with a first process, in which libvirt and its machines run and leave nothing behind.

Bridges, addresses and DHCP stay in the network namespace, sockets and settings on mounts of its
own. When the first process ends, in whatever way, the kernel ends all others. What is on disk is in
one folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from carom.errors import CaromError, HostError, PrivilegeError
from carom.kernel import signals

# linux/sched.h
_CLONE_NEWNS = 0x00020000
_CLONE_NEWPID = 0x20000000
_CLONE_NEWNET = 0x40000000

_SETTINGS = {
    # root, because the machines' files are in a folder of ours; nothing outside of the namespaces
    "qemu.conf": 'user = "root"\ngroup = "root"\nremember_owner = 0\nsecurity_driver = "none"\n'
    'cgroup_controllers = []\nnamespaces = []\nstdio_handler = "file"\n',
    "libvirtd.conf": 'auth_unix_rw = "none"\nauth_unix_ro = "none"\n',
}
_PATIENCE = 60.0  # seconds for libvirt to be there


def contained(work: Callable[[], int]) -> int:
    """Run `work` in namespaces of its own; returns its exit status.

    Ctrl-C and SIGTERM raise KeyboardInterrupt in it. It ends when this process does, even by
    `kill -9`. Raises PrivilegeError, HostError.
    """
    if os.geteuid() != 0:
        raise PrivilegeError("namespaces need root", hint="run it with sudo")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS | _CLONE_NEWPID | _CLONE_NEWNET):
        raise HostError(f"no namespaces to be had: {os.strerror(ctypes.get_errno())}")
    sys.stdout.flush()
    sys.stderr.flush()
    signals.not_yet()
    pid = os.fork()
    if not pid:
        signals.end_with_parent(signal.SIGKILL)
        os._exit(_first(work))
    return _wait(pid)


def _first(work: Callable[[], int]) -> int:
    """The first process: it waits for the others, whose parents may be gone.

    libvirt waits until certain processes are gone that are not its own children.
    """
    pid = os.fork()
    if not pid:
        os._exit(_work(work))
    return _wait(pid)


def _wait(pid: int) -> int:
    """Wait for a child and any other that ends; its exit status. SIGTERM is passed on to it."""
    signals.hand_on(pid)
    ended = status = 0
    while ended != pid:
        ended, status = os.wait()
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _work(work: Callable[[], int]) -> int:
    """Run `work`; returns its exit status and never raises."""
    try:
        signals.interrupted()
        return work()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except CaromError as error:
        print(f"test-vm: {error}", file=sys.stderr)
        if error.hint:
            print(f"  hint: {error.hint}", file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def furnish(place: Path) -> None:
    """Mount something of our own over all that libvirt writes; files on disk go below `place`."""
    _run("mount", "--make-rprivate", "/")
    _run("mount", "-t", "proc", "proc", "/proc")
    _run("mount", "-t", "sysfs", "sysfs", "/sys")  # a new one shows this namespace's interfaces
    for folder in ("/run", "/etc/libvirt", "/var/cache/libvirt"):
        _run("mount", "-t", "tmpfs", "tmpfs", folder)
    for folder in ("/var/lib/libvirt", "/var/log/libvirt"):
        mine = place / Path(folder).relative_to("/var")
        shutil.rmtree(mine, ignore_errors=True)
        mine.mkdir(parents=True)
        _run("mount", "--bind", str(mine), folder)
    Path("/var/lib/libvirt/images").mkdir(mode=0o711)  # where Vagrant's pool is
    for name, text in _SETTINGS.items():
        Path("/etc/libvirt", name).write_text(text)
    _run("ip", "link", "set", "lo", "up")


@contextlib.contextmanager
def libvirt(place: Path) -> Iterator[None]:
    """Run libvirtd, once it answers; its output goes to a file in `place`. Raises HostError."""
    log_file = place / "libvirtd.log"
    with log_file.open("w") as log:
        daemon = subprocess.Popen(
            ["libvirtd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        end = time.monotonic() + _PATIENCE
        while subprocess.run(["virsh", "version"], capture_output=True, check=False).returncode:
            if daemon.poll() is not None or time.monotonic() > end:
                raise HostError("libvirtd does not start", hint=f"what it said is in {log_file}")
            time.sleep(0.5)
        yield
    finally:
        daemon.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            daemon.wait(10)


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostError(f"{' '.join(argv)} failed: {done.stderr.strip()}")
