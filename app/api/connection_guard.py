"""What uvicorn lacks against slow and many clients: time for a header, its size, connections, answers not taken in.

A subclass of its h11 protocol. What it refuses has met no route yet, so it is answered here, as a problem like any
other.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import h11
import structlog
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from app.api.problem_kinds import CONNECTION_PROBLEMS
from app.api.problems import MEDIA_TYPE, Problem
from app.settings import Settings

_RETRY_AFTER_S = 5
_NOT_TAKEN = "answer_not_taken"
"""The one reason for which nothing can be answered: the client reads nothing."""
_PHRASES = {
    400: "Bad Request",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


@dataclass(frozen=True)
class ConnectionLimits:
    """What one connection may take, and how many there may be."""

    header_timeout_s: float
    """From the first byte, of a new connection from its beginning, to the end of the header."""
    header_bytes: int
    send_timeout_s: float
    """How long a client may leave an answer untaken."""
    headers: int
    connections: int
    connections_per_address: int
    """0: no limit of its own, as behind a proxy, where all come from one."""


def connection_limits(settings: Settings) -> ConnectionLimits:
    """Those in force."""
    return ConnectionLimits(
        header_timeout_s=settings.header_timeout_s,
        header_bytes=settings.max_header_bytes,
        send_timeout_s=settings.send_timeout_s,
        headers=settings.max_headers,
        connections=settings.max_connections,
        connections_per_address=settings.max_connections_per_address,
    )


def guarded_protocol(limits: ConnectionLimits, refused: Callable[[str], None] | None = None) -> type[H11Protocol]:
    """The protocol class for ``uvicorn.Config(http=...)``.

    Parameters
    ----------
    limits
        In force.
    refused
        Is told the code of each refusal, to count it.
    """

    class Guarded(_GuardedProtocol):
        guard = limits
        count = staticmethod(refused or _uncounted)

    return Guarded


def _uncounted(_code: str) -> None:
    """Where nobody counts."""


class _GuardedProtocol(H11Protocol):
    guard: ConnectionLimits
    count: Callable[[str], None]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.app = _plain_requests(self.app, self.guard, self.count)
        self._header_due: asyncio.TimerHandle | None = None
        self._send_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._too_many():
            self._refuse("too_many_connections")
            return
        self._wait_for_header()

    def connection_lost(self, exc: Exception | None) -> None:
        self._header_arrived()
        self._answer_taken()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._header_arrived()
        elif self._header_due is None:
            self._wait_for_header()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # What came too early for its turn is a header that is waited for.
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._wait_for_header()

    def pause_writing(self) -> None:
        self.flow.pause_writing()
        self._send_due = self.loop.call_later(self.guard.send_timeout_s, self._give_up)

    def resume_writing(self) -> None:
        self._answer_taken()
        self.flow.resume_writing()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's, in plain text
        """Called from within uvicorn's handling of h11's error, which says whether the header was too large."""
        hint = getattr(sys.exc_info()[1], "error_status_hint", 400)
        self._refuse("request_header_too_large" if hint == 431 else "malformed_request")

    def _too_many(self) -> bool:
        if len(self.connections) > self.guard.connections:
            return True
        if not self.guard.connections_per_address or self.client is None:
            return False
        own = [each for each in self.connections if isinstance(each, _GuardedProtocol) and each.client is not None]
        return sum(each.client[0] == self.client[0] for each in own if each.client) > self.guard.connections_per_address

    def _wait_for_header(self) -> None:
        self._header_arrived()
        self._header_due = self.loop.call_later(self.guard.header_timeout_s, self._refuse, "request_header_too_slow")

    def _header_arrived(self) -> None:
        if self._header_due is not None:
            self._header_due.cancel()
            self._header_due = None

    def _answer_taken(self) -> None:
        if self._send_due is not None:
            self._send_due.cancel()
            self._send_due = None

    def _give_up(self) -> None:
        self.count(_NOT_TAKEN)
        self.transport.abort()

    def _refuse(self, code: str) -> None:
        self._header_arrived()
        if self.transport.is_closing():
            return
        self.count(code)
        status, body = _problem(code, self.guard, self.root_path)
        head = [
            f"HTTP/1.1 {status} {_PHRASES[status]}",
            f"content-type: {MEDIA_TYPE}",
            f"content-length: {len(body)}",
            "cache-control: no-store",
            "x-content-type-options: nosniff",
            "connection: close",
        ]
        if status == 503:
            head.append(f"retry-after: {_RETRY_AFTER_S}")
        self.transport.write("\r\n".join([*head, "", ""]).encode("ascii") + body)
        self.transport.close()


def _problem(code: str, limits: ConnectionLimits, root_path: str) -> tuple[int, bytes]:
    kind = CONNECTION_PROBLEMS[code]
    request_id = uuid.uuid4().hex
    values = {
        "request_header_too_slow": {"limit_s": limits.header_timeout_s},
        "request_header_too_large": {"limit_bytes": limits.header_bytes},
        "too_many_headers": {"limit": limits.headers},
        "too_many_connections": {"retry_after_s": _RETRY_AFTER_S},
    }
    problem = Problem(
        type=f"{root_path}/problems#{kind.name}",
        title=kind.title,
        status=kind.status,
        detail=f"{kind.title}. {kind.advice}",
        instance=f"urn:lungnodule:request:{request_id}",
        code=code,
        values=values.get(code, {}),
    )
    structlog.get_logger(__name__).info("connection refused", code=code, status=kind.status, request_id=request_id)
    return kind.status, problem.model_dump_json().encode()


def _plain_requests(app: ASGIApp, limits: ConnectionLimits, count: Callable[[str], None]) -> ASGIApp:
    """The application, but for requests with too many headers, or whose length is told in two ways.

    The latter is how a second request is smuggled past a proxy that believes the other one (RFC 9112, 6.1).
    """

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (code := _fault(scope, limits)) is None:
            await app(scope, receive, send)
            return
        count(code)
        status, body = _problem(code, limits, scope.get("root_path", ""))
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return checked


def _fault(scope: Scope, limits: ConnectionLimits) -> str | None:
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if len(headers) > limits.headers:
        return "too_many_headers"
    # h11 counts only while a header is incomplete: one that arrives in one piece may be as long as the piece.
    if len(scope["raw_path"]) + sum(len(name) + len(value) for name, value in headers) > limits.header_bytes:
        return "request_header_too_large"
    names = {name for name, _ in headers}
    return "malformed_request" if {b"content-length", b"transfer-encoding"} <= names else None
