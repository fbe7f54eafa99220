"""Rows 36 to 41: what HTTP itself can do to a service, through sockets."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import requests

from tests.hostile.site import Answer, Site
from tests.hostile.worlds import CANARY, MIB, written

FORM = b"Content-Type: multipart/form-data; boundary=b\r\n"
PART = f'--b\r\nContent-Disposition: form-data; name="files"; filename="{CANARY}.dcm"\r\n\r\n'.encode()
_TRICKLE_S = 0.2


def head(path: str = "/v1/predict", *lines: bytes) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n".encode() + b"".join(lines) + b"\r\n"


def said(site: Site, pieces: Iterable[bytes], *, hang_up: bool = False) -> Answer:
    """Send piece by piece; the answer, or status 0 when none came before the connection was closed."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=60) as connection:
        received = b""
        connection.settimeout(60)
        for number, piece in enumerate(pieces):
            if number:
                # A slow sender notices the answer between two pieces, as clients do.
                connection.settimeout(_TRICKLE_S)
                try:
                    received += connection.recv(65536)
                    break
                except TimeoutError:
                    pass
                except OSError:
                    break
            try:
                connection.sendall(piece)
            except OSError:
                break
        if hang_up:
            return Answer(0, "", "")
        received = _rest(connection, received)
    return parsed(received)


def _rest(connection: socket.socket, received: bytes) -> bytes:
    """All of the answer, from what there is of it."""
    connection.settimeout(60)
    with suppress(OSError):
        while not _is_whole(received) and (more := connection.recv(65536)):
            received += more
    return received


def _is_whole(received: bytes) -> bool:
    top, _, body = received.partition(b"\r\n\r\n")
    for line in top.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return len(body) >= int(value)
    return False


def parsed(received: bytes) -> Answer:
    top, _, body = received.partition(b"\r\n\r\n")
    if not top:
        return Answer(0, "", "")
    lines = top.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    problem = headers.get("content-type", "") == "application/problem+json"
    text = body.decode(errors="replace")
    return Answer(int(lines[0].split()[1]), json.loads(text)["code"] if problem else "", text, headers)


def promised_too_much(site: Site, _: Path) -> Answer:
    return said(site, [head("/v1/jobs", FORM, b"Content-Length: 100000\r\n") + PART + b"x" * 500], hang_up=True)


def negative_length(site: Site, _: Path) -> Answer:
    return said(site, [head("/v1/jobs", FORM, b"Content-Length: -1\r\n")])


def two_lengths(site: Site, _: Path) -> Answer:
    return said(site, [head("/v1/jobs", FORM, b"Content-Length: 10\r\nContent-Length: 20\r\n") + b"x" * 20])


def length_and_chunks(site: Site, _: Path) -> Answer:
    """The way to smuggle a second request past a proxy."""
    smuggled = b"5\r\nhello\r\n0\r\n\r\n" + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    lines = b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n"
    return said(site, [head("/v1/jobs", FORM, lines) + smuggled])


def chunks_of_nonsense(site: Site, _: Path) -> Answer:
    return said(site, [head("/v1/jobs", FORM, b"Transfer-Encoding: chunked\r\n") + b"ZZ\r\nhello\r\n"])


def slow_upload(site: Site, _: Path) -> Answer:
    lines = head("/v1/predict", FORM, b"Content-Length: 1000000\r\n")
    return said(site, [lines + PART, *[b"x"] * 200])


def slow_job(site: Site, _: Path) -> Answer:
    lines = head("/v1/jobs", FORM, b"Content-Length: 1000000\r\n")
    return said(site, [lines + PART, *[b"x"] * 200])


def half_a_header(site: Site, _: Path) -> Answer:
    return said(site, [b"POST /v1/predict HTTP/1.1\r\nHost: x\r\n", *[b"X-Slow: y\r\n"] * 200])


def no_header(site: Site, _: Path) -> Answer:
    """A connection and nothing."""
    return said(site, [b""])


def slow_document(site: Site, _: Path) -> Answer:
    lines = b"Content-Type: application/json\r\nContent-Length: 1000\r\n"
    return said(site, [head("/v1/risk", lines) + b"{", *[b" "] * 200])


def gone_half_way(site: Site, folder: Path) -> Answer:
    body = PART + b"x" * MIB
    return said(site, [head("/v1/predict", FORM, b"Content-Length: 2097152\r\n") + body], hang_up=True)


def gone_half_way_through_a_job(site: Site, folder: Path) -> Answer:
    body = PART + b"x" * MIB
    return said(site, [head("/v1/jobs", FORM, b"Content-Length: 2097152\r\n") + body], hang_up=True)


def gone_before_the_answer(site: Site, folder: Path) -> Answer:
    """The whole scan, and nobody waits for what is found."""
    parts = [("files", (path.name, path.read_bytes())) for path in written(folder)]
    prepared = requests.Request("POST", f"{site.url}/v1/predict", files=parts).prepare()
    assert isinstance(prepared.body, bytes)
    lines = f"Content-Type: {prepared.headers['Content-Type']}\r\nContent-Length: {len(prepared.body)}\r\n".encode()
    return said(site, [head("/v1/predict", lines) + prepared.body], hang_up=True)


def ten_thousand_files(site: Site, _: Path) -> Answer:
    return _form(site, (PART + b"\r\n") * 10_000)


def ten_thousand_fields(site: Site, _: Path) -> Answer:
    return _form(site, b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n\r\n' * 10_000)


def long_part_header(site: Site, _: Path) -> Answer:
    return _form(site, b"--b\r\nX-Long: " + b"y" * MIB + b"\r\n\r\n")


def long_header(site: Site, _: Path) -> Answer:
    return said(site, [head("/v1/predict", FORM, b"X-Long: " + CANARY.encode() + b"y" * MIB + b"\r\n")])


def many_headers(site: Site, _: Path) -> Answer:
    return said(site, [head("/v1/predict", FORM, *[b"X-%d: y\r\n" % n for n in range(500)])])


def no_boundary(site: Site, _: Path) -> Answer:
    lines = b"Content-Type: multipart/form-data\r\nContent-Length: 20\r\n"
    return said(site, [head("/v1/predict", lines) + PART[:20]])


def not_http(site: Site, _: Path) -> Answer:
    return said(site, [b"\x16\x03\x01\x02\x00\x01\x00 hello " + CANARY.encode() + b"\r\n\r\n"])


def _form(site: Site, body: bytes, path: str = "/v1/predict") -> Answer:
    body += b"--b--\r\n"
    return said(site, [head(path, FORM, b"Content-Length: %d\r\n" % len(body)) + body])


def endless_body(site: Site, _: Path) -> Answer:
    """Chunk after chunk without a length: it is answered at the limit, before the end."""

    def chunks() -> Iterable[bytes]:
        yield PART
        for _ in range(1000):
            yield bytes(MIB)

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    return _or_reset(site, "/v1/predict", chunks(), headers)


def endless_document(site: Site, _: Path) -> Answer:
    return _or_reset(site, "/v1/risk", (b" " * MIB for _ in range(100)), {"Content-Type": "application/json"})


def endless_retry(site: Site, _: Path) -> Answer:
    headers = {"Content-Type": "application/json"}
    return _or_reset(site, f"/v1/jobs/{'0' * 32}/retry", (b" " * MIB for _ in range(100)), headers)


def _or_reset(site: Site, path: str, chunks: Iterable[bytes], headers: dict[str, str]) -> Answer:
    """Send until there is an answer; a client that never looks meets a closed connection in the end."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=60) as connection:
        lines = b"".join(f"{name}: {value}\r\n".encode() for name, value in headers.items())
        connection.sendall(head(path, lines, b"Transfer-Encoding: chunked\r\n"))
        connection.setblocking(False)
        received, pending, source = b"", b"", iter(chunks)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                received += connection.recv(65536)
                if received:
                    break
            except BlockingIOError:
                pass
            except OSError:
                break
            if not pending:
                chunk = next(source, b"")
                pending = b"%x\r\n" % len(chunk) + chunk + b"\r\n"
            try:
                pending = pending[connection.send(pending) :]
            except BlockingIOError:
                time.sleep(0.001)
            except OSError:
                break
        received = _rest(connection, received)
    return parsed(received)


def same_key_twice(site: Site, folder: Path) -> Answer:
    key = {"Idempotency-Key": f"twice-{time.monotonic_ns()}"}
    paths = written(folder)
    first, second = (site.post("/v1/jobs", paths, headers=key) for _ in range(2))
    assert json.loads(first.text)["id"] == json.loads(second.text)["id"], "one key made two jobs"
    return second


def same_key_for_another_scan(site: Site, folder: Path) -> Answer:
    key = {"Idempotency-Key": f"other-{time.monotonic_ns()}"}
    paths = written(folder)
    site.post("/v1/jobs", paths, headers=key)
    return site.post("/v1/jobs", paths[1:], headers=key)
