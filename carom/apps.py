# SPDX-License-Identifier: Apache-2.0
"""Small services, to run and to compare replies with: `--app carom.apps:NAME`."""

from __future__ import annotations

import importlib
import random
import sys
import traceback
import zlib
from collections.abc import Callable

from carom.daemon.service import Reply, Service
from carom.errors import UsageError
from carom.protocols.kv.store import KeyValueStore

DEFAULT_PORT = 51141

echo = Service(DEFAULT_PORT)
"""Replies with the request."""

kept = Service(DEFAULT_PORT)
"""Replies with the request, by a Reply that may be cached."""

uncached = Service(DEFAULT_PORT)
"""The same, by a Reply that may not be cached: compared with `kept`, only the fill differs."""

mixed = Service(DEFAULT_PORT)
"""Replies with 0 to 1,400 bytes that depend on the request alone."""

sized = Service(DEFAULT_PORT)
"""Replies with the request backwards, over and over, as many bytes as its first two say
(big-endian).

At most 1,400 bytes. Backwards, so that a reply of one byte depends on more than the length.
"""

kv = Service(12345, protocol="kv")
"""The key-value store of 100,000 keys."""

kv_stops = Service(12345, protocol="kv")
"""The same, and STOP ends it: for experiments."""

kv.reply(KeyValueStore().handle)
kv_stops.reply(KeyValueStore(stops=True).handle)


@echo.reply
def _echo(request: bytes) -> bytes:
    return request


@kept.reply
def _kept(request: bytes) -> Reply:
    return Reply(request, cache=True)


@uncached.reply
def _uncached(request: bytes) -> Reply:
    return Reply(request, cache=False)


@mixed.reply
def _mixed(request: bytes) -> bytes:
    source = random.Random(zlib.crc32(request))
    return source.randbytes(source.randrange(1401))


@sized.reply
def _sized(request: bytes) -> Reply:
    length = min(int.from_bytes(request[:2], "big"), 1400)
    times = -(-length // len(request)) if request else 0
    return Reply((request[::-1] * times)[:length], cache=True)


def expectation(name: str) -> Callable[[bytes], bytes | None]:
    """A function that gives the reply of the service `MODULE:NAME` to a request; UsageError."""
    handler = load(name).handler
    assert handler

    def expected(request: bytes) -> bytes | None:
        reply = handler(request)
        return reply.data if isinstance(reply, Reply) else reply

    return expected


def load(name: str) -> Service:
    """The service that `MODULE:NAME` names; the module is looked for here and on the Python path.

    Raises UsageError when the module or the service does not exist, or it has no handler.
    """
    module_name, _, attribute = name.partition(":")
    if not attribute:
        module_name, attribute = "carom.apps", name
    sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and module_name.startswith(error.name or "?"):
            raise UsageError(
                f"there is no module {module_name!r}", hint="--app takes MODULE:SERVICE"
            ) from error
        raise UsageError(
            f"{module_name} cannot be imported: {error!r}",
            hint="-v shows where it fails",
            details=traceback.format_exc(),
        ) from error
    finally:
        sys.path.remove("")
    service = getattr(module, attribute, None)
    if not isinstance(service, Service):
        raise UsageError(
            f"{module_name} has no Service named {attribute!r}",
            hint="a service is an instance of carom.Service at the module's top level",
        )
    if service.handler is None:
        raise UsageError(f"{name} has no handler", hint=f"decorate one with @{attribute}.reply")
    return service
