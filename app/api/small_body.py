"""Routes whose body is a document: it is held in memory, so its size is bounded while it arrives."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

MOST_BYTES = 1 << 20


class SmallBodyRoute(APIRoute):
    """Answers 413 to the first byte over the limit."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own handler, on a request that ends early."""
        handle = super().get_route_handler()

        async def limited(request: Request) -> Response:
            return await handle(Request(request.scope, _at_most(request.receive)))

        return limited


def _at_most(receive: Receive) -> Receive:
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > MOST_BYTES:
            raise HTTPException(413)  # the only kind that FastAPI passes on from within a body
        return message

    return counted
