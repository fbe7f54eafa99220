"""Headers of every answer, request ids, and a log without anything that a caller typed."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from tests.api.standins import Recorder


@pytest.mark.parametrize("path", ["/healthz", "/absent", "/docs", "/openapi.json", "/metrics"])
def test_headers_of_every_answer(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-request-id"]
    assert "default-src 'none'" in headers["content-security-policy"]


@pytest.mark.parametrize(
    ("asked", "kept"), [("abc-1.2_3", True), ("x" * 65, False), ("a b", False), ('a"><script>', False)]
)
def test_a_request_id_is_kept_when_it_is_harmless(client: TestClient, asked: str, *, kept: bool) -> None:
    answer = client.get("/absent", headers={"x-request-id": asked})
    given = answer.headers["x-request-id"]
    assert (given == asked) is kept
    assert answer.json()["instance"] == f"urn:lungnodule:request:{given}"


def test_each_request_is_one_line_without_path_query_or_file_name(client: TestClient, recorder: Recorder) -> None:
    recorder.answer = ValueError("Doe^John")
    with capture_logs() as lines:
        client.get("/patients/Doe^John?name=Doe")
        client.get("/openapi.json?name=Doe")
        client.get("/static/Doe.js")
        client.get("/v1/models/Doe/John")
        client.post("/v1/predict?name=Doe", files={"files": ("Doe^John.dcm", b"x")})
    requests = [line for line in lines if line["event"] == "request"]
    assert [(line["route"], line["status"]) for line in requests] == [
        ("unmatched", 404),
        ("/openapi.json", 200),
        ("/static", 404),
        ("/v1/models/{name}/{version}", 404),
        ("/v1/predict", 500),
    ]
    assert all("Doe" not in str(line) for line in lines)


def test_requests_bytes_and_refusals_are_counted(client: TestClient) -> None:
    client.post("/v1/predict", content=b"x" * 1000, headers={"content-type": "text/plain"})
    client.request("INVENTED", "/healthz")
    text = client.get("/metrics").text
    assert 'lungnodule_http_requests_total{method="POST",route="/v1/predict",status="415"} 1.0' in text
    assert 'method="other"' in text
    assert (
        'lungnodule_rejects_total{code="unsupported_media_type",status="415",type="unsupported_media_type"} 1.0' in text
    )
    assert "lungnodule_received_bytes_total 1000.0" in text
