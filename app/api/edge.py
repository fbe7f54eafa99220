"""The outermost layer of HTTP: request ids, headers of every answer, one log line each, and the last safety net."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Mapping
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import problem_response
from app.logs import described
from app.metrics import Metrics
from app.tracing import Tracing

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""Set unless the answer has its own. There is none of CORS: other sites get to see nothing."""
_HTTPS_ONLY = {"strict-transport-security": "max-age=31536000"}

_PROBES = ("/healthz", "/readyz", "/metrics")
"""Asked every few seconds: spans of theirs would bury all others."""

_LINGER_S = 2.0
_LINGER_BYTES = 64 << 20


class Edge:
    """ASGI middleware around everything else.

    Parameters
    ----------
    app
        What to wrap.
    metrics
        Where requests, received bytes and refusals are counted.
    tracing
        Where each request has its span.
    https_only
        Whether browsers are told to come by https for a year.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing, *, https_only: bool = False) -> None:
        self._app = app
        self._always = {**_HEADERS, **(_HTTPS_ONLY if https_only else {})}
        self._metrics = metrics
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._metrics, self._always)
        scope.setdefault("state", {})["request_id"] = exchange.request_id
        bound = {"request_id": exchange.request_id}
        tracing = Tracing() if scope["path"].endswith(_PROBES) else self._tracing
        with tracing.request(Headers(scope=scope)) as span:
            if span.trace_id is not None:
                bound["trace_id"] = span.trace_id
            try:
                with structlog.contextvars.bound_contextvars(**bound):
                    await self._guarded(scope, exchange)
            finally:
                span.describe(*exchange.told_to_tracing())

    async def _guarded(self, scope: Scope, exchange: _Exchange) -> None:
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:  # noqa: BLE001 - the HTTP edge: whatever it is, the client gets a problem
            # Not exc_info: unless logs are configured, structlog would print every local variable.
            structlog.get_logger(__name__).error("unhandled", failure=described(error))
            if not exchange.started:
                await problem_response(Request(scope), error)(scope, exchange.receive, exchange.send)
        finally:
            exchange.account()


def _route_template(scope: Scope) -> str:
    if isinstance(scope.get("endpoint"), StaticFiles):
        return "/static"
    if "route" in scope:
        return str(scope["route"].path)
    # A plain route without parameters: the path is its own template.
    return str(scope["path"]) if "endpoint" in scope and not scope.get("path_params") else "unmatched"


def _known_method(scope: Scope) -> str:
    """Anyone may invent a method; a label for each would fill the memory."""
    method = str(scope["method"])
    return method if method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} else "other"


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, metrics: Metrics, always: Mapping[str, str]) -> None:
        self._always = always
        self._scope = scope
        self._receive = receive
        self._send = send
        self._metrics = metrics
        self._began = time.perf_counter()
        self._received_bytes = 0
        self._status = 0
        headers = Headers(scope=scope)
        asked = headers.get("x-request-id", "")
        self.request_id = asked if _REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex
        self._body_pending = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers

    @property
    def started(self) -> bool:
        """Whether the answer's status has been sent."""
        return self._status != 0

    async def receive(self) -> Message:
        """Pass on what the client sends, and count it."""
        message = await self._receive()
        if message["type"] == "http.request":
            size = len(message.get("body", b""))
            self._received_bytes += size
            self._metrics.received.inc(size)
            self._body_pending = self._body_pending and message.get("more_body", False)
        else:
            self._body_pending = False
        return message

    async def send(self, message: Message) -> None:
        """Pass the answer on, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in self._always.items():
                headers.setdefault(name, value)
            headers["x-request-id"] = self.request_id
            if self._body_pending:
                headers["connection"] = "close"
        elif self._body_pending and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _linger(self) -> None:
        """Take in what is still coming after an early answer: closing at once would reset the connection unread."""
        limit = self._received_bytes + _LINGER_BYTES
        try:
            async with asyncio.timeout(_LINGER_S):
                while self._body_pending and self._received_bytes < limit:
                    await self.receive()
        except TimeoutError:
            pass

    def told_to_tracing(self) -> tuple[str, dict[str, str | int]]:
        """Name and attributes of the span."""
        route, method = _route_template(self._scope), _known_method(self._scope)
        attributes: dict[str, str | int] = {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": self._status or 499,
            "http.request.body.size": self._received_bytes,
            "lungnodule.request_id": self.request_id,
        }
        if "problem" in self._scope:
            attributes["error.type"] = self._scope["problem"][1]
        return f"{method} {route}", attributes

    def account(self) -> None:
        """Count the exchange and log it, by the route's template: a path may hold what a caller typed."""
        route = _route_template(self._scope)
        label, status = _known_method(self._scope), str(self._status or 499)
        self._metrics.requests.labels(route, label, status).inc()
        event: dict[str, Any] = {
            "method": label,
            "route": route,
            "status": int(status),
            "received_bytes": self._received_bytes,
            "seconds": round(time.perf_counter() - self._began, 4),
        }
        if "problem" in self._scope:
            kind, code = self._scope["problem"]
            self._metrics.rejects.labels(kind.name, code, str(kind.status)).inc()
            event["code"] = code
        structlog.get_logger(__name__).info("request", **event)
