# SPDX-License-Identifier: Apache-2.0
"""A BPF file system of a test's own, and caroms that pin there."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from carom.vm.namespace import Namespace
from netns.process import Carom, Ended, attached, run


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """A folder for pins, in a BPF file system; caroms that are started inside pin there."""
    subprocess.run(["mount", "-t", "bpf", "bpf", folder], check=True)
    pins = folder / "carom" / "pins"
    before = os.environ.get("CAROM_PINS")
    os.environ["CAROM_PINS"] = str(pins)
    try:
        yield pins
    finally:
        os.environ.pop("CAROM_PINS")
        if before:
            os.environ["CAROM_PINS"] = before
        subprocess.run(["umount", folder], check=True)


class PinningCarom(Carom):
    """One with --pin; leaving it takes away what it has pinned."""

    def __init__(self, namespace: Namespace, *arguments: str, **options: Any):
        super().__init__(namespace, "--pin", *arguments, **options)
        self._strangers = []  # what was there is this one's now

    def check_clean(self, ended: Ended) -> None:
        """It has left its programs attached, and takes them away now."""
        assert ended.code == 0, ended
        assert "Traceback" not in ended.stderr, ended
        if self.interface:
            assert attached(self.namespace, self.interface) or self.ready_at("tc")
        unpin(self.namespace)
        super().check_clean(ended)

    def ready_at(self, hook: str) -> bool:
        """Whether it answers at this hook."""
        return any(one["hook"] == hook for one in self.ready["interfaces"])

    def end(self, number: signal.Signals) -> Ended:
        """End it by a signal, and leave what it has pinned."""
        self.signal(number)
        ended = self.wait()
        assert "Traceback" not in ended.stderr, ended
        return ended


def unpin(namespace: Namespace) -> Ended:
    """`carom unpin`, which takes away all."""
    ended = run(namespace, "unpin")
    assert ended.code == 0, ended
    return ended
