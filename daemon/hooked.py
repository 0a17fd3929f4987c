# SPDX-License-Identifier: Apache-2.0
"""The programs that packets enter the fast path by, and those that follow them."""

from __future__ import annotations

from collections.abc import Iterable

from carom.kernel.abi import Hook
from carom.kernel.bpf import Module

STEPS = ("read", "answer", "ipv6", "other", "store", "fastpath", "join")
"""Programs that those at the hooks tail-call, in the order of xdp/fastpath.c and tc/fastpath.c."""

CHAINS = ("xdp_next", "tc_next")
"""The maps that they are in."""


def kind(hook: Hook) -> str:
    """What the names of a hook's programs and maps begin with."""
    return "xdp" if hook == Hook.XDP else "tc"


def steps(hook: Hook, hooks: Iterable[Hook], needed: set[str]) -> dict[int, str]:
    """The names of a hook's programs, by their index among those that are tail-called.

    Userspace has drafts stored by XDP's; TC's is only needed where TC sees them first.
    """
    if hook not in hooks:
        needed = needed & {"store"} if hook == Hook.XDP else needed - {"store"}
    return {at: f"{kind(hook)}_{step}" for at, step in enumerate(STEPS) if step in needed}


class Hooked:
    """The programs of one module that are for hooks; XDP has TC's beside it."""

    def __init__(self, module: Module, hooks: Iterable[Hook], needed: set[str]):
        """Load them, for the steps that are needed. Raises VerifierError, BPFError."""
        self.module, self._hooks = module, tuple(hooks)
        self.follow(needed)
        self.first = {
            hook: module.program(f"{kind(hook)}_fastpath") for hook in {*self._hooks, Hook.TC}
        }
        self.handover = module.program("tc_handover")

    def follow(self, needed: set[str]) -> None:
        """Have the first ones go on with these steps, which are loaded together."""
        names = {hook: steps(hook, self._hooks, needed) for hook in Hook}
        self.module.load(name for by_index in names.values() for name in by_index.values())
        for hook, by_index in names.items():
            programs = {at: self.module.program(name) for at, name in by_index.items()}
            self.module.chain(f"{kind(hook)}_next", programs)

    @property
    def at_tc(self) -> int:
        """What is attached at TC: the fast path, or what takes what XDP has no room for."""
        return self.handover if Hook.XDP in self._hooks else self.first[Hook.TC]

    def entered(self) -> dict[str, int]:
        """Descriptors, by name, of the programs that packets enter it by."""
        programs = {kind(hook): self.first[hook] for hook in self._hooks}
        return programs | {"tc": self.at_tc}
