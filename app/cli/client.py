"""The service as a client sees it, with nothing but the standard library: start one, wait for it, upload to it."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import IO, Any
from urllib.parse import urlsplit

START_TIMEOUT_S = 120.0
ANSWER_TIMEOUT_S = 900.0
KEY_VARIABLE = "LUNGNODULE_API_KEY"
_COPY_BYTES = 1 << 20


class RequestRefused(Exception):
    """The service answered with a problem, or not at all."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class RunningService:
    """A service of our own."""

    url: str
    process: subprocess.Popen[bytes]


@contextmanager
def running_service(extra_environment: dict[str, str] | None = None) -> Iterator[RunningService]:
    """A service of our own on a free loopback port, ready to work; it is ended afterwards.

    Raises
    ------
    RequestRefused
        ``not_started`` with the end of its log when it stops or does not become ready in time.
    """
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "app.cli", "serve", "--host", "127.0.0.1", "--port", str(port)]
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as data_dir:
        own = {"LUNGNODULE_DATA_DIR": data_dir, "LUNGNODULE_DRAIN_NOTICE_S": "0", **(extra_environment or {})}
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | own
        )
        try:
            _wait_until_ready(process, url, log)
            yield RunningService(url, process)
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def predict(url: str, files: Sequence[Path], fields: dict[str, str] | None = None) -> dict[str, Any]:
    """POST files to ``/v1/predict`` as one streamed multipart body.

    Returns
    -------
    dict
        The decoded AnalysisResult.

    Raises
    ------
    RequestRefused
        With the problem's code and detail for any other answer than 200.
    """
    headers, body = multipart(files, fields)
    headers |= credentials()
    target = urlsplit(url)
    kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
    connection = kind(target.hostname or "127.0.0.1", target.port, timeout=ANSWER_TIMEOUT_S)
    try:
        connection.putrequest("POST", f"{target.path.rstrip('/')}/v1/predict")
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        with suppress(BrokenPipeError, ConnectionResetError):  # refused early: the answer says why
            for chunk in body:
                connection.send(chunk)
        return _answer(connection.getresponse())
    except (OSError, http.client.HTTPException) as error:
        raise RequestRefused("no_answer", f"{url} does not answer: {type(error).__name__}") from error
    finally:
        connection.close()


def credentials() -> dict[str, str]:
    """The header with the key of LUNGNODULE_API_KEY; none without it."""
    key = os.environ.get(KEY_VARIABLE, "")
    return {"Authorization": f"Bearer {key}"} if key else {}


def multipart(files: Sequence[Path], fields: dict[str, str] | None = None) -> tuple[dict[str, str], Iterator[bytes]]:
    """Headers and the body, piece by piece, of a form; of file names only the suffix is sent."""
    boundary = uuid.uuid4().hex
    parts = [(_part_header(boundary, f"{index:06d}{path.suffix}"), path) for index, path in enumerate(files)]
    preamble = b"".join(_field(boundary, name, value) for name, value in (fields or {}).items())
    closing = f"--{boundary}--\r\n".encode()
    length = len(preamble) + sum(len(header) + path.stat().st_size + 2 for header, path in parts) + len(closing)
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Content-Length": str(length)}
    return headers, _body(preamble, parts, closing)


def _free_port() -> int:
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: IO[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(f"{url}/readyz", timeout=2) as answer:  # noqa: S310
            if answer.status == http.client.OK:
                return
        time.sleep(0.1)
    log.seek(0)
    raise RequestRefused(
        "not_started", f"The service did not become ready: {log.read()[-2000:].decode('utf-8', 'replace')}"
    )


def _part_header(boundary: str, name: str) -> bytes:
    disposition = f'Content-Disposition: form-data; name="files"; filename="{name}"'
    return f"--{boundary}\r\n{disposition}\r\nContent-Type: application/octet-stream\r\n\r\n".encode()


def _field(boundary: str, name: str, value: str) -> bytes:
    return f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


def _body(preamble: bytes, parts: Sequence[tuple[bytes, Path]], closing: bytes) -> Iterator[bytes]:
    yield preamble
    for header, path in parts:
        yield header
        with path.open("rb") as file:
            while chunk := file.read(_COPY_BYTES):
                yield chunk
        yield b"\r\n"
    yield closing


def _answer(response: http.client.HTTPResponse) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(response.read())
    if response.status != http.client.OK:
        raise RequestRefused(str(body.get("code", response.status)), str(body.get("detail", response.reason)))
    return body
