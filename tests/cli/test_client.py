from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from python_multipart import parse_form

from app.cli.client import RequestRefused, predict


@contextmanager
def service(status: int, answer: dict) -> Iterator[tuple[str, dict]]:
    """A server on loopback that gives one answer and keeps what it was asked."""
    asked: dict = {"files": [], "fields": {}}

    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # a body that is shorter than it says ends the test instead of hanging it

        def do_POST(self):
            asked["path"] = self.path
            asked["headers"] = dict(self.headers)
            headers = {key: value.encode() for key, value in self.headers.items()}
            parse_form(
                headers,
                self.rfile,
                lambda field: asked["fields"].update({field.field_name.decode(): field.value.decode()}),
                lambda file: asked["files"].append(_content(file)),
            )
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        thread.join()


def _content(file) -> tuple[str, bytes]:
    file.file_object.seek(0)
    return file.field_name.decode(), file.file_object.read()


def test_files_and_fields_arrive_byte_for_byte(tmp_path):
    contents = [b"first", b"", b"--looks like a boundary\r\n" * 1000]
    paths = [tmp_path / str(i) for i in range(3)]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    with service(200, {"nodules": []}) as (url, asked):
        assert predict(f"{url}/behind/proxy/", paths, {"operating_point": "sensitive"}) == {"nodules": []}
    assert asked["files"] == [("files", content) for content in contents]
    assert asked["fields"] == {"operating_point": "sensitive"}
    assert asked["path"] == "/behind/proxy/v1/predict"


def test_a_problem_becomes_an_error_with_its_code(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    problem = {"code": "irregular_series", "detail": "A slice is missing."}
    with service(422, problem) as (url, _), pytest.raises(RequestRefused) as refused:
        predict(url, [tmp_path / "a"])
    assert (refused.value.code, refused.value.message) == ("irregular_series", "A slice is missing.")


def test_no_service_is_an_error_not_a_traceback(tmp_path):
    with service(200, {}) as (url, _):
        predict(url, [])
    with pytest.raises(RequestRefused) as refused:
        predict(url, [])
    assert refused.value.code == "no_answer"
