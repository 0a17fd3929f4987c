# SPDX-License-Identifier: Apache-2.0
"""What `carom front` does, several times in one process (fronts.py).

`-i IFACE PROTOCOL:PORT[:EXPTIME]...`
"""

from __future__ import annotations

import sys

import structlog

from carom.daemon.fronted import Front
from carom.daemon.options import Options
from carom.daemon.run import serve
from carom.errors import CaromError


def main(words: list[str]) -> None:
    """Run until a signal. The ready line alone goes to stdout."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    made = []
    for word in words:
        protocol, *more = word.split(":")
        if more:
            port, exptime = (*more, "auto")[:2]
            options = {"protocol": protocol, "bind": "::", "hook": "tc", "ttl": 3600, "amplify": 0}
            made.append(Front(Options(port=int(port), **options), exptime=exptime))
    try:
        serve(made, [words[words.index("-i") + 1]], json=True)
    except CaromError as error:
        sys.exit(f"{error} ({error.hint})")


if __name__ == "__main__":
    main(sys.argv)
