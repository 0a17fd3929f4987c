# SPDX-License-Identifier: Apache-2.0
"""A real BIND in a namespace, whose zone anybody may update from one address."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from carom.kernel.resource import Resource
from carom.vm.namespace import Namespace
from netns.nameserver import PORT, ZONE, Resolver
from netns.process import DEADLINE, until

CONFIGURATION = """
options {{
    directory "{folder}";
    pid-file "{folder}/pid";
    session-keyfile "{folder}/session.key";
    lock-file none;
    listen-on port {port} {{ any; }};
    listen-on-v6 port {port} {{ any; }};
    recursion no;
    dnssec-validation no;
    notify no;
    answer-cookie no;
}};
controls {{ }};
zone "example.org" {{
    type primary;
    file "{folder}/zone";
    allow-update {{ {updaters}; }};
}};
"""


class BIND(Resource):
    """named with one zone; skips the test where it is not installed."""

    def __init__(self, namespace: Namespace, folder: Path, updaters: str, *, port: int = PORT):
        binary = shutil.which("named", path="/usr/sbin:/usr/bin")
        if not binary:
            pytest.skip("named (bind9) is not installed")
        text = CONFIGURATION.format(folder=folder, port=port, updaters=updaters)
        (folder / "named.conf").write_text(text)
        (folder / "zone").write_text(ZONE)
        self._process = subprocess.Popen(
            namespace.argv([binary, "-g", "-n", "1", "-c", str(folder / "named.conf")]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with Resolver(namespace, "127.0.0.1", port) as resolver:
            until(lambda: resolver.tries("ns.example.org"), "BIND to answer")

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(DEADLINE)
