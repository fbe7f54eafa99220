"""A service with real networks, real DICOM scans and jobs that are worked on by hand: what a reader's page talks to."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.testclient import TestClient

from app.api.job_work import order_analysis, priors_of, rendered
from app.api.problems import MEDIA_TYPE
from app.imaging.volume import CtVolume
from app.inference.model_store import load_model
from app.inference.network import SessionOptions
from app.inference.pipeline import analyse
from app.jobs.installation import Jobs
from app.jobs.runner import Runner
from app.main import create_app
from app.phantom.chest import PhantomCt, phantom_ct
from app.phantom.dicom_series import write_dicom_series
from app.phantom.nodules import NoduleSpec
from app.settings import Settings
from tests.api.standins import shelved
from tests.jobs.installations import HandQueue


@dataclass
class World:
    client: TestClient
    jobs: Jobs
    runner: Runner
    queue: HandQueue
    uploads: Path

    @property
    def state(self) -> Any:
        return self.client.app.state  # type: ignore[attr-defined]

    def job(self, scan: bytes, name: str = "scan.zip", **fields: str) -> str:
        answer = self.client.post("/v1/jobs", files=[("files", (name, scan))], data=fields)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def work(self) -> None:
        while self.queue.tickets:
            self.runner(self.queue.tickets.pop(0))

    def get(self, job: str, rest: str, **params: Any) -> Any:
        return self.client.get(f"/v1/jobs/{job}/{rest}", params=params)

    def opened_files(self) -> list[Path]:
        return sorted(self.state.service.uploads.glob("opened-*"))


@contextmanager
def analysed_world(folder: Path, tiny_model_store: Path, **changes: Any) -> Iterator[World]:
    model = load_model(tiny_model_store / "tiny" / "1.0.0", SessionOptions(device="cpu", threads=1))
    uploads = folder / "uploads"
    uploads.mkdir(parents=True)
    settings = Settings(
        **{"data_dir": folder / "data", "temp_dir": uploads, "min_free_disk_bytes": 0, "threads": 1, **changes}
    )
    queue = HandQueue()
    app = create_app(settings, load=lambda _: shelved(model), make_queue=lambda _: queue)
    with TestClient(app) as client:
        yield World(client, app.state.desk.jobs, hand_runner(app, folder), queue, uploads)


def hand_runner(app: FastAPI, scratch: Path) -> Runner:
    """The worker of an application that has started: works on the ticket that it is handed, with the real analysis."""
    service, jobs = app.state.service, app.state.desk.jobs
    return Runner(
        ledger=jobs.ledger, intake=jobs.intake, store=jobs.store, worker_id="w", turn=nullcontext, timeout_s=300.0,
        analyse=order_analysis(service.settings, service.models.registry, scratch, analyse, priors_of(jobs)),
        render=rendered, observe=lambda *_: None,
    )  # fmt: skip


def reading_phantom(seed: int = 3, diameters_mm: tuple[float, ...] = (9.0, 12.0, 15.0), **changes: Any) -> PhantomCt:
    """Nodules that the tiny model finds."""
    grid: dict[str, Any] = {"shape_zyx": (80, 140, 140), "spacing_zyx_mm": (3.75, 2.5, 2.5), **changes}
    return phantom_ct(nodules=[NoduleSpec(diameter_mm=mm) for mm in diameters_mm], seed=seed, **grid)


def zipped_series(volume: CtVolume, folder: Path, **written: Any) -> bytes:
    """A volume as a zip of DICOM slices."""
    paths = write_dicom_series(volume, folder, **written)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in paths:
            archive.write(path, path.name)
    return packed.getvalue()


@cache
def reading_scan() -> bytes:
    """The phantom of `reading_phantom` as it is sent; made once for each process."""
    with tempfile.TemporaryDirectory() as folder:
        return zipped_series(reading_phantom().volume, Path(folder))


def refused(answer: Any) -> tuple[int, str]:
    assert answer.headers["content-type"] == MEDIA_TYPE
    return answer.status_code, answer.json()["code"]
