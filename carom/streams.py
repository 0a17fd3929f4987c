# SPDX-License-Identifier: Apache-2.0
"""Standard input, output and errors: usable even if the caller closed one, or it fails."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any, TextIO


class Output(io.TextIOWrapper):
    """Standard output that remembers in `failed` why it could not be written."""

    failed: OSError | None = None

    def write(self, text: str) -> int:
        """Write; an OSError that it raises is also in `failed`."""
        try:
            return super().write(text)
        except OSError as error:
            self.failed = error
            raise

    def flush(self) -> None:
        """Flush; an OSError that it raises is also in `failed`."""
        try:
            super().flush()
        except OSError as error:
            self.failed = error
            raise

    def finish(self) -> OSError | None:
        """Write what is left, and return the error if anything was not written.

        After an error the descriptor is /dev/null.
        """
        with contextlib.suppress(OSError):
            self.flush()
        if self.failed:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self.fileno())  # Python flushes it once more at its end
            os.close(nothing)
        return self.failed


class _Errors(io.TextIOWrapper):
    """Standard error: what cannot be written is lost, and ends no service."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


def prepare() -> Output:
    """Open all three, as /dev/null where the caller closed one; returns standard output.

    Call it before anything else is opened, which would get the number of a closed one.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free: this one
    sys.stderr = _Errors(**_of(sys.stderr, 2), line_buffering=True)
    sys.stdout = output = Output(**_of(sys.stdout, 1), line_buffering=os.isatty(1))
    return output


def _of(stream: TextIO | None, descriptor: int) -> dict[str, Any]:
    """The arguments that make a stream like this one, which writes all letters: as an escape where
    its encoding has no other way."""
    if not isinstance(stream, io.TextIOWrapper):
        return {"buffer": open(descriptor, "wb", closefd=False)}
    encoding, errors = stream.encoding, stream.errors
    errors = "backslashreplace" if errors == "strict" else errors
    through = stream.write_through  # as `python -u` asks for
    made = {"encoding": encoding, "errors": errors, "write_through": through}
    return {"buffer": stream.detach(), **made}
