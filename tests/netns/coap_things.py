# SPDX-License-Identifier: Apache-2.0
"""A CoAP server by aiocoap, as a program: what is PUT anywhere is kept, and its ETag its beginning.

Below /slow responses are separate.
"""

from __future__ import annotations

import asyncio

import aiocoap
from aiocoap import resource

PORT = 5683
PATIENCE = 0.3
"""Seconds: aiocoap acknowledges a request by itself after 0.1."""


class Everything(resource.Resource, resource.PathCapable):  # type: ignore[misc]
    """One resource that has all paths."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[tuple[str, ...], bytes] = {}

    async def render(self, request: aiocoap.Message) -> aiocoap.Message:
        """Answer a request."""
        name = tuple(request.opt.uri_path)
        if name[:1] == ("slow",):
            await asyncio.sleep(PATIENCE)
        if request.code == aiocoap.GET:
            return self.found(name, request.opt.etags)
        if request.code == aiocoap.DELETE:
            self.values.pop(name, None)
            return aiocoap.Message(code=aiocoap.DELETED)
        self.values[name] = request.payload
        return aiocoap.Message(code=aiocoap.CHANGED)

    def found(self, name: tuple[str, ...], etags: list[bytes]) -> aiocoap.Message:
        """What a GET gets."""
        if not name:
            return aiocoap.Message(code=aiocoap.CONTENT, payload=b"here")
        value = self.values.get(name)
        if value is None:
            return aiocoap.Message(code=aiocoap.NOT_FOUND)
        same = value[:8] in etags
        code, payload = (aiocoap.VALID, b"") if same else (aiocoap.CONTENT, value)
        reply = aiocoap.Message(code=code, payload=payload)
        reply.opt.etag = value[:8]
        return reply


async def serve() -> None:
    """Serve for ever."""
    await aiocoap.Context.create_server_context(Everything(), bind=("::", PORT))
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(serve())
