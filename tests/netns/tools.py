# SPDX-License-Identifier: Apache-2.0
"""Clients that others wrote, run as they are."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from carom.vm.namespace import Namespace
from netns.process import DEADLINE


def tool(*names: str) -> str:
    """The first of these programs that is here; skips the test where none is."""
    for name in names:
        path = shutil.which(name, path="/usr/bin:/usr/sbin:/bin:/sbin")
        if path:
            return path
    pytest.skip(f"{names[0]} is not installed")


def tell(namespace: Namespace, program: str, *arguments: str) -> str:
    """What a program prints; its exit code is 0."""
    done = subprocess.run(
        namespace.argv([program, *arguments]),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done
    print(done.stderr)  # for whoever reads of a failure
    return done.stdout


def number(pattern: str, text: str) -> int:
    """The one number behind these words."""
    (found,) = re.findall(rf"{pattern}\s*(\d+)", text)
    return int(found)
