"""Probes, metrics, models and capabilities."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from app.imaging.acceptance import Notice
from app.imaging.errors import ModelError
from app.main import create_app
from app.settings import Settings
from tests.api.standins import SHA, Serve, make_model

SCAN = {"files": ("a.dcm", b"scan")}


def test_alive(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}


def test_ready_names_model_provider_and_what_the_operator_should_know(serve: Serve) -> None:
    client = serve(models=(make_model(notices=(Notice("device_fallback", "On the CPU."),)),), max_waiting=3)
    said = client.get("/readyz").json()
    assert said["free_disk_bytes"] > 0
    del said["free_disk_bytes"]
    assert said == {
        "status": "ready",
        "models": ["standin:1.2.3"],
        "execution_provider": "CPUExecutionProvider",
        "notices": ["On the CPU."],
        "places": 4,
        "places_taken": 0,
    }


def test_not_ready_without_room_on_the_disk(serve: Serve) -> None:
    answer = serve(min_free_disk_bytes=1 << 60).get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, "disk_low")
    assert answer.json()["values"]["required_bytes"] == 1 << 60
    assert "retry-after" in answer.headers


def test_metrics_show_stages_line_model_and_provider(client: TestClient) -> None:
    client.post("/v1/predict", files=SCAN)
    text = client.get("/metrics").text
    for line in (
        'lungnodule_stage_seconds_count{stage="read"} 1.0',
        'lungnodule_stage_seconds_count{stage="receive"} 1.0',
        'lungnodule_stage_seconds_count{stage="wait"} 1.0',
        "lungnodule_requests_in_flight 0.0",
        "lungnodule_requests_waiting 0.0",
        'lungnodule_execution_provider_info{provider="CPUExecutionProvider"} 1.0',
        f'lungnodule_model_info{{name="standin",sha256="{SHA}",version="1.2.3"}} 1.0',
        'lungnodule_analyses_total{model="standin:1.2.3"} 1.0',
        'lungnodule_nodules_total{model="standin:1.2.3"} 2.0',
    ):
        assert line in text


def test_two_services_in_one_process_share_nothing(serve: Serve) -> None:
    first, second = serve(), serve()
    first.post("/v1/predict", files=SCAN)
    assert 'lungnodule_analyses_total{model="standin:1.2.3"}' not in second.get("/metrics").text


def test_models(client: TestClient) -> None:
    models = client.get("/v1/models").json()["models"]
    assert [(m["name"], m["is_default"]) for m in models] == [("standin", True), ("other", False)]
    assert models[0]["operating_points"] == ["balanced", "sensitive"]
    assert models[0]["precision"] == {"detector": "fp32", "characteriser": "fp32"}
    assert models[0]["precisions"] == ["fp32"]
    details = client.get("/v1/models/other/2.0.0").json()
    assert details["manifest"]["malignancy"]["meaning"] == "Rated 4 or 5 by readers."
    assert details["sha256"] == SHA


def test_an_absent_model_is_answered_with_those_there_are(client: TestClient) -> None:
    answer = client.get("/v1/models/other/9.9.9")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_model")
    assert answer.json()["values"]["available"] == ["standin/1.2.3", "other/2.0.0"]


def test_capabilities_state_the_limits_in_force(serve: Serve) -> None:
    said = serve(max_files=7, max_waiting=1, read={"max_slices": 99}).get("/v1/capabilities").json()
    assert said["request_limits"]["max_files"] == 7
    assert said["request_limits"]["places"] == 2
    assert said["scan_limits"]["max_slices"] == 99
    assert {"uid": "1.2.840.10008.1.2.4.70", "name": "JPEG Lossless SV1"} in said["transfer_syntaxes"]


def test_a_model_that_cannot_be_used_ends_the_start_and_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "lungnodule" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    app = create_app(Settings(model_store=tmp_path))
    with capture_logs() as lines, pytest.raises(ModelError), TestClient(app):
        pass
    (line,) = [line for line in lines if line["event"] == "start refused"]
    assert line["code"] == "manifest_invalid"
    assert str(folder / "manifest.json") in line["reason"]


def test_the_start_page_leads_to_the_description(serve: Serve) -> None:
    assert serve().get("/", follow_redirects=False).headers["location"] == "/docs"
    bare = serve(docs=False)
    assert bare.get("/", follow_redirects=False).headers["location"] == "/v1/capabilities"
    assert {bare.get(path).status_code for path in ("/docs", "/redoc", "/openapi.json")} == {404}


def test_every_limit_of_a_request_or_connection_is_told(serve: Serve) -> None:
    """Under the name of its setting."""
    names = {
        "max_request_bytes", "max_files", "upload_timeout_s", "upload_grace_s", "min_upload_bytes_per_s",
        "max_document_bytes", "document_timeout_s", "max_header_bytes", "max_headers", "header_timeout_s",
        "send_timeout_s", "keep_alive_s", "max_connections", "max_connections_per_address", "analysis_timeout_s",
        "max_batch_jobs",
    }  # fmt: skip
    chosen = {name: 1000 + number for number, name in enumerate(sorted(names))} | {"max_document_bytes": 2048}
    chosen |= {"max_header_bytes": 4096}
    told = serve(**chosen).get("/v1/capabilities").json()["request_limits"]
    assert {name: told[name] for name in names} == chosen


@pytest.mark.parametrize("path", ["/v1/risk", "/v1/jobs/0/retry", "/v1/jobs/0/pacs"])
def test_a_document_over_the_limit(serve: Serve, path: str) -> None:
    answer = serve(max_document_bytes=2048).post(
        path, content=b" " * 5000, headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()["type"]) == (413, "/problems#too_large")
    assert serve(max_document_bytes=2048).post(
        path, content=b"\xff", headers={"content-type": "application/json"}
    ).json()["type"] in ("/problems#malformed_body", "/problems#invalid_request")
