"""Routes whose body is a document: it is held in memory, so its size and its time are bounded while it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive


class SmallBodyRoute(APIRoute):
    """Answers 413 to the first byte over the limit, and 408 when the rest does not come.

    A route that takes its body as a stream, without a model for it, sees to its own limits and is left alone.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own handler, on a request that ends early."""
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def limited(request: Request) -> Response:
            settings = request.app.state.service.settings
            receive = _bounded(request.receive, settings.max_document_bytes, settings.document_timeout_s)
            return await handle(Request(request.scope, receive))

        return limited


def _bounded(receive: Receive, most_bytes: int, timeout_s: float) -> Receive:
    """HTTPException is the only kind that FastAPI passes on from within a body."""
    received, ended, due = 0, False, asyncio.get_running_loop().time() + timeout_s

    async def counted() -> Message:
        nonlocal received, ended
        if ended:  # what is waited for now is the client's going
            return await receive()
        try:
            async with asyncio.timeout_at(due):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408) from None
        received += len(message.get("body", b""))
        if received > most_bytes:
            raise HTTPException(413)
        ended = not message.get("more_body", False)
        return message

    return counted
