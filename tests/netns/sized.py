# SPDX-License-Identifier: Apache-2.0
"""A Python service with replies of all lengths, at any hook."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from carom.vm.namespace import Namespace
from netns.line import forwarding
from netns.process import Carom

LIMITS = ("--amplify", "0", "--max-reply", "1472", "--allow", "198.18.0.0/15")


@contextlib.contextmanager
def sized_service(namespace: Namespace, hook: str) -> Iterator[Carom]:
    """`services.sized` at TC, or at XDP in this mode; some of its replies need TC."""
    how = ("--hook", "tc") if hook == "tc" else ("--mode", hook)
    with forwarding(namespace), Carom(namespace, *how, "--app", "services:sized", *LIMITS) as carom:
        yield carom
