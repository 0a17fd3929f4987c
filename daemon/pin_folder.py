# SPDX-License-Identifier: Apache-2.0
"""Where caroms with --pin leave what outlives them (`daemon/pinned.py`), and whether one has."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from carom.kernel import netns

ROOT = Path("/sys/fs/bpf/carom")


def folder() -> Path:
    """Where this network namespace's carom pins: CAROM_PINS, or a folder of its own."""
    if os.environ.get("CAROM_PINS"):
        return Path(os.environ["CAROM_PINS"])
    return ROOT / str(netns.own_cookie())


def left() -> Iterator[str]:
    """A note on what an ended carom has left there, for one that does not go on with it."""
    where = folder()
    try:
        descriptor = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # there is nothing, or it is not for this user
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:  # a carom runs with it
        return
    finally:
        os.close(descriptor)
    yield (
        f"a carom with --pin has left its programs in {where}: packets come to them too, and they "
        "answer nothing; `carom unpin` takes them away"
    )
