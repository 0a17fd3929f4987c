# SPDX-License-Identifier: Apache-2.0
"""Checks of the machine: what makes its CPUs slow. None of it makes the fast path useless."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from carom.daemon.doctor.check import Fix, Found, NotKnown, check, read
from carom.daemon.doctor.look import SAMPLE, Look

STOLEN, BUSY = 0.02, 0.9
"""The shares of CPU time from which on it is said."""

_SLOW_GOVERNORS = ("powersave", "conservative", "ondemand", "userspace")
_COSTLY = re.compile(r"Retpoline|return thunk|Safe RET|IBPB$|IBPB;", re.IGNORECASE)
"""Mitigations that each call of a helper, or each packet, pays for."""

_CPUS = "sys/devices/system/cpu"


class Times(NamedTuple):
    """A CPU's time in a while, in ticks."""

    all: int
    idle: int
    stolen: int


def times(before: str, after: str) -> dict[str, Times]:
    """The time of each CPU, and `cpu` of all, between two texts of /proc/stat (proc(5))."""
    then, now = _counted(before), _counted(after)
    found = {}
    for name in then.keys() & now.keys():
        spent = [b - a for a, b in zip(then[name], now[name], strict=True)]
        user, nice, system, idle, waiting, irq, softirq, steal = spent[:8]
        whole = user + nice + system + idle + waiting + irq + softirq + steal
        found[name] = Times(whole, idle + waiting, steal)
    return found


def _counted(text: str) -> dict[str, list[int]]:
    rows = (line.split() for line in text.splitlines() if line.startswith("cpu"))
    return {name: [int(value) for value in values] for name, *values in rows}


def _times(look: Look) -> dict[str, Times]:
    """Raises NotKnown."""
    try:
        found = times(*look.cpu_times)
    except (OSError, ValueError) as error:
        raise NotKnown(f"/proc/stat does not tell CPU times: {error}") from error
    if not found.get("cpu", Times(0, 0, 0)).all:
        raise NotKnown(f"/proc/stat counted nothing in {SAMPLE} s")
    return found


@check(
    "steal",
    "machine",
    "slow",
    means="the host of this guest gives its CPUs to others: replies wait meanwhile",
    remedy="CPUs of its own (dedicated cores, pinned), or fewer guests",
)
def steal(look: Look) -> Iterator[Found]:
    """Does this machine get the CPU time that it wants?"""
    whole = _times(look)["cpu"]
    if whole.stolen >= STOLEN * whole.all:
        yield Found(
            f"{whole.stolen / whole.all:.0%} of the CPU time were stolen in {SAMPLE} s: this "
            "guest's host gave it to others",
            "CPUs of its own, or fewer guests",
        )


@check(
    "busy",
    "machine",
    "slow",
    means="a CPU has no time left: packets that come in on it wait, and the daemon may lose its "
    "lease",
    remedy="fewer programs beside it; queues and programs on CPUs apart",
)
def busy(look: Look) -> Iterator[Found]:
    """Have the CPUs time left?"""
    found = _times(look)
    full = sorted(
        (name for name, of in found.items() if name != "cpu" and of.all - of.idle > BUSY * of.all),
        key=lambda name: int(name.removeprefix("cpu")),
    )
    if full:
        count = f"all {len(full)}" if len(full) == len(found) - 1 else f"{len(full)}"
        yield Found(
            f"{count} CPUs were busy for {SAMPLE} s ({', '.join(full[:8])})",
            "fewer programs beside it; queues and programs on CPUs apart",
        )


@check(
    "governor",
    "machine",
    "slow",
    means="CPUs run at low clock rates while there is little to do",
    remedy="`cpupower frequency-set -g performance`",
)
def governor(look: Look) -> Iterator[Found]:
    """Which clock rate do CPUs run at?"""
    files = sorted((look.root / _CPUS).glob("cpu[0-9]*/cpufreq/scaling_governor"))
    if not files:
        raise NotKnown("CPUs have no governor here: a guest's host decides, or the firmware")
    slow = {file: text for file in files if (text := read(file)) in _SLOW_GOVERNORS}
    if slow:
        words = ", ".join(sorted(set(slow.values())))
        yield Found(
            f"{len(slow)} of {len(files)} CPUs have the governor {words}",
            "cpupower frequency-set -g performance",
            _performance(slow),
        )


def _performance(slow: dict[Path, str]) -> Fix:
    def apply() -> None:
        for file in slow:
            file.write_text("performance")

    before = "; ".join(
        f"cpupower -c {','.join(_number(file) for file, was in slow.items() if was == word)} "
        f"frequency-set -g {word}"
        for word in dict.fromkeys(slow.values())
    )
    numbers = ",".join(map(_number, slow))
    return Fix(f"cpupower -c {numbers} frequency-set -g performance", before, apply)


def _number(file: Path) -> str:
    return file.parts[-3].removeprefix("cpu")


@check(
    "mitigations",
    "machine",
    "slow",
    means="the kernel works around flaws of this processor in a way that each call in a BPF "
    "program pays for",
    remedy="a processor without them. `mitigations=off` is for a machine that runs nobody else's "
    "code",
)
def mitigations(look: Look) -> Iterator[Found]:
    """What do flaws of the processor cost?"""
    folder = look.root / _CPUS / "vulnerabilities"
    if not folder.is_dir():
        raise NotKnown(f"{folder} is not there")
    costly = [file.name for file in sorted(folder.iterdir()) if _COSTLY.search(read(file))]
    if costly:
        yield Found(
            f"mitigations that each call of a helper pays for: {', '.join(costly)}",
            "a processor without these flaws; mitigations=off only where nobody else's code runs",
        )
