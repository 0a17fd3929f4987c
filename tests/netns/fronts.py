# SPDX-License-Identifier: Apache-2.0
"""One carom before several servers, of one port each: compiled once for all tests of a file."""

from __future__ import annotations

import sys

from carom.vm.namespace import Namespace
from netns.process import HERE, Carom


def fronts(namespace: Namespace, *services: str) -> Carom:
    """`carom front` before each of some `PROTOCOL:PORT[:EXPTIME]`, by TC, for an hour."""
    program = [sys.executable, "-P", str(HERE / "fronts_process.py")]
    return Carom(namespace, *services, command="front", program=program)
