# SPDX-License-Identifier: Apache-2.0
"""What may happen to a file on its way."""

from __future__ import annotations

import random

_OF_JSON = b'"{}[]:,0919-e.'


def damaged(data: bytes, chance: random.Random) -> bytes:
    """The same with something wrong in it; now and then what replaces a byte is the byte itself."""
    what = bytearray(data)
    kind = chance.choice(("bit", "byte", "cut", "hole", "more", "swap", "zeros", "json"))
    at, other, size = (chance.randrange(n) for n in (len(what), len(what), 200))
    if kind == "bit":
        what[at] ^= 1 << chance.randrange(8)
    elif kind == "byte":
        what[at] ^= chance.randrange(1, 256)
    elif kind == "cut":
        del what[at:]
    elif kind == "hole":
        del what[at : at + 1 + size]
    elif kind == "more":
        what[at:at] = chance.randbytes(1 + size)
    elif kind == "swap":
        what[at], what[other] = what[other], what[at]
    elif kind == "zeros":
        what[at : at + 1 + size] = bytes(len(what[at : at + 1 + size]))
    else:
        what[at] = chance.choice(_OF_JSON)
    return bytes(what)
