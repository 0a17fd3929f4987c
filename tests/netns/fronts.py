# SPDX-License-Identifier: Apache-2.0
"""One carom before several servers, of one port each: compiled once for all tests of a file."""

from __future__ import annotations

import tempfile

from carom.vm.namespace import Namespace
from netns.process import Carom


def fronts(namespace: Namespace, *services: str) -> Carom:
    """`carom front` before each of some `PROTOCOL:PORT[:EXPTIME]`, by TC, for an hour."""
    lines = ['hook = "tc"', 'ttl = "1h"']
    for one in services:
        protocol, port, exptime = (*one.split(":"), "auto")[:3]
        lines += ["[[service]]", f'protocol = "{protocol}"', f"port = {port}"]
        lines += [f'exptime = "{exptime}"']
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write("\n".join(lines))
        file.flush()
        return Carom(namespace, "--config", file.name, command="front")
