"""POST /v1/predict: what goes in, what comes out, and what is left behind."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.api.schemas import AnalysisResult
from app.imaging import errors
from app.imaging.errors import LungNoduleError
from app.inference.findings import Progress
from tests.api.standins import Recorder, Serve, left_in, make_findings, make_model

SCAN = [("files", ("one.dcm", b"first")), ("files", ("two.dcm", b"second"))]


def test_the_answer_has_the_documented_form(client: TestClient) -> None:
    answer = client.post("/v1/predict", files=SCAN)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    result = AnalysisResult.model_validate(answer.json())
    assert [nodule.probability for nodule in result.nodules] == [0.9, 0.5]
    assert result.model.sha256 == "ab" * 32
    assert result.execution_provider == "CPUExecutionProvider"


def test_files_and_options_reach_the_analysis(client: TestClient, recorder: Recorder) -> None:
    fields = {
        "series_uid": "1.2.3",
        "operating_point": "sensitive",
        "model": "other:2.0.0",
        "allow_repairs": ["duplicate_slices", "missing_slices"],
    }
    assert client.post("/v1/predict", files=SCAN, data=fields).status_code == 200
    assert recorder.contents == [("one.dcm", b"first"), ("two.dcm", b"second")]
    assert recorder.options.read.series_uid == "1.2.3"
    assert recorder.options.read.allow_repairs == {"duplicate_slices", "missing_slices"}
    assert recorder.options.operating_point == "sensitive"
    assert recorder.model.identity.name == "other"


def test_defaults_are_the_first_model_and_its_own_operating_point(client: TestClient, recorder: Recorder) -> None:
    blank = {"series_uid": "", "model": "", "operating_point": "", "allow_repairs": ""}
    assert client.post("/v1/predict", files=SCAN, data=blank).status_code == 200
    assert recorder.model.identity.name == "standin"
    assert recorder.options.operating_point == "balanced"
    assert recorder.options.read.series_uid is None


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"series_uid": "not a uid"}, "invalid_option", "series_uid"),
        ({"series_uid": ["1.2", "1.3"]}, "invalid_option", "series_uid"),
        ({"allow_repairs": "everything"}, "invalid_option", "allow_repairs"),
        ({"colour": "red"}, "invalid_option", ""),
        ({"model": "absent"}, "unknown_model", None),
        ({"operating_point": "absent"}, "unknown_operating_point", None),
    ],
)
def test_options_that_do_not_fit_are_named(
    client: TestClient, recorder: Recorder, fields: dict[str, Any], code: str, field: str | None
) -> None:
    answer = client.post("/v1/predict", files=SCAN, data=fields)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, code)
    assert [fault["field"] for fault in problem["errors"]] == ([] if field is None else [field])
    assert recorder.contents == [], "nothing may be analysed"


@pytest.mark.parametrize("files", [[("files", ("a.dcm", b""))], [("model", (None, b"standin"))]])
def test_nothing_to_analyse(client: TestClient, files: list[Any]) -> None:
    answer = client.post("/v1/predict", files=files)
    assert (answer.status_code, answer.json()["code"]) == (422, "empty_upload")


@pytest.mark.parametrize(
    ("settings", "status", "code"),
    [
        ({"max_request_bytes": 100}, 413, "request_too_large"),
        ({"max_files": 1}, 413, "too_many_files"),
        ({"analysis_timeout_s": 1e-9}, 503, "analysis_timeout"),
    ],
)
def test_limits_of_the_settings_hold(
    serve: Serve, recorder: Recorder, settings: dict[str, Any], status: int, code: str
) -> None:
    recorder.during = lambda on_progress: on_progress(Progress("read", 0.0))
    answer = serve(**settings).post("/v1/predict", files=SCAN)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_refused_scan_says_why(client: TestClient, recorder: Recorder) -> None:
    recorder.answer = errors.IrregularSeries(
        "Slices 4 and 6 are 5 mm apart.", code="nonuniform_spacing", values={"found_mm": float("nan")}
    )
    problem = client.post("/v1/predict", files=SCAN).json()
    assert problem["type"] == "/problems#irregular_series"
    assert problem["code"] == "nonuniform_spacing"
    assert problem["detail"] == "Slices 4 and 6 are 5 mm apart."
    assert problem["values"] == {"found_mm": None}


def test_a_fault_of_ours_tells_the_client_nothing_else(client: TestClient, recorder: Recorder) -> None:
    recorder.answer = ValueError("Doe^John")
    answer = client.post("/v1/predict", files=SCAN)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "Doe" not in answer.text
    assert answer.headers["x-request-id"] in answer.json()["instance"]


@pytest.mark.parametrize("outcome", [make_findings(), LungNoduleError("no"), ValueError("no")])
def test_nothing_stays_on_the_disk(client: TestClient, recorder: Recorder, uploads: Path, outcome: Any) -> None:
    recorder.answer = outcome
    client.post("/v1/predict", files=SCAN)
    assert all(path.is_relative_to(uploads) for path in recorder.paths)
    assert len(recorder.paths) == 2
    assert left_in(uploads) == []


@pytest.mark.parametrize(
    ("fault", "code"),
    [(OSError(errno.ENOSPC, "No space left on device"), "storage_full"), (MemoryError(), "out_of_memory")],
)
def test_a_machine_that_is_too_small_just_now_says_so(
    client: TestClient, recorder: Recorder, fault: Exception, code: str
) -> None:
    recorder.answer = fault
    answer = client.post("/v1/predict", files=SCAN)
    assert (answer.status_code, answer.json()["code"]) == (503, code)
    assert "retry-after" in answer.headers


def test_what_the_reader_inflates_lies_in_the_same_folder(
    client: TestClient, recorder: Recorder, uploads: Path
) -> None:
    client.post("/v1/predict", files=SCAN)
    assert recorder.options.read.scratch_root == recorder.paths[0].parent
    assert recorder.options.read.scratch_root.is_relative_to(uploads)


def test_a_full_line_answers_before_the_body_is_read(serve: Serve, recorder: Recorder) -> None:
    client = serve(max_waiting=0)
    refused: list[Any] = []

    def meanwhile(_on_progress: Any) -> None:
        recorder.during = lambda _: None
        refused.append(client.post("/v1/predict", files=SCAN))

    recorder.during = meanwhile
    assert client.post("/v1/predict", files=SCAN).status_code == 200
    assert (refused[0].status_code, refused[0].json()["code"]) == (429, "line_full")
    assert int(refused[0].headers["retry-after"]) >= 1
    assert client.post("/v1/predict", files=SCAN).status_code == 200


def _asgi(
    client: TestClient,
    messages: list[dict[str, Any]],
    until: Callable[[], Any] = lambda: True,
    on_send: Callable[[dict[str, Any]], None] = lambda _message: None,
) -> list[dict[str, Any]]:
    """Send ASGI messages of our choice to the app that the client serves, hang up then, and collect its own."""
    sent: list[dict[str, Any]] = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/predict",
        "raw_path": b"/v1/predict",
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [(b"content-type", b"multipart/form-data; boundary=b"), (b"transfer-encoding", b"chunked")],
        "state": {},
    }

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        while not until():
            await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        on_send(message)
        sent.append(message)

    async def exchange() -> None:
        await client.app(scope, receive, send)

    asyncio.run(exchange())
    return sent


WHOLE = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nscan\r\n--b--\r\n'


@pytest.mark.parametrize("complete", [False, True])
def test_a_hang_up_leaves_nothing_behind(client: TestClient, recorder: Recorder, uploads: Path, complete: bool) -> None:
    """In the middle of the upload, and while the analysis waits for its turn."""
    body = WHOLE if complete else WHOLE[:60]
    _asgi(client, [{"type": "http.request", "body": body, "more_body": not complete}])
    assert left_in(uploads) == []
    assert client.get("/readyz").json()["places_taken"] == 0
    assert 'code="client_hung_up",status="499"' in client.get("/metrics").text


def never() -> bool:
    return False


def test_the_answer_goes_out_before_its_upload_is_removed(
    client: TestClient, recorder: Recorder, uploads: Path
) -> None:
    seen: list[tuple[bool, int]] = []

    def look(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            seen.append((recorder.paths[0].exists(), client.app.state.service.line.admitted))

    sent = _asgi(client, [{"type": "http.request", "body": WHOLE, "more_body": False}], until=never, on_send=look)
    assert sent[0]["status"] == 200
    assert seen == [(True, 1)], "its place is held until the upload is gone"
    assert left_in(uploads) == []
    assert client.app.state.service.line.admitted == 0


def test_an_answer_that_cannot_be_sent_leaves_nothing_behind(client: TestClient, uploads: Path) -> None:
    tried: list[Any] = []

    def broken(message: dict[str, Any]) -> None:
        tried.append(message["status"])
        raise OSError(errno.EPIPE, "Broken pipe")

    _asgi(client, [{"type": "http.request", "body": WHOLE, "more_body": False}], until=never, on_send=broken)
    assert tried == [200]
    assert left_in(uploads) == []
    assert client.app.state.service.line.admitted == 0


def test_an_analysis_that_nobody_waits_for_ends_at_its_next_step(client: TestClient, recorder: Recorder) -> None:
    steps = iter(range(10_000_000))

    def works_on(on_progress: Any) -> None:
        for _ in steps:
            on_progress(Progress("detect", 0.0))

    recorder.during = works_on
    _asgi(client, [{"type": "http.request", "body": WHOLE, "more_body": False}], until=lambda: recorder.paths)
    assert next(steps, None) is not None, "it ran to its end"


def test_early_answers_close_the_connection_after_taking_in_the_rest(serve: Serve) -> None:
    client = serve(max_request_bytes=10)
    pieces = [{"type": "http.request", "body": b"x" * 20, "more_body": n < 3} for n in range(4)]
    sent = _asgi(client, pieces)
    assert sent[0]["status"] == 413
    assert (b"connection", b"close") in sent[0]["headers"]
    assert json.loads(b"".join(message.get("body", b"") for message in sent[1:]))["status"] == 413
    assert pieces == [], "the rest of the body was not taken in"
    assert sent[-1].get("more_body", False) is False


def test_model_without_version_is_found_by_name(serve: Serve, recorder: Recorder) -> None:
    client = serve(models=(make_model("a", "1.0.0"), make_model("b", "1.0.0")))
    assert client.post("/v1/predict", files=SCAN, data={"model": "b"}).status_code == 200
    assert recorder.model.identity.name == "b"


def test_the_operators_memory_bound_reaches_the_analysis(serve: Serve, recorder: Recorder) -> None:
    """A line that a merge lost once: without it the setting would be taken and do nothing."""
    assert serve(detector_memory_mib=300.0).post("/v1/predict", files=SCAN).status_code == 200
    assert recorder.options.detector_memory_mib == 300.0
