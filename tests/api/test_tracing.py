"""Spans of a request and its stages, as a collector receives them; nothing of the patient among them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from app.imaging.errors import UnreadableScan
from app.inference.findings import Progress
from app.tracing import TracingUnavailable, open_tracing
from tests.api.collector import Collector, collecting
from tests.api.standins import Recorder, Serve

SCAN = {"files": ("Doe.dcm", b"scan")}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CLIENT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "clinic=Doe"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


def two_stages(on_progress: Any) -> None:
    for stage in ("read", "detect"):
        on_progress(Progress(stage, 0.0))
        on_progress(Progress(stage, 1.0))


def sent(client: TestClient) -> None:
    """Returns when all spans so far are with the collector."""
    assert client.app.state.service.tracing.provider.force_flush()  # type: ignore[attr-defined]


def test_a_request_is_a_child_of_the_client_s_span_and_its_stages_are_below(
    serve: Serve, recorder: Recorder, collector: Collector
) -> None:
    recorder.during = two_stages
    client = serve(otlp_endpoint=collector.url)
    answer = client.post("/v1/predict", files=SCAN, headers=CLIENT)
    sent(client)
    (request,) = collector.named("POST /v1/predict")
    assert (request.trace_id, request.parent_id) == (TRACE, PARENT)
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["lungnodule.request_id"] == answer.headers["x-request-id"]
    stages = [span for span in collector.spans() if span.name.startswith("stage ")]
    assert [span.name for span in stages] == ["stage read", "stage detect"]
    assert {(span.trace_id, span.parent_id) for span in stages} == {(TRACE, request.span_id)}


def test_a_failure_is_told_by_its_code_and_not_by_its_text(
    serve: Serve, recorder: Recorder, collector: Collector
) -> None:
    recorder.during = two_stages
    client = serve(otlp_endpoint=collector.url)
    for failure in (UnreadableScan("Rows is 0.", code="rows_invalid"), RuntimeError("Doe^John")):
        recorder.answer = failure
        client.post("/v1/predict?name=Doe", files=SCAN, headers={**CLIENT, "user-agent": "Doe"})
    client.get("/v1/models/Doe/1")
    client.get("/Doe")
    client.get("/healthz")
    sent(client)
    refused, failed = collector.named("POST /v1/predict")
    assert refused.attributes["error.type"] == "rows_invalid"
    assert failed.attributes["error.type"] == "internal_error"
    ended = [span for span in collector.named("stage detect") if span.is_error]
    assert [span.attributes["error.type"] for span in ended] == ["rows_invalid", "RuntimeError"]
    assert {span.name for span in collector.spans()} == {
        "POST /v1/predict", "GET /v1/models/{name}/{version}", "GET unmatched", "stage read", "stage detect",
    }  # fmt: skip
    assert b"Doe" not in b"".join(collector.bodies)


def test_log_lines_carry_the_trace(serve: Serve, collector: Collector) -> None:
    client = serve(otlp_endpoint=collector.url)
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        client.get("/v1/models", headers=CLIENT)
    assert [line["trace_id"] for line in lines if line["event"] == "request"] == [TRACE]


def test_a_collector_that_is_away_disturbs_nobody(serve: Serve, recorder: Recorder) -> None:
    recorder.during = two_stages
    client = serve(otlp_endpoint="http://127.0.0.1:9")
    assert client.post("/v1/predict", files=SCAN).status_code == 200


def test_off_unless_it_is_asked_for() -> None:
    program = (
        "import sys; from app.main import create_app; from app.settings import Settings; create_app(Settings());"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_asked_for_and_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(TracingUnavailable, match=r"lungnodule\[otel\]"):
        open_tracing("http://127.0.0.1:9")


def test_what_passes_through_a_span_leaves_no_text_in_it(collector: Collector) -> None:
    tracing = open_tracing(collector.url)
    with pytest.raises(ValueError, match="Doe"), tracing.request({}):
        raise ValueError("Doe^John")
    with pytest.raises(ValueError, match="Doe"), tracing.job("id", 1, lambda: None):
        raise ValueError("Doe^John")
    tracing.close()
    assert {span.name for span in collector.spans()} == {"request", "job"}
    assert b"Doe" not in b"".join(collector.bodies)
