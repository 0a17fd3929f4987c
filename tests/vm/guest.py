# SPDX-License-Identifier: Apache-2.0
"""`./run test-vm guest`: tests/guest in one emulated guest, with Debian's own kernel.

What this host's kernel may not have (bonds, teams, VLANs, VRFs, ipvlans) is a module there. The
guest is built from Debian packages once, and boots without a network. It loads the fast path that
was compiled here; one test compiles it with the guest's own clang, which takes some minutes.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path

from carom.daemon.fastpath import FastPath
from carom.errors import CaromError, HostError
from carom.kernel import kept
from carom.kernel.bpf import Module
from carom.routes import programs
from carom.vm.guest import Guest

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "build" / "vm"
RELEASES = ("bookworm", "trixie")

SCRIPT = """
export PYTHONPATH=/run/work PYTHONSAFEPATH=1 CAROM_GUEST={release} CAROM_PATIENCE={slow} NO_COLOR=1
export CAROM_CACHE=/run/work/compiled
cd /run/work
{command}
"""


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line; what is not known is pytest's."""
    parser = argparse.ArgumentParser(prog="./run test-vm guest", description=__doc__)
    parser.add_argument("--release", choices=RELEASES, default=RELEASES[0])
    parser.add_argument("--memory", type=int, default=3072, help="MB of the guest's")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--patience", type=float, default=3600, help="seconds for all of it")
    parser.add_argument("--slow", type=int, default=3, help="so many times longer tests wait")
    parser.add_argument("--kvm", action="store_true", help="where /dev/kvm boots a stock kernel")
    parser.add_argument("--shell", metavar="COMMAND", help="run this in place of pytest")
    options, options.pytest = parser.parse_known_args(argv)
    return options


def command_of(options: argparse.Namespace) -> str:
    """What the guest is to run."""
    if options.shell:
        return str(options.shell)
    tests = any(one.startswith("tests/") for one in options.pytest)
    words = options.pytest if tests else ["tests/guest", *options.pytest]
    return shlex.join(["python3", "-m", "pytest", "-p", "no:cacheprovider", *words])


def build(release: str) -> Path:
    """The folder that the guest boots from. Raises HostError."""
    done = subprocess.call([str(ROOT / "vm/box.sh"), "--guest", release, str(PLACE)])
    if done:
        raise HostError(f"vm/box.sh could not build a guest of {release} (see above)")
    return PLACE / f"guest-{release}"


def linked_tree() -> Path:
    """carom's package as it is installed here: a tree of links."""
    import carom

    return Path(str(carom.__file__)).parent


def compiled() -> list[Path]:
    """The files with the fast path and a route's programs, compiled on this host, now or before."""
    with FastPath() as fastpath, Module(programs.recipe()) as led:
        return [kept.folder() / digest for digest in (fastpath.digest, led.digest)]


def main() -> int:
    """Build, boot, run; the script's status."""
    options = parse(sys.argv[1:])
    start = time.monotonic()
    try:
        folder = build(options.release)
        print(f"test-vm: booting a guest of {options.release}", file=sys.stderr, flush=True)
        guest = Guest(folder, options.cpus, options.memory, options.kvm)
        script = SCRIPT.format(
            release=options.release, slow=options.slow, command=command_of(options)
        )
        files = [
            *((path, f"compiled/{path.name}") for path in compiled()),
            (linked_tree(), "carom"),
            (ROOT / "tests", "tests"),
            (ROOT / "setup.cfg", "setup.cfg"),
        ]
        status = guest.run(script, files, options.patience)
    except KeyboardInterrupt:
        return 130
    except CaromError as error:
        print(f"test-vm: {error}\n  hint: {error.hint or 'none'}", file=sys.stderr)
        return 1
    took = time.monotonic() - start
    print(f"test-vm: the guest of {options.release} took {took:.0f} s", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
