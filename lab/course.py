# SPDX-License-Identifier: Apache-2.0
"""How a run goes: what the pair cannot do is left out; a run that stops early keeps its results."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from carom import log
from carom.errors import ExperimentError
from carom.xdp.link import REFUSED

_NO_NATIVE = REFUSED.format(mode="native")


class Course:
    """How a run went: `complete`, or `stopped` by the error in it; neither after Ctrl-C.

    `left_out` has what this pair cannot do, as its driver takes no native XDP, and the error.
    """

    def __init__(self) -> None:
        self.complete = False
        self.stopped: str | None = None
        self.left_out: dict[str, str] = {}

    @contextlib.contextmanager
    def unless_refused(self, name: str) -> Iterator[None]:
        """Start inside what a driver may refuse: then it is left out, with a warning."""
        try:
            yield
        except ExperimentError as error:
            if _NO_NATIVE not in str(error):
                raise
            self.left_out[name] = str(error)
            log.warning("left out on this pair", series=name, reason=str(error))


@contextlib.contextmanager
def course() -> Iterator[Course]:
    """Measure inside: Ctrl-C or an ExperimentError ends the block, and is not raised.

    Such an error is a lost host, or counts that disagree. What was measured until then stays.
    """
    going = Course()
    try:
        yield going
        going.complete = True
    except KeyboardInterrupt:
        pass
    except ExperimentError as error:
        going.stopped = f"{error} ({error.hint})" if error.hint else str(error)
