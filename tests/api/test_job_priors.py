"""Jobs that are compared with an earlier one, over HTTP; tickets are worked on by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from app.api.job_work import order_analysis, priors_of, rendered
from app.api.schemas import AnalysisResult
from app.imaging.alignment import Chest
from app.imaging.errors import NotChestCt
from app.imaging.lungs import LungMask
from app.imaging.volume import CtVolume, Grid
from app.inference.findings import Findings, Progress
from app.jobs.installation import Jobs
from app.jobs.rows import as_json
from app.jobs.runner import Runner
from app.main import create_app
from app.settings import Settings
from tests.api.standins import make_model, shelved
from tests.compared_findings import findings_of, nodule_of
from tests.jobs.installations import ORDER, HandQueue

GRID = Grid.from_spacing((24, 24, 24), (8.0, 8.0, 8.0), (-92.0, -92.0, -92.0))
CHEST = Chest(
    np.full(GRID.shape_zyx, -850, np.int16), GRID, LungMask(np.ones(GRID.shape_zyx, np.uint8), GRID)
)  # nothing in it to register by: every comparison says so
NOW, BEFORE = [("files", ("now", b"patient one day 90"))], [("files", ("before", b"patient one day 0"))]


def spoken(files: Any, model: Any, options: Any, on_progress: Any) -> Findings:
    """The scan's bytes say whose it is and of which day."""
    on_progress(Progress("read", 0.5))
    said = files[0].path.read_text().split()
    if said == ["head"]:
        raise NotChestCt("No lungs.", code="no_lungs")
    volume = CtVolume(CHEST.hu, GRID)
    nodules = [nodule_of(1, ((0.0, 0.0, 0.0), 8.0))]
    found = findings_of(volume, CHEST, nodules, day=int(said[3]), patient=said[1])
    return found if options.keep_trace else replace(found, trace=None)


@dataclass
class Desk:
    client: TestClient
    jobs: Jobs
    queue: HandQueue
    runner: Runner
    analysed: list[tuple[str, Any]]

    def post(self, scan: Any, **fields: str) -> dict[str, Any]:
        answer = self.client.post("/v1/jobs", files=scan, data=fields)
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    def work(self) -> None:
        while self.queue.tickets:
            self.runner(self.queue.tickets.pop(0))

    def done(self, job: dict[str, Any]) -> dict[str, Any]:
        self.work()
        return dict(self.client.get(job["links"]["self"]).json())

    def refusal(self, scan: Any, **fields: str) -> tuple[int, str]:
        answer = self.client.post("/v1/jobs", files=scan, data=fields)
        return answer.status_code, answer.json()["code"]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    settings = Settings(data_dir=tmp_path / "data", min_free_disk_bytes=0)
    queue, analysed = HandQueue(), []

    def analyse(files: Any, model: Any, options: Any, on_progress: Any) -> Findings:
        analysed.append((files[0].path.read_text(), options))
        return spoken(files, model, options, on_progress)

    models = shelved(make_model())
    app = create_app(settings, load=lambda _: models, run=analyse, make_queue=lambda _: queue)
    with TestClient(app) as client:
        jobs = app.state.desk.jobs
        runner = Runner(
            ledger=jobs.ledger, intake=jobs.intake, store=jobs.store, worker_id="w", turn=nullcontext, timeout_s=60.0,
            analyse=order_analysis(settings, models.registry, tmp_path, analyse, priors_of(jobs)), render=rendered,
            observe=lambda *_: None,
        )  # fmt: skip
        yield Desk(client, jobs, queue, runner, analysed)


def test_a_job_is_compared_with_an_earlier_one(desk: Desk) -> None:
    prior = desk.post(BEFORE, series_uid="1.2.3", allow_repairs="missing_slices")
    desk.work()
    desk.analysed.clear()
    job = desk.post(NOW, prior=prior["id"], series_uid="4.5.6")
    assert job["prior"] == prior["id"]
    assert [stage["name"] for stage in job["progress"]["stages"]][::7] == ["prior", "compare"]
    finished = desk.done(job)
    assert finished["state"] == "succeeded"
    assert all(stage["fraction"] == 1.0 for stage in finished["progress"]["stages"])
    result = AnalysisResult.model_validate(desk.client.get(finished["links"]["result"]).json())
    assert result.comparison is not None
    assert result.comparison.days_between == 90
    assert [nodule.id for nodule in result.comparison.prior_nodules] == ["nodule-1"]
    failure = result.comparison.registration.failure
    assert (result.comparison.registration.usable, failure and failure.code) == (False, "registration_failed")
    assert {"prior", "compare"} <= set(result.timings_s)
    (first, second) = desk.analysed
    assert (first[0], second[0]) == ("patient one day 0", "patient one day 90")
    # Each by the series and the repairs that were asked for it.
    assert [one[1].read.series_uid for one in (first, second)] == ["1.2.3", "4.5.6"]
    assert [sorted(one[1].read.allow_repairs) for one in (first, second)] == [["missing_slices"], []]
    assert all(one[1].operating_point == "balanced" for one in (first, second))


def test_without_a_prior_nothing_is_compared_or_kept(desk: Desk) -> None:
    job = desk.done(desk.post(NOW))
    assert job["prior"] is None
    assert desk.client.get(job["links"]["result"]).json()["comparison"] is None
    assert not desk.analysed[0][1].keep_trace
    # What was stored before there were priors is still the same work and the same request.
    assert "prior" not in as_json(ORDER)


def test_the_prior_is_part_of_the_work(desk: Desk) -> None:
    prior = desk.post(BEFORE)
    plain = desk.done(desk.post(NOW))
    compared = desk.done(desk.post(NOW, prior=prior["id"]))
    again = desk.post(NOW, prior=prior["id"])
    assert (plain["answered_from"], compared["answered_from"]) == (None, None)
    assert (again["state"], again["answered_from"]) == ("succeeded", compared["id"])


def test_a_prior_that_is_not_there(desk: Desk) -> None:
    prior = desk.post(BEFORE)
    assert desk.refusal(NOW, prior="0" * 32) == (422, "unknown_prior")
    assert desk.refusal(NOW, prior="../../etc") == (422, "invalid_option")
    desk.client.delete(prior["links"]["data"])
    assert desk.refusal(NOW, prior=prior["id"]) == (422, "prior_erased")
    assert desk.queue.tickets == []


def test_a_prior_that_is_erased_while_a_job_waits_for_it(desk: Desk) -> None:
    prior = desk.post(BEFORE)
    job = desk.post(NOW, prior=prior["id"])
    assert desk.client.delete(prior["links"]["data"]).json()["files_left"] == 0
    failed = desk.done(job)
    assert (failed["state"], failed["problem"]["code"]) == ("failed", "prior_erased")
    assert desk.analysed == []
    # Not for ever: without the prior, the same scan can still be analysed.
    retried = desk.client.post(failed["links"]["retry"], json={"prior": ""})
    assert desk.done(retried.json())["state"] == "succeeded"


def test_a_retry_keeps_its_prior_or_takes_another(desk: Desk) -> None:
    prior, other = desk.post(BEFORE), desk.post([("files", ("older", b"patient one day 30"))])
    job = desk.done(desk.post(NOW, prior=prior["id"]))
    assert desk.client.post(job["links"]["retry"]).json()["prior"] == prior["id"]
    assert desk.client.post(job["links"]["retry"], json={"prior": other["id"]}).json()["prior"] == other["id"]
    assert desk.client.post(job["links"]["retry"], json={"prior": "x"}).status_code == 422


@pytest.mark.parametrize(
    ("before", "code"), [(b"patient two day 0", "different_patient"), (b"patient one day 91", "prior_is_later")]
)
def test_a_prior_that_does_not_belong(desk: Desk, before: bytes, code: str) -> None:
    prior = desk.post([("files", ("before", before))])
    failed = desk.done(desk.post(NOW, prior=prior["id"]))
    assert (failed["state"], failed["problem"]["code"]) == ("failed", code)
    assert failed["problem"]["type"] == "/problems#prior_mismatch"
    assert desk.client.get(f"/v1/jobs/{failed['id']}/result").status_code == 422


def test_what_is_wrong_with_the_prior_is_said_of_the_prior(desk: Desk) -> None:
    prior = desk.post([("files", ("before", b"head"))])
    failed = desk.done(desk.post(NOW, prior=prior["id"]))
    assert (failed["problem"]["code"], failed["problem"]["values"]) == ("no_lungs", {"scan": "prior"})
    assert failed["problem"]["type"] == "/problems#unsupported_series"


def test_predict_says_that_it_takes_no_prior(desk: Desk) -> None:
    prior = desk.post(BEFORE)
    answer = desk.client.post("/v1/predict", files=NOW, data={"prior": prior["id"]})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_option")
    sent = [*NOW, ("prior_files", ("before", b"patient one day 0"))]
    assert desk.client.post("/v1/predict", files=sent).status_code in (400, 422)
