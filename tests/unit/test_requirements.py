# SPDX-License-Identifier: Apache-2.0
"""What a daemon is installed with is all that it needs; what else is needed is asked for."""

from __future__ import annotations

import subprocess
import sys

WITHOUT = """
import sys

for name in ("scapy", "dns", "numpy", "scipy", "matplotlib", "jinja2", "hdrh"):
    sys.modules[name] = None  # an import of it fails

"""

DAEMON = """
import carom.apps
import carom.cli
import carom.cli_serve
import carom.daemon.front
import carom.daemon.run
from carom.protocols import SPECS

assert all(one.keys_named(b"1") for one in SPECS.values())
print("done")
"""


def ran(code: str) -> subprocess.CompletedProcess[str]:
    """Where those packages are not."""
    return subprocess.run(
        [sys.executable, "-P", "-c", WITHOUT + code], capture_output=True, text=True, check=False
    )


def test_a_daemon_needs_what_it_is_installed_with() -> None:
    """And neither what the lab needs nor what tests do."""
    done = ran(DAEMON)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


PRINT = """
from carom.cli import main

sys.argv = ["carom", "filter", "print"]
main()
"""


def test_what_reads_packets_is_missed_in_words() -> None:
    done = ran(PRINT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("carom: scapy, which reads packets, is not installed\n  hint: ")
