# SPDX-License-Identifier: Apache-2.0
"""raw: the whole payload is the key, and nothing on the wire writes."""

from __future__ import annotations

from carom.kernel.abi import WHOLE_MAX
from carom.protocols.spec import Filled, Spec


def key_of(request: bytes) -> bytes | None:
    """The cache key of a request; None if it is empty or longer than a key."""
    return request if 1 <= len(request) <= WHOLE_MAX else None


def keys_named(name: bytes) -> tuple[bytes, ...]:
    """The cache key of a request that a user names: the request itself."""
    return (name,)


def asking(name: bytes) -> bytes:
    """The request that a user names: it is what he names."""
    return name


SPEC = Spec(
    name="raw",
    number=0,
    filled=Filled.DAEMON,
    default=True,
    request_max=WHOLE_MAX,
    whole_key=True,
    why_not_learned="its replies do not name the request that they answer",
    key_of=key_of,
    keys_named=keys_named,
    asking=asking,
)
