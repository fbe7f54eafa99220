"""Every example in docs/workspace-api.md is run, against a service with an answered job."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import uvicorn

from app.api.job_work import order_analysis, priors_of, rendered
from app.imaging.inputs import InputFile
from app.inference.model_store import load_model
from app.inference.network import SessionOptions
from app.inference.pipeline import FAINT_PROBABILITY, MOST_FAINT, analyse
from app.jobs.intake import Request
from app.jobs.records import Order
from app.jobs.runner import Runner
from app.main import create_app
from app.settings import Settings
from tests.api.analysed import reading_scan
from tests.api.standins import shelved
from tests.jobs.installations import WHO, HandQueue

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs/workspace-api.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"<!-- run: (?P<how>\w+)[^\n]*-->\n```\w+\n(?P<text>.*?)```", re.DOTALL)
RUN = {"shell": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
EXPECTED = {"shell": ("'left': 'R'", "x-slab-shape: 4,140,140"), "python": ("revision 1", "bytes of application/dicom")}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, tiny_model_store: Path) -> Iterator[tuple[str, str]]:
    """Base URL, and a job with an answer."""
    folder = tmp_path_factory.mktemp("service")
    model = load_model(tiny_model_store / "tiny" / "1.0.0", SessionOptions(device="cpu", threads=1))
    settings = Settings(data_dir=folder / "data", temp_dir=folder, min_free_disk_bytes=0, threads=1)
    queue = HandQueue()
    app = create_app(settings, load=lambda _: shelved(model), make_queue=lambda _: queue)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    jobs = app.state.desk.jobs
    received = jobs.store.incoming / "upload"
    received.mkdir()
    (received / "000000").write_bytes(reading_scan())
    order = Order(model="tiny:1.0.0", model_sha256=model.identity.sha256, operating_point="balanced")
    job = jobs.intake.accept(received, [InputFile(received / "000000", "scan.zip")], Request(order, WHO, None))
    runner = Runner(
        ledger=jobs.ledger, intake=jobs.intake, store=jobs.store, worker_id="w", turn=nullcontext, timeout_s=60.0,
        analyse=order_analysis(settings, app.state.service.models.registry, folder, analyse, priors_of(jobs)),
        render=rendered, observe=lambda *_: None,
    )  # fmt: skip
    runner(queue.tickets.pop())
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", job
    server.should_exit = True
    thread.join()


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
