"""Shadow mode: what it counts, when it stands back, and that no answer knows of it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from app.api.job_work import after_jobs, standing_back
from app.imaging.errors import ModelError
from app.inference.agreement import agreement
from app.inference.findings import Progress
from app.inference.pipeline import AnalysisOptions
from app.jobs.shadow import Again, Shadow, ShadowMetrics, running_shadow
from app.main import create_app
from app.phantom.chest import phantom_ct
from app.phantom.files import write_metaimage
from app.phantom.nodules import NoduleSpec
from app.settings import Settings
from tests.api.standins import left_in, make_findings, make_nodule
from tests.jobs.installations import HandQueue, world
from tests.tiny_model import write_tiny_model

READ = Progress("read", 0.0)


def at(number: int, x: float, probability: float, diameter_mm: float = 8.0) -> Any:
    return replace(make_nodule(number, probability), center_lps_mm=(x, 0.0, 0.0), diameter_mm=diameter_mm)


def test_nodules_are_matched_by_place_the_nearest_first() -> None:
    ours = make_findings(at(1, 0, 0.9), at(2, 5, 0.5), at(3, 100, 0.7))
    theirs = make_findings(at(1, 3, 0.6), at(2, 60, 0.8))
    found = agreement(ours, theirs)  # 3 mm lies nearer to 5 than to 0, and within the radius of both
    assert (found.both, found.first_only, found.second_only) == (1, 2, 1)
    assert found.probability_differences == pytest.approx([0.1])
    other = agreement(theirs, ours)
    assert (other.both, other.first_only, other.second_only) == (1, 1, 2)


def test_nothing_agrees_with_nothing() -> None:
    found = agreement(make_findings(), make_findings())
    assert (found.both, found.first_only, found.second_only, found.probability_differences) == (0, 0, 0, ())


class Bench:
    """A shadow whose analysis, line and figures a test holds in its hand."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.busy = False
        self.discarded: list[str] = []
        self.analyse: Any = lambda _files, _options, _told: make_findings(at(1, 0, 0.6))

    def outcomes(self) -> dict[str, float]:
        return {
            sample.labels["outcome"]: sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == "lungnodule_shadow_analyses_total"
        }

    @contextmanager
    def shadow(self) -> Iterator[Shadow]:
        with running_shadow(
            Shadow(
                "other:2.0.0",
                lambda *asked: self.analyse(*asked),  # noqa: PLW0108 - a test may change it
                nullcontext,
                lambda: self.busy,
                ShadowMetrics(self.registry),
            )
        ) as shadow:
            yield shadow

    def again(self, name: str = "scan") -> Again:
        answer = make_findings(at(1, 0, 0.9), at(2, 50, 0.5))
        return Again(lambda: nullcontext([]), AnalysisOptions(), answer, lambda: self.discarded.append(name))


def test_differences_are_counted() -> None:
    bench = Bench()
    with bench.shadow() as shadow:
        shadow.offer(bench.again())
        shadow.settle()
    value = bench.registry.get_sample_value
    models = {"active": "standin:1.2.3", "shadow": "other:2.0.0"}
    counted = {who: value("lungnodule_shadow_nodules_total", {**models, "reported_by": who}) for who in
               ("both", "active", "shadow")}  # fmt: skip
    assert counted == {"both": 1, "active": 1, "shadow": 0}
    assert value("lungnodule_shadow_probability_difference_sum", models) == pytest.approx(0.3)
    assert value("lungnodule_shadow_seconds_count", {"shadow": "other:2.0.0"}) == 1
    assert (bench.outcomes(), bench.discarded) == ({"compared": 1}, ["scan"])


@pytest.mark.parametrize("error", [ModelError("The network is damaged."), MemoryError(), RuntimeError("Doe^John")])
def test_a_failure_is_counted_and_the_next_scan_is_taken(error: Exception) -> None:
    bench = Bench()
    good = bench.analyse

    def failing(*_asked: Any) -> Any:
        raise error

    with bench.shadow() as shadow:
        bench.analyse = failing
        shadow.offer(bench.again("first"))
        shadow.settle()
        bench.analyse = good
        shadow.offer(bench.again("second"))
        shadow.settle()
    assert bench.outcomes() == {"failed": 1, "compared": 1}
    assert bench.discarded == ["first", "second"]


def test_it_stands_back_at_its_next_step_when_a_job_begins() -> None:
    bench, began, job_began = Bench(), threading.Event(), threading.Event()

    def long(_files: Any, _options: Any, told: Any) -> Any:
        told(READ)
        began.set()
        assert job_began.wait(30)
        told(READ)
        raise AssertionError("it went on beside the job")

    bench.analyse = long
    with bench.shadow() as shadow:
        shadow.offer(bench.again())
        assert began.wait(30)
        with shadow.standing_back():
            job_began.set()
            shadow.settle()
    assert bench.outcomes() == {"stood_back": 1}


def test_more_than_one_in_hand_and_one_that_waits_is_left_out() -> None:
    bench, began, go = Bench(), threading.Event(), threading.Event()

    def held(_files: Any, _options: Any, _told: Any) -> Any:
        began.set()
        assert go.wait(30)
        return make_findings()

    bench.analyse = held
    with bench.shadow() as shadow:
        shadow.offer(bench.again("in hand"))
        assert began.wait(30)
        shadow.offer(bench.again("waits"))
        shadow.offer(bench.again("left out"))
        assert bench.discarded == ["left out"]
        go.set()
        shadow.settle()
    assert bench.outcomes() == {"skipped": 1, "compared": 2}


def test_while_the_line_is_busy_it_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.jobs.shadow.PATIENCE_S", 0.1)
    bench = Bench()
    bench.busy = True
    with bench.shadow() as shadow:
        shadow.offer(bench.again())
        shadow.settle()
    assert (bench.outcomes(), bench.discarded) == ({"skipped": 1}, ["scan"])


def test_a_job_offers_its_scan_once_its_answer_is_stored(tmp_path: Path) -> None:
    with world(tmp_path) as place:
        told = []

        def after(job: Any, findings: Any) -> None:
            told.append((place.job(job.id).state.value, len(findings.nodules), place.job(job.id).result is not None))

        place.runner = replace(place.runner, after=after)
        place.submit(b"scan 1")
        place.work()
        assert told == [("succeeded", 1, True)]


def test_jobs_that_wait_come_first_and_the_last_is_analysed_again_from_the_store(tmp_path: Path) -> None:
    bench, seen = Bench(), []

    def analyse(files: Any, options: Any, _told: Any) -> Any:
        seen.append((files[0].path.read_bytes(), options.operating_point))
        return make_findings()

    bench.analyse = analyse
    with world(tmp_path) as place, bench.shadow() as shadow:
        place.runner = replace(
            place.runner,
            after=after_jobs(shadow, place.jobs.settings, place.jobs, tmp_path),
            trace=standing_back(shadow, lambda _claim: nullcontext()),
        )
        jobs = [place.submit(b"scan 1"), place.submit(b"scan 2")]
        place.work()
        shadow.settle()
        assert [place.job(job_id).state.value for job_id in jobs] == ["succeeded", "succeeded"]
    assert seen == [(b"scan 2", None)]
    assert bench.outcomes() == {"skipped": 1, "compared": 1}


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scan")
    nodules = (NoduleSpec(18.0), NoduleSpec(12.0))
    ct = phantom_ct(shape_zyx=(48, 128, 128), spacing_zyx_mm=(3.0, 2.5, 2.5), nodules=nodules, seed=3)
    write_metaimage(ct.volume, folder / "scan.mhd")
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny`, and `blind`, which gives one candidate a scan."""
    store = tmp_path_factory.mktemp("store")
    write_tiny_model(store)
    write_tiny_model(store, name="blind", changes={"detector.max_candidates": 1})
    return store


def predicted(scan: Path, store: Path, folder: Path, shadow: str | None) -> tuple[dict[str, Any], str]:
    """The answer to the scan, and /metrics once the shadow has ended."""
    uploads = folder / "uploads"
    uploads.mkdir(parents=True)
    settings = Settings(
        model_store=store, models=("tiny",), data_dir=folder / "data", temp_dir=uploads, device="cpu", threads=1,
        min_free_disk_bytes=0, shadow_model=shadow,
    )  # fmt: skip
    app = create_app(settings, make_queue=lambda _database: HandQueue())
    with TestClient(app) as client:
        parts = [("files", (name, (scan / name).read_bytes())) for name in ("scan.mhd", "scan.raw")]
        answer = client.post("/v1/predict", files=parts)
        assert answer.status_code == 200, answer.text
        if shadow:
            app.state.service.shadow.settle()
            assert left_in(uploads) == []
        metrics = client.get("/metrics").text
    return answer.json(), metrics


def test_an_answer_is_the_same_with_a_shadow_and_only_metrics_know_of_it(
    scan: Path, store: Path, tmp_path: Path
) -> None:
    without, silent = predicted(scan, store, tmp_path / "without", None)
    beside, metrics = predicted(scan, store, tmp_path / "with", "blind:1.0.0")
    for answer in (without, beside):
        answer.pop("timings_s")
    assert json.dumps(beside) == json.dumps(without)
    assert "blind" not in json.dumps(beside)
    assert "lungnodule_shadow" not in silent
    said = dict(re.findall(r"lungnodule_shadow_nodules_total\{.*reported_by=\"(\w+)\".*\} (\d+\.\d)", metrics))
    count = len(without["nodules"])
    assert count >= 2
    assert said == {"both": "1.0", "active": f"{count - 1}.0", "shadow": "0.0"}
    assert 'lungnodule_shadow_analyses_total{outcome="compared",shadow="blind:1.0.0"} 1.0' in metrics
    assert 'lungnodule_analyses_total{model="tiny:1.0.0"} 1.0' in metrics


def test_a_shadow_that_the_store_does_not_hold_ends_the_start(store: Path, tmp_path: Path) -> None:
    settings = Settings(model_store=store, models=("tiny",), data_dir=tmp_path, device="cpu", shadow_model="absent")
    with (
        pytest.raises(ModelError, match="absent"),
        TestClient(create_app(settings, make_queue=lambda _database: HandQueue())),
    ):
        pass
