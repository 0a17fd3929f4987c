# SPDX-License-Identifier: Apache-2.0
"""`./run test-vm`: the pair of VMs from nothing to nothing, under full emulation.

A box is built from Debian packages, both machines are brought up by Vagrant and libvirt in
namespaces of their own, bounce and cache run on them, their results are held against what
everybody has to find, and the machines are destroyed. It says how long each step took.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from vm.bars import check_bounce, check_cache

from carom.errors import CaromError, HostError
from carom.lab import registry, results
from carom.vm import emulated, vagrant

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "build" / "vm"
CAROM = [sys.executable, "-P", "-m", "carom"]
SHORT = {"waits": "blocking", "seconds": "2"}
REPETITIONS = {"bounce": 2, "cache": 1}  # few: emulated, a server with XDP takes a minute to start
OWN = {"cache": {"hit_rates": "0,0.5,1"}}
CHECKS = {"bounce": check_bounce, "cache": check_cache}

_took: list[tuple[str, float]] = []


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Say what is done, and remember how long it took."""
    print(f"test-vm: {what}", file=sys.stderr, flush=True)
    start = time.monotonic()
    try:
        yield
    finally:
        _took.append((what, time.monotonic() - start))


def settings_of(name: str) -> dict[str, str]:
    """What an experiment is given here, by setting; every one that can be named has these."""
    return SHORT | OWN.get(name, {})


def main() -> int:
    """Do it all; the exit status."""
    parser = argparse.ArgumentParser(prog="./run test-vm", description=__doc__)
    parser.add_argument(
        "experiments",
        nargs="*",
        metavar="NAME",
        default=list(CHECKS),
        help="bounce and cache, which are held against bars, or sweeps (hooks, sizes, ...)",
    )
    parser.add_argument("--repetitions", type=int, help="2 of bounce and 1 of the others")
    parser.add_argument("--release", choices=("bookworm", "trixie"), default="bookworm")
    parser.add_argument("--memory", type=int, default=1536, help="MB of each machine's")
    parser.add_argument("--output", type=Path, default=ROOT / "results")
    options = parser.parse_args()
    try:
        for name in options.experiments:
            registry.settings([registry.named(name)], settings_of(name), short=True)
        with step(f"building the box ({options.release})"):
            vagrant.make_box(options.release, PLACE)
        status = emulated.contained(lambda: inside(options))
    except KeyboardInterrupt:
        return 130
    except CaromError as error:
        print(f"test-vm: {error}\n  hint: {error.hint or 'none'}", file=sys.stderr)
        return 1
    return status


def inside(options: argparse.Namespace) -> int:
    """What is done in the namespaces."""
    os.environ.update(
        {
            "VAGRANT_CWD": str(ROOT),
            "VAGRANT_HOME": str(PLACE / "vagrant"),
            "VAGRANT_DOTFILE_PATH": str(PLACE / "machines"),
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "CAROM_BOX": f"carom/{options.release}",
            "CAROM_EMULATED": "1",
            "CAROM_MEMORY": str(options.memory),
            "CAROM_MANAGEMENT_MODE": "open",
        }
    )
    shutil.rmtree(PLACE / "machines", ignore_errors=True)
    try:
        emulated.furnish(PLACE)
        with emulated.libvirt(PLACE):
            return on_machines(options)
    finally:
        shutil.rmtree(PLACE / "machines", ignore_errors=True)
        shutil.rmtree(PLACE / "lib", ignore_errors=True)
        for what, seconds in _took:
            print(f"{seconds:8.1f} s  {what}", file=sys.stderr)


def on_machines(options: argparse.Namespace) -> int:
    """From the box to the results, and the machines destroyed whatever happens."""
    with step("adding the box"):
        box = PLACE / f"carom-{options.release}.box"
        said("vagrant", "box", "add", "--force", "--name", os.environ["CAROM_BOX"], str(box))
    try:
        with step("bringing the machines up"):
            said(*CAROM, "vm", "up", "--emulate")
        with step("looking at them"):
            said(*CAROM, "vm", "status")
        return measure(options)
    finally:
        with step("destroying the machines"):
            subprocess.call([*CAROM, "vm", "down"], start_new_session=True)


def measure(options: argparse.Namespace) -> int:
    """Run the experiments and hold what they found against the bars; 1 where one is missed."""
    missed = []
    output = options.output
    for name in options.experiments:
        before = set(output.glob(f"*-{name}"))
        with step(f"measuring {name}"):
            given = {"repetitions": str(options.repetitions or REPETITIONS.get(name, 1))}
            given |= settings_of(name)
            arguments = [f"--{key.replace('_', '-')}={value}" for key, value in given.items()]
            run = [*CAROM, "lab", "run", name, "--short", "--on", "vagrant", *arguments]
            said(*run, "--output", str(output))
        (folder,) = set(output.glob(f"*-{name}")) - before
        if name in CHECKS:
            missed += [f"{name}: {words}" for words in CHECKS[name](results.load(folder))]
    for words in missed:
        print(f"test-vm: {words}", file=sys.stderr)
    print("test-vm: " + (f"{len(missed)} failed" if missed else "passed"))
    return 1 if missed else 0


def said(*argv: str) -> None:
    """Run a program that speaks for itself. Raises HostError when it fails."""
    status = subprocess.call(argv)
    if status:
        raise HostError(f"{argv[0] if argv[0] != sys.executable else 'carom'} failed ({status})")


if __name__ == "__main__":
    sys.exit(main())
