"""Every example in docs/workspace-api.md is run, against a service with an answered job."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from app.imaging.inputs import InputFile
from app.inference.model_store import LoadedModel, load_model
from app.inference.network import SessionOptions
from app.inference.pipeline import FAINT_PROBABILITY, MOST_FAINT
from app.jobs.intake import Request
from app.jobs.records import Order
from app.main import create_app
from app.settings import Settings
from tests.api.analysed import hand_runner, reading_scan
from tests.api.standins import shelved
from tests.jobs.installations import WHO, HandQueue
from tests.served import served

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs/workspace-api.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"<!-- run: (?P<how>\w+)[^\n]*-->\n```\w+\n(?P<text>.*?)```", re.DOTALL)
RUN = {"shell": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
EXPECTED = {"shell": ("'left': 'R'", "x-slab-shape: 4,140,140"), "python": ("revision 1", "bytes of application/dicom")}


def answered_job(app: FastAPI, queue: HandQueue, model: LoadedModel, folder: Path) -> str:
    jobs = app.state.desk.jobs
    received = jobs.store.incoming / "upload"
    received.mkdir()
    (received / "000000").write_bytes(reading_scan())
    order = Order(model="tiny:1.0.0", model_sha256=model.identity.sha256, operating_point="balanced")
    job: str = jobs.intake.accept(received, [InputFile(received / "000000", "scan.zip")], Request(order, WHO, None))
    hand_runner(app, folder)(queue.tickets.pop())
    return job


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, tiny_model_store: Path) -> Iterator[tuple[str, str]]:
    """Base URL, and a job with an answer."""
    folder = tmp_path_factory.mktemp("service")
    model = load_model(tiny_model_store / "tiny" / "1.0.0", SessionOptions(device="cpu", threads=1))
    settings = Settings(data_dir=folder / "data", temp_dir=folder, min_free_disk_bytes=0, threads=1)
    queue = HandQueue()
    app = create_app(settings, load=lambda _: shelved(model), make_queue=lambda _: queue)
    with served(app) as port:
        yield f"http://127.0.0.1:{port}", answered_job(app, queue, model, folder)


@pytest.mark.parametrize("how", RUN)
def test_the_examples_do_what_they_say(how: str, service: tuple[str, str], tmp_path: Path) -> None:
    (text,) = [match["text"] for match in BLOCK.finditer(GUIDE) if match["how"] == how]
    url, job = service
    done = subprocess.run(
        [*RUN[how], text.replace("http://127.0.0.1:8000", url)], cwd=tmp_path, capture_output=True, text=True,
        timeout=120, check=False, env={**os.environ, "JOB": job},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for words in EXPECTED[how]:
        assert words in done.stdout


def test_the_figures_of_the_guide_are_those_of_the_code() -> None:
    assert f"up to {MOST_FAINT} places" in GUIDE.replace("\n", " ")
    assert f"down to a probability of {FAINT_PROBABILITY:g}" in GUIDE.replace("\n", " ")
