# SPDX-License-Identifier: Apache-2.0
"""`./run test-package`: packages and a pristine tree of each Debian; tests/packages with them."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from carom.errors import CaromError
from carom.vm.packages import packages

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "build" / "vm"
RELEASES = ("bookworm", "trixie")


def main() -> int:
    """Make trees and packages, and run the tests; pytest's status."""
    parser = argparse.ArgumentParser(prog="./run test-package", description=__doc__)
    parser.add_argument("--release", choices=RELEASES, action="append", help="of both")
    options, words = parser.parse_known_args()
    releases = options.release or RELEASES
    for release in releases:
        if subprocess.call([ROOT / "vm/box.sh", "--tree", release, PLACE]):
            return 1
    try:
        for path in packages(PLACE / "packages", ("wheel", "pex", "deb")):
            print(f"test-package: {path.name}", file=sys.stderr)
    except CaromError as error:
        print(f"test-package: {error}\n{error.details or ''}", file=sys.stderr)
        return 1
    found = {"CAROM_PACKAGES": str(PLACE), "CAROM_RELEASES": " ".join(releases)}
    command = [sys.executable, "-P", "-m", "pytest", "tests/packages", *words]
    return subprocess.call(command, cwd=ROOT, env={**os.environ, **found})


if __name__ == "__main__":
    sys.exit(main())
