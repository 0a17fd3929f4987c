# SPDX-License-Identifier: Apache-2.0
"""The programs that packets enter the fast path by, and those that follow them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from carom.kernel.abi import Hook
from carom.kernel.bpf import Module

STEPS = ("read", "answer", "ipv6", "other", "store", "fastpath", "join", "verdict")
"""Programs that those at the hooks tail-call, in the order of xdp/fastpath.c and tc/fastpath.c."""

TRACED = ("traced", "traced_handover")
"""Those that packets come to first while they are traced."""

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
    """The programs of one module that are for hooks; XDP has TC's beside it.

    Where they are `traced`, packets come to others first, which go on with the same steps.
    """

    def __init__(
        self, module: Module, hooks: Iterable[Hook], needed: set[str], *, traced: bool = False
    ):
        """Load them, for the steps that are needed. Raises VerifierError, BPFError."""
        self.module, self._hooks = module, tuple(hooks)
        self.follow(needed | ({"verdict"} if traced else set()))
        first, handover = TRACED if traced else ("fastpath", "handover")
        self.first = {
            hook: module.program(f"{kind(hook)}_{first}") for hook in {*self._hooks, Hook.TC}
        }
        self.handover = module.program(f"tc_{handover}")

    def follow(self, needed: set[str]) -> None:
        """Have the first ones go on with these steps, which are loaded together."""
        names = {hook: steps(hook, self._hooks, needed) for hook in Hook}
        self.module.load(name for by_index in names.values() for name in by_index.values())
        for hook, by_index in names.items():
            programs = {at: self.module.program(name) for at, name in by_index.items()}
            self.module.chain(f"{kind(hook)}_next", programs)

    def __iter__(self) -> Iterator[int]:
        """Descriptors of all that packets may enter by."""
        yield from (*self.first.values(), self.handover)

    @property
    def at_tc(self) -> int:
        """What is attached at TC: the fast path, or what takes what XDP has no room for."""
        return self.handover if Hook.XDP in self._hooks else self.first[Hook.TC]

    def entered(self) -> dict[str, int]:
        """Descriptors, by name, of the programs that packets enter it by."""
        programs = {kind(hook): self.first[hook] for hook in self._hooks}
        return programs | {"tc": self.at_tc}
