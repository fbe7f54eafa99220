"""Slow headers, endless headers, too many connections, answers that nobody takes in: on a real server."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from app.api.connection_guard import ConnectionLimits, guarded_protocol
from tests.served import served

LIMITS = ConnectionLimits(
    header_timeout_s=0.2, header_bytes=4096, send_timeout_s=0.2, headers=10, connections=3, connections_per_address=0
)
PATIENCE_S = 20.0
Start = Callable[..., int]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with as many bytes as the path says."""
    request = Request(scope, receive)
    await request.body()
    count = int(request.url.path.removeprefix("/") or 2)
    answer: Response = PlainTextResponse("x" * count)
    await answer(scope, receive, send)


@pytest.fixture
def refused() -> list[str]:
    """Codes, as they are counted."""
    return []


@pytest.fixture
def start(refused: list[str]) -> Iterator[Start]:
    with ExitStack() as stack:

        def run(**changes: float) -> int:
            limits = ConnectionLimits(**{**vars(LIMITS), **changes})
            config = {"lifespan": "off", "timeout_keep_alive": 1, "h11_max_incomplete_event_size": 4096}
            return stack.enter_context(served(echo, http=guarded_protocol(limits, refused.append), **config))

        yield run


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def until_closed(connection: socket.socket) -> bytes:
    received = b""
    try:
        while more := connection.recv(65536):
            received += more
    except ConnectionError:
        pass
    return received


def refusal(received: bytes) -> tuple[int, str]:
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    problem = json.loads(body)
    assert problem["status"] == int(head.split()[1])
    return problem["status"], problem["code"]


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_a_header_that_does_not_end(start: Start, sent: bytes) -> None:
    with connect(start()) as connection:
        connection.sendall(sent)
        assert refusal(until_closed(connection)) == (408, "request_header_too_slow")


def test_bytes_that_trickle_in_win_no_time(start: Start) -> None:
    with connect(start()) as connection:
        began = time.monotonic()
        connection.settimeout(0.02)
        received, sent = b"", b"GET / HTTP/1.1\r\n"
        while not received and time.monotonic() - began < PATIENCE_S:
            connection.sendall(sent)
            sent = b"X: y\r\n"
            try:
                received = connection.recv(65536)
            except TimeoutError:
                continue
        assert refusal(received) == (408, "request_header_too_slow")


def test_the_second_request_of_a_connection_is_waited_for_no_longer(start: Start) -> None:
    with connect(start()) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET / HT")
        assert refusal(until_closed(connection)) == (408, "request_header_too_slow")


def test_a_header_sent_in_parts_and_a_slow_body_are_no_fault(start: Start, refused: list[str]) -> None:
    with connect(start(header_timeout_s=5.0)) as connection:
        for part in (b"POST / HTTP/1.1\r\nHost: x\r\n", b"Content-Length: 4\r\n\r\n", b"ab", b"cd"):
            connection.sendall(part)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    assert refused == []


def test_the_body_has_more_time_than_the_header(start: Start) -> None:
    with connect(start()) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na")
        connection.settimeout(3 * LIMITS.header_timeout_s)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(PATIENCE_S)
        connection.sendall(b"b")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (b"X: " + b"y" * 9000 + b"\r\n", (431, "request_header_too_large")),
        (b"X: " + b"y" * 900_000 + b"\r\n", (431, "request_header_too_large")),
        (b"".join(b"X-%d: y\r\n" % n for n in range(20)), (431, "too_many_headers")),
        (b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", (400, "malformed_request")),
        (b"Content-Length: -3\r\n", (400, "malformed_request")),
        (b"no colon\r\n", (400, "malformed_request")),
    ],
    ids=["long", "endless", "many", "two lengths", "negative length", "no header"],
)
def test_headers_that_are_refused(start: Start, refused: list[str], lines: bytes, expected: tuple[int, str]) -> None:
    with connect(start()) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n")
        assert refusal(until_closed(connection)) == expected
    assert refused == [expected[1]]


@pytest.mark.parametrize("limit", ["connections", "connections_per_address"])
def test_one_connection_more_is_told_so_and_the_next_finds_room(start: Start, limit: str) -> None:
    port = start(header_timeout_s=PATIENCE_S, **{"connections": 100, limit: 2})
    with connect(port) as first, connect(port):
        with connect(port) as third:
            received = until_closed(third)
            assert refusal(received) == (503, "too_many_connections")
            assert b"retry-after: " in received
        first.close()
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with connect(port) as fourth:
                fourth.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                if fourth.recv(65536).startswith(b"HTTP/1.1 200"):
                    break
            assert time.monotonic() < deadline


def test_a_client_that_takes_nothing_in_is_let_go(start: Start, refused: list[str]) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(PATIENCE_S)
        connection.connect(("127.0.0.1", start()))
        connection.sendall(b"GET /50000000 HTTP/1.1\r\nHost: x\r\n\r\n")
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            # Written to without being read from: an abort is seen as a reset.
            try:
                connection.sendall(b" ")
            except ConnectionError:
                break
            time.sleep(0.05)
        else:
            raise AssertionError("still connected")
    assert "answer_not_taken" in refused


def test_a_client_that_reads_slowly_gets_everything(start: Start) -> None:
    with connect(start()) as connection:
        connection.sendall(b"GET /5000000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        time.sleep(LIMITS.send_timeout_s / 2)
        assert until_closed(connection).endswith(b"\r\n\r\n" + b"x" * 5_000_000)
