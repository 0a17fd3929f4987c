# SPDX-License-Identifier: Apache-2.0
"""Makes a pair with processes in it, says what it made, and waits to be told to leave or killed."""

from __future__ import annotations

import json
import subprocess
import sys

from carom.vm.netns import NamespacePair


def main() -> None:
    """Run until stdin ends."""
    with NamespacePair() as pair:
        server = pair.server
        carom = server.popen(
            [sys.executable, "-P", "-m", "carom", "serve", "-i", server.interface, "--json"]
        )
        assert carom.stdout
        carom.stdout.readline()
        # Unlike what a Namespace starts, this one does not end with its parent.
        name = pair.client.namespace.name
        orphan = subprocess.Popen(
            ["ip", "netns", "exec", name, "sleep", "600"], stdout=subprocess.DEVNULL
        )
        made = {
            "namespaces": [pair.client.namespace.name, server.namespace.name],
            "carom": carom.pid,
            "orphan": orphan.pid,
        }
        print(json.dumps(made), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
