# SPDX-License-Identifier: Apache-2.0
"""Ask a name server by c-ares: ADDRESS NAME... Prints how many names had an answer."""

from __future__ import annotations

import sys
import threading

import pycares

address, *names = sys.argv[1:]
answered = 0
done = threading.Semaphore(0)


def take(result: object, error: int | None) -> None:
    global answered
    answered += error is None
    done.release()


flags = pycares.ARES_FLAG_EDNS | pycares.ARES_FLAG_NOSEARCH
channel = pycares.Channel(servers=[address], timeout=1.0, tries=2, flags=flags)
for name in names:  # in turn: the first brings the cookie
    channel.query(name, pycares.QUERY_TYPE_A, callback=take)
    done.acquire()
print(answered)
channel.close()
