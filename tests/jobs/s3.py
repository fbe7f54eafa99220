"""An S3 server of our own (moto) on a port of this machine, that can be told to refuse, to wait, or to be away."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import uuid4

import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
Answer = Callable[[str, str], int | None]
"""From method and path of a request to the status that it gets instead of its answer, or None."""


@dataclass
class S3:
    """A server; what is in it outlives a stop."""

    server: Any

    @property
    def endpoint(self) -> str:
        return "http://{}:{}".format(*self.server.address)

    @property
    def environment(self) -> dict[str, str]:
        """How processes find it."""
        return {**KEYS, "AWS_ENDPOINT_URL": self.endpoint}

    def stop(self) -> None:
        self.server.stop()

    def start(self) -> None:
        self.server.start()

    def instead(self, answer: Answer) -> None:
        """From now on requests are shown to ``answer`` first."""
        self.server.answer = answer

    @cached_property
    def client(self) -> Any:
        """boto3's, a look from outside."""
        import boto3  # noqa: PLC0415

        return boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1",
                            aws_access_key_id="test", aws_secret_access_key="test")  # fmt: skip


@dataclass
class TestBucket:
    """One bucket of the server, seen from outside."""

    __test__ = False

    s3: S3
    name: str
    prefix: str = "clinic/ct"

    @property
    def url(self) -> str:
        return f"s3://{self.name}/{self.prefix}"

    def keys(self, below: str = "") -> list[str]:
        """Every key, without the prefix; the marker is left out."""
        listed = self.s3.client.list_objects_v2(Bucket=self.name).get("Contents", [])
        keys = [one["Key"].removeprefix(f"{self.prefix}/") for one in listed]
        return sorted(key for key in keys if key.startswith(below) and key != "lungnodule-store.json")

    def body(self, key: str) -> bytes:
        return bytes(self.s3.client.get_object(Bucket=self.name, Key=f"{self.prefix}/{key}")["Body"].read())

    def write(self, key: str, body: bytes) -> None:
        self.s3.client.put_object(Bucket=self.name, Key=f"{self.prefix}/{key}", Body=body)

    def remove(self, key: str) -> None:
        self.s3.client.delete_object(Bucket=self.name, Key=f"{self.prefix}/{key}")


@contextmanager
def running_s3() -> Iterator[S3]:
    """Skipped where moto or s3fs is missing; an error where CI says that they must be there."""
    if os.environ.get("CI") != "true":
        pytest.importorskip("s3fs", reason="s3fs is missing: pip install 'lungnodule[s3]'")
        pytest.importorskip("moto.server", reason="moto is missing: pip install 'moto[server]'")
    s3 = S3(_gated_server())
    s3.start()
    try:
        yield s3
    finally:
        s3.stop()


@contextmanager
def fresh_bucket(s3: S3) -> Iterator[TestBucket]:
    s3.instead(lambda _method, _path: None)
    bucket = TestBucket(s3, f"b{uuid4().hex[:20]}")
    s3.client.create_bucket(Bucket=bucket.name)
    yield bucket
    s3.instead(lambda _method, _path: None)


def _gated_server() -> Any:
    from moto.server import (  # noqa: PLC0415
        DomainDispatcherApplication,
        MotoRequestHandler,
        ThreadedMotoServer,
        create_backend_app,
    )
    from werkzeug.serving import make_server  # noqa: PLC0415

    class GatedMotoServer(ThreadedMotoServer):
        """Keeps its port, and gives it back while it is stopped."""

        def __init__(self) -> None:
            super().__init__(ip_address="127.0.0.1", port=0, verbose=False)
            self.answer: Answer = lambda _method, _path: None
            self._app = DomainDispatcherApplication(create_backend_app)

        @property
        def address(self) -> tuple[str, int]:
            return self._ip_address, self._port

        def _server_entry(self) -> None:
            self._server = make_server(
                self._ip_address, self._port, self._gated, threaded=True, request_handler=MotoRequestHandler
            )
            self._port = self._server.server_address[1]
            self._server_ready_event.set()
            self._server.serve_forever()
            self._server.server_close()

        def _gated(self, environ: dict[str, Any], start_response: Any) -> Any:
            status = self.answer(environ["REQUEST_METHOD"], environ["PATH_INFO"])
            if status is None:
                return self._app(environ, start_response)
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            code = {403: "AccessDenied"}.get(status, "InternalError")
            body = f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()
            start_response(f"{status} No", [("Content-Type", "text/xml"), ("Content-Length", str(len(body)))])
            return [body]

    return GatedMotoServer()
