"""Explanations over HTTP: a real scan, real networks and a job that is worked on by hand."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import sqlalchemy as sa
from PIL import Image
from starlette.testclient import TestClient

from app.api.explanation_schemas import NoduleExplanation
from app.api.problems import MEDIA_TYPE
from app.inference.model_store import load_model
from app.inference.network import SessionOptions
from app.jobs.installation import Jobs
from app.jobs.runner import Runner
from app.jobs.tables import audit
from app.main import create_app
from app.phantom.chest import phantom_ct
from app.phantom.nodules import NoduleSpec
from app.settings import Settings
from tests.api.analysed import hand_runner
from tests.api.standins import shelved
from tests.jobs.installations import HandQueue


@dataclass
class World:
    client: TestClient
    jobs: Jobs
    runner: Runner
    queue: HandQueue
    scan: bytes

    def job(self) -> str:
        answer = self.client.post("/v1/jobs", files=[("files", ("scan.mha", self.scan))])
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def work(self) -> None:
        while self.queue.tickets:
            self.runner(self.queue.tickets.pop(0))

    def get(self, job: str, rest: str) -> Any:
        return self.client.get(f"/v1/jobs/{job}/{rest}")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_model_store: Path) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("explanations")
    nodules = [NoduleSpec(diameter_mm=diameter) for diameter in (9.0, 12.0, 15.0)]
    phantom = phantom_ct(shape_zyx=(80, 140, 140), spacing_zyx_mm=(3.75, 2.5, 2.5), nodules=nodules, seed=3)
    model = load_model(tiny_model_store / "tiny" / "1.0.0", SessionOptions(device="cpu", threads=1))
    settings = Settings(data_dir=folder / "data", min_free_disk_bytes=0, threads=1)
    queue = HandQueue()
    app = create_app(settings, load=lambda _: shelved(model), make_queue=lambda _: queue)
    with TestClient(app) as client:
        jobs, runner = app.state.desk.jobs, hand_runner(app, folder)
        yield World(client, jobs, runner, queue, metaimage(phantom.volume, folder / "scan.mha"))


def metaimage(volume: Any, path: Path) -> bytes:
    image = SimpleITK.GetImageFromArray(volume.hu)
    image.SetSpacing([float(v) for v in volume.grid.spacing_zyx_mm[::-1]])
    image.SetOrigin([float(v) for v in volume.grid.origin_lps_mm])
    SimpleITK.WriteImage(image, str(path))
    return path.read_bytes()


@pytest.fixture(scope="module")
def done(world: World) -> str:
    job = world.job()
    world.work()
    return job


def refused(answer: Any) -> tuple[int, str]:
    assert answer.headers["content-type"] == MEDIA_TYPE
    return answer.status_code, answer.json()["code"]


def test_a_nodule_is_explained_from_the_stored_scan(world: World, done: str) -> None:
    nodule = world.get(done, "result").json()["nodules"][0]
    answer = world.get(done, f"nodules/{nodule['id']}/explanation")
    assert answer.status_code == 200, answer.text
    explanation = NoduleExplanation.model_validate(answer.json())
    assert explanation.disclaimer == "Research use only. Not for diagnosis."
    assert (explanation.job_id, explanation.nodule_id) == (done, nodule["id"])
    assert explanation.attributes == nodule["attributes"]
    assert explanation.grid.center_lps_mm == tuple(nodule["center_lps_mm"])
    assert explanation.nodule_probability > 0.5
    # The tiny model looks at the brightness of the middle, 5 x 5 pixels of the middle slice of three.
    importance = np.array(explanation.nodule_importance)
    assert len(importance) == len(explanation.grid.slice_offsets_mm) == 3
    rows, columns = np.nonzero(importance.sum(axis=0) > importance.sum(axis=0).max() / 2)
    places = explanation.grid.first_cell_mm[0] + np.array([rows, columns]) * explanation.grid.cell_mm
    assert np.abs(places).max() < 5.0


def test_the_picture_is_where_the_explanation_says(world: World, done: str) -> None:
    explanation = world.get(done, "nodules/nodule-1/explanation").json()
    answer = world.client.get(explanation["picture"])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert Image.open(io.BytesIO(answer.content)).size[0] == 512


def test_nothing_is_left_behind_and_it_is_noted(world: World, done: str) -> None:
    world.get(done, "nodules/nodule-1/explanation")
    uploads = world.client.app.state.service.uploads  # type: ignore[attr-defined]
    assert list(uploads.iterdir()) == []
    with world.jobs.database.reading() as connection:
        actions = connection.execute(sa.select(audit.c.action).where(audit.c.job_id == done)).scalars().all()
    assert "job.explanation" in actions


@pytest.mark.parametrize("form", ["explanation", "explanation.png"])
def test_a_nodule_that_is_not_there(world: World, done: str, form: str) -> None:
    assert refused(world.get(done, f"nodules/nodule-99/{form}")) == (404, "unknown_nodule")


def test_a_job_that_is_not_there_not_done_or_erased(world: World) -> None:
    assert refused(world.get("none", "nodules/nodule-1/explanation")) == (404, "unknown_job")
    other = World(world.client, world.jobs, world.runner, world.queue, world.scan[:-2] + b"\0\0")
    job = other.job()
    assert refused(world.get(job, "nodules/nodule-1/explanation")) == (409, "job_not_finished")
    world.queue.tickets.clear()
    world.client.delete(f"/v1/jobs/{job}")
    assert refused(world.get(job, "nodules/nodule-1/explanation")) == (409, "job_cancelled")
    world.client.delete(f"/v1/jobs/{job}/data")
    assert world.get(job, "nodules/nodule-1/explanation").status_code == 410


def test_it_waits_for_the_device(world: World, done: str) -> None:
    line = world.client.app.state.service.line  # type: ignore[attr-defined]
    line.admitted += line.capacity
    try:
        assert refused(world.get(done, "nodules/nodule-1/explanation")) == (429, "line_full")
    finally:
        line.admitted -= line.capacity
