"""Jobs over HTTP; tickets are worked on by hand, so that every state can be looked at."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.api.job_work import order_analysis, priors_of, rendered
from app.api.problems import MEDIA_TYPE, problem_kinds
from app.api.schemas import AnalysisResult
from app.imaging.errors import UnreadableScan
from app.inference.findings import Progress
from app.jobs.installation import Jobs
from app.jobs.queue import Ticket
from app.jobs.records import State
from app.jobs.runner import Runner
from app.main import create_app
from app.settings import Settings
from tests.api.standins import Recorder, left_in, make_model, shelved
from tests.jobs.installations import HandQueue

SCAN = [("files", ("one.dcm", b"first")), ("files", ("two.dcm", b"second"))]
HOOKS = {"pacs": {"url": "http://127.0.0.1:9/", "secret": "a secret of some length"}}


@dataclass
class Desk:
    """A service in this process and its engine."""

    client: TestClient
    jobs: Jobs
    queue: HandQueue
    runner: Runner

    def post(self, **options: Any) -> dict[str, Any]:
        answer = self.client.post("/v1/jobs", files=SCAN, **options)
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    def work(self) -> None:
        while self.queue.tickets:
            self.runner(self.queue.tickets.pop(0))

    def get(self, job: dict[str, Any], part: str = "") -> Any:
        return self.client.get(f"/v1/jobs/{job['id']}{part}")


@pytest.fixture
def open_desk(tmp_path: Path, recorder: Recorder) -> Iterator[Callable[..., Desk]]:
    running: list[TestClient] = []

    def start(**changes: Any) -> Desk:
        settings = Settings(**{"data_dir": tmp_path / "data", "min_free_disk_bytes": 0, **changes})
        models = shelved(make_model(), make_model("other", "2.0.0"))
        queue = HandQueue()
        app = create_app(settings, load=lambda _: models, run=recorder, make_queue=lambda _: queue)
        running.append(TestClient(app, root_path=settings.root_path))
        client = running[-1].__enter__()
        jobs = app.state.desk.jobs
        analysis = order_analysis(settings, models.registry, tmp_path, recorder, priors_of(jobs))
        runner = Runner(
            ledger=jobs.ledger, intake=jobs.intake, store=jobs.store, worker_id="w", turn=nullcontext, timeout_s=60.0,
            analyse=analysis, render=rendered, observe=lambda *_: None,
        )  # fmt: skip
        return Desk(client, jobs, queue, runner)

    yield start
    for client in running:
        client.__exit__(None, None, None)


@pytest.fixture
def desk(open_desk: Callable[..., Desk]) -> Desk:
    return open_desk(webhooks=HOOKS, actor_header="X-User")


def refused(answer: Any) -> tuple[int, str]:
    assert answer.headers["content-type"] == MEDIA_TYPE
    problem = answer.json()
    assert problem["type"].rpartition("#")[2] in {kind.name for kind in problem_kinds()}
    return answer.status_code, problem["code"]


def test_a_scan_goes_in_and_its_answer_comes_out(desk: Desk, recorder: Recorder) -> None:
    answer = desk.client.post("/v1/jobs", files=SCAN, data={"operating_point": "sensitive"})
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == job["links"]["self"] == f"/v1/jobs/{job['id']}"
    assert int(answer.headers["retry-after"]) > 0
    assert (job["state"], job["position"], job["operating_point"]) == ("queued", 1, "sensitive")
    assert refused(desk.get(job, "/result")) == (409, "job_not_finished")
    desk.work()
    job = desk.get(job).json()
    assert (job["state"], job["position"], job["progress"]["stage"]) == ("succeeded", None, "done")
    result = desk.client.get(job["links"]["result"])
    assert AnalysisResult.model_validate(result.json()).nodules[0].probability == 0.9
    assert result.headers["etag"] == f'"{hashlib.sha256(result.content).hexdigest()}"'
    assert recorder.contents == [("one.dcm", b"first"), ("two.dcm", b"second")]
    assert recorder.options.operating_point == "sensitive"
    assert left_in(desk.jobs.store.incoming) == []


def test_it_is_the_answer_of_predict(desk: Desk) -> None:
    job = desk.post()
    desk.work()
    direct = desk.client.post("/v1/predict", files=SCAN)
    assert desk.get(job, "/result").content == direct.content


def test_the_same_key(desk: Desk) -> None:
    key = {"Idempotency-Key": "k-1"}
    first = desk.post(headers=key)
    assert desk.post(headers=key)["id"] == first["id"]
    desk.work()
    assert desk.post(headers=key)["state"] == "succeeded"
    other = desk.client.post("/v1/jobs", files=SCAN[:1], headers=key)
    assert refused(other) == (422, "idempotency_key_reused")
    assert refused(desk.client.post("/v1/jobs", files=SCAN, headers={"Idempotency-Key": "a b"}))[0] == 422


def test_the_same_series_is_answered_from_what_is_stored_and_says_so(desk: Desk, recorder: Recorder) -> None:
    first = desk.post()
    desk.work()
    recorder.contents = []
    second = desk.client.post("/v1/jobs", files=SCAN[::-1]).json()
    assert (second["state"], second["answered_from"]) == ("succeeded", first["id"])
    assert desk.get(second, "/result").content == desk.get(first, "/result").content
    assert recorder.contents == []


def test_progress_and_events(desk: Desk, recorder: Recorder) -> None:
    job = desk.post()
    seen = []

    def during(on_progress: Callable[[Progress], None]) -> None:
        on_progress(Progress("read", 0.0))
        on_progress(Progress("detect", 0.25))
        seen.append(desk.get(job).json())

    recorder.during = during
    desk.work()
    (running,) = seen
    assert (running["state"], running["position"], running["progress"]["stage"]) == ("running", 0, "detect")
    assert {s["name"]: s["fraction"] for s in running["progress"]["stages"]} == {
        "read": 1.0, "lungs": 1.0, "prepare": 1.0, "detect": 0.25, "characterise": 0.0, "measure": 0.0,
    }  # fmt: skip
    events = written(desk.get(job, "/events").text)
    assert [(seq, kind) for seq, kind, _ in events] == [
        (1, "queued"), (2, "started"), (3, "progress"), (4, "progress"), (5, "succeeded"),
    ]  # fmt: skip
    assert events[3][2]["stage"] == "detect"
    again = desk.client.get(f"/v1/jobs/{job['id']}/events", headers={"Last-Event-ID": "3"})
    assert again.headers["content-type"].startswith("text/event-stream")
    assert [seq for seq, _, _ in written(again.text)] == [4, 5]


def test_a_scan_that_cannot_be_used(desk: Desk, recorder: Recorder) -> None:
    recorder.answer = UnreadableScan("Rows is 0.", code="rows_invalid", values={"rows": 0})
    job = desk.post()
    desk.work()
    shown = desk.get(job).json()
    assert (shown["state"], shown["problem"]["code"], shown["problem"]["status"]) == ("failed", "rows_invalid", 422)
    result = desk.get(job, "/result")
    assert refused(result) == (422, "rows_invalid")
    assert result.json() == shown["problem"]


def test_a_job_that_was_given_up(desk: Desk, recorder: Recorder) -> None:
    recorder.answer = RuntimeError("Doe^John")
    job = desk.post()
    desk.work()
    shown = desk.get(job)
    assert shown.json()["state"] == "parked"
    assert refused(desk.get(job, "/result")) == (500, "attempts_exhausted")
    assert "Doe" not in shown.text
    recorder.answer = Recorder().answer
    again = desk.client.post(shown.json()["links"]["retry"]).json()
    desk.work()
    assert desk.get(again).json()["state"] == "succeeded"


def test_cancel(desk: Desk, recorder: Recorder) -> None:
    job = desk.post()
    for _ in range(2):
        answer = desk.client.delete(f"/v1/jobs/{job['id']}")
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    desk.work()
    assert recorder.contents == []
    assert refused(desk.get(job, "/result")) == (409, "job_cancelled")
    done = desk.post(data={"operating_point": "sensitive"})
    desk.work()
    assert refused(desk.client.delete(f"/v1/jobs/{done['id']}")) == (409, "job_finished")


def test_retry_with_another_operating_point_or_model(desk: Desk, recorder: Recorder) -> None:
    job = desk.post(data={"notify": "pacs"})
    desk.work()
    again = desk.client.post(f"/v1/jobs/{job['id']}/retry", json={"operating_point": "sensitive"})
    assert again.status_code == 202
    assert again.headers["location"] == f"/v1/jobs/{again.json()['id']}"
    desk.work()
    assert recorder.options.operating_point == "sensitive"
    shown = desk.get(again.json()).json()
    assert (shown["retry_of"], shown["notify"], shown["model"]) == (job["id"], "pacs", "standin:1.2.3")
    other = desk.client.post(f"/v1/jobs/{job['id']}/retry", json={"model": "other"}).json()
    assert (other["model"], other["operating_point"]) == ("other:2.0.0", "balanced")
    assert desk.client.post(f"/v1/jobs/{job['id']}/retry").json()["answered_from"] == job["id"]
    for body, expected in (({"model": "none"}, "unknown_model"), ({"operating_point": "x"}, "unknown_operating_point")):
        assert refused(desk.client.post(f"/v1/jobs/{job['id']}/retry", json=body)) == (422, expected)
    assert refused(desk.client.post(f"/v1/jobs/{job['id']}/retry", json={"series": "x"}))[0] == 422


def test_a_clinical_context_goes_with_the_job_and_its_retry(desk: Desk) -> None:
    told = {"age_years": 67, "setting": "screening"}
    job = desk.post(data={"context": json.dumps(told)})
    desk.work()
    assert desk.get(job, "/result").json()["assessment"]["context"] == told
    assert "screening" not in desk.get(job).text + str(desk.jobs.lookup.job(job["id"]))
    again = desk.client.post(f"/v1/jobs/{job['id']}/retry", json={"operating_point": "sensitive"}).json()
    other = desk.client.post(f"/v1/jobs/{job['id']}/retry", json={"context": {"age_years": 68}}).json()
    desk.work()
    assert desk.get(again, "/result").json()["assessment"]["context"] == told
    assert desk.get(other, "/result").json()["assessment"]["context"] == {"age_years": 68}
    assert desk.client.post(f"/v1/jobs/{job['id']}/retry").json()["answered_from"] == job["id"]


def test_the_list(desk: Desk) -> None:
    points = ["balanced", "sensitive"]
    ids = [
        desk.post(data={"operating_point": point, "model": m})["id"] for point in points for m in ("standin", "other")
    ]
    first = desk.client.get("/v1/jobs", params={"limit": 3}).json()
    assert [job["id"] for job in first["jobs"]] == ids[:0:-1]
    rest = desk.client.get(first["next"]).json()
    assert ([job["id"] for job in rest["jobs"]], rest["next"]) == (ids[:1], None)
    desk.runner(Ticket(ids[0], 1))
    listed = desk.client.get("/v1/jobs", params={"state": ["succeeded", "failed"]}).json()["jobs"]
    assert [job["id"] for job in listed] == ids[:1]
    assert len(desk.client.get("/v1/jobs", params={"model": "other:2.0.0"}).json()["jobs"]) == 2
    assert desk.client.get("/v1/jobs", params={"created_after": "2100-01-01T00:00:00Z"}).json()["jobs"] == []
    for query in ({"state": "erased"}, {"limit": 0}, {"cursor": "x"}, {"cursor": "e30="}, {"created_after": "soon"}):
        assert refused(desk.client.get("/v1/jobs", params=query))[0] == 422


def test_erase(desk: Desk) -> None:
    job = desk.post(headers={"X-User": "anna"})
    desk.work()
    receipt = desk.client.delete(f"/v1/jobs/{job['id']}/data").json()
    assert (receipt["files_removed"], receipt["files_left"], receipt["rows_left"]) == (4, 0, 0)
    for part in ("", "/result", "/events"):
        assert refused(desk.get(job, part)) == (410, "job_erased")
    assert refused(desk.client.post(f"/v1/jobs/{job['id']}/retry")) == (410, "job_erased")
    assert desk.client.get("/v1/jobs").json()["jobs"] == []
    assert desk.post()["answered_from"] is None


@pytest.mark.parametrize(
    ("method", "part"),
    [("GET", ""), ("GET", "/result"), ("GET", "/events"), ("DELETE", ""), ("DELETE", "/data"), ("POST", "/retry")],
)
def test_an_unknown_job(desk: Desk, method: str, part: str) -> None:
    assert refused(desk.client.request(method, f"/v1/jobs/{'0' * 32}{part}")) == (404, "unknown_job")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"model": "none"}, "unknown_model"),
        ({"operating_point": "x"}, "unknown_operating_point"),
        ({"notify": "http://evil/"}, "unknown_webhook"),
        ({"series": "1.2"}, "invalid_option"),
    ],
)
def test_what_cannot_be_done_is_refused_at_the_door(desk: Desk, fields: dict[str, str], code: str) -> None:
    assert refused(desk.client.post("/v1/jobs", files=SCAN, data=fields)) == (422, code)
    assert desk.client.get("/v1/jobs").json()["jobs"] == []
    assert desk.jobs.store.scan_ids() == []
    assert left_in(desk.jobs.store.incoming) == []


def test_nothing_was_sent(desk: Desk) -> None:
    assert refused(desk.client.post("/v1/jobs", files={"files": ("a", b"")})) == (422, "empty_upload")


def test_a_full_queue(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(max_queued=1)
    desk.post()
    answer = desk.client.post("/v1/jobs", files=SCAN[:1])
    assert refused(answer) == (429, "queue_full")
    assert int(answer.headers["retry-after"]) > 0


def test_while_it_stops_nothing_new_is_taken(desk: Desk) -> None:
    job = desk.post()
    desk.client.app.state.desk.draining.set()
    for answer in (
        desk.client.post("/v1/jobs", files=SCAN),
        desk.client.post(f"/v1/jobs/{job['id']}/retry"),
        desk.client.post("/v1/predict", files=SCAN),
        desk.client.get("/readyz"),
    ):
        assert refused(answer) == (503, "draining")
        assert "retry-after" in answer.headers
    assert desk.get(job).json()["state"] == State.QUEUED


def test_links_carry_the_prefix_of_the_proxy(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(root_path="/ct")
    answer = desk.client.post("/v1/jobs", files=SCAN)
    assert answer.headers["location"].startswith("/ct/v1/jobs/")
    assert answer.json()["links"]["events"].startswith("/ct/v1/jobs/")


def written(text: str) -> list[tuple[int, str, dict[str, Any]]]:
    """The events of a stream."""
    events = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        if "id" in lines:
            events.append((int(lines["id"]), lines["event"], json.loads(lines["data"])))
    return events
