# SPDX-License-Identifier: Apache-2.0
"""How measuring goes: what a pair cannot do is left out, and what ends it keeps what was done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import structlog

from carom.errors import ExperimentError
from carom.xdp.link import REFUSED

_NO_NATIVE = REFUSED.format(mode="native")

log = structlog.get_logger()


class Course:
    """How measuring goes: to its end, or until something `stopped` it; neither after Ctrl-C.

    `left_out` is what this pair cannot do, because a driver takes no XDP in native mode, with what
    it said.
    """

    def __init__(self) -> None:
        self.complete = False
        self.stopped: str | None = None
        self.left_out: dict[str, str] = {}

    @contextlib.contextmanager
    def unless_refused(self, name: str) -> Iterator[None]:
        """Start inside what a driver may refuse: then it is left out, which is said."""
        try:
            yield
        except ExperimentError as error:
            if _NO_NATIVE not in str(error):
                raise
            self.left_out[name] = str(error)
            log.warning("left out on this pair", series=name, reason=str(error))


@contextlib.contextmanager
def course() -> Iterator[Course]:
    """Measure inside: Ctrl-C, a host that is lost, or counts that disagree end it.

    What was measured until then stays.
    """
    one = Course()
    try:
        yield one
        one.complete = True
    except KeyboardInterrupt:
        pass
    except ExperimentError as error:
        one.stopped = f"{error} ({error.hint})" if error.hint else str(error)
