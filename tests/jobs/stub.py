"""A service or a worker whose analysis takes a fixed time and does what the scan says; `nursery` starts them.

The scan's bytes are a command: ``ok 17`` gives one nodule of 17 mm; ``hold lungs 17`` too, but the first time it stays
in that stage until it is ended; ``pause lungs 17`` stays there until the file ``go`` is in the data folder; ``kill
lungs`` kills the process in that stage; ``refuse x`` raises a ScanError, ``error x`` an unexpected one.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import uvicorn

from app.api import model_choice
from app.api.model_choice import NamedModels, open_models
from app.cli import worker
from app.cli.serve import draining_server
from app.imaging.errors import UnreadableScan
from app.imaging.inputs import InputFile
from app.inference import pipeline
from app.inference.findings import Findings, OnProgress, OperatingPoint, Progress
from app.inference.model_store import LoadedModel
from app.inference.pipeline import AnalysisOptions
from app.logs import configure_logs, tell_uncaught
from app.main import create_app
from app.settings import Settings
from tests.api.standins import make_findings, make_model, make_nodule, shelved

STAGES = ("read", "lungs", "prepare", "detect", "characterise", "measure")


def stub_models(settings: Settings) -> NamedModels:
    """Models that are no files, unless the test has a store."""
    if "model_store" in settings.model_fields_set:
        return open_models(settings)
    return shelved(make_model(), make_model("other", "2.0.0"))


def stub_analysis(
    files: Sequence[InputFile], model: LoadedModel, options: AnalysisOptions, on_progress: OnProgress
) -> Findings:
    command, argument, *size = files[0].path.read_text().split()[:3]
    never, stage_s = threading.Event(), float(os.environ.get("STUB_STAGE_S", "0.02"))
    for stage in STAGES:
        on_progress(Progress(stage, 0.0))
        if (command, argument) == ("kill", stage):
            os.kill(os.getpid(), signal.SIGKILL)
        if (command, argument) == ("hold", stage) and _is_first(f"held-{stage}-{size[0]}"):
            while True:
                never.wait(0.05)
                on_progress(Progress(stage, 0.5))
        while (command, argument) == ("pause", stage) and not (_data_dir() / "go").exists():
            never.wait(0.02)
            on_progress(Progress(stage, 0.5))
        # In slices, as a network that is asked tile by tile.
        for part in range(1, 5):
            if os.environ.get("STUB_COMPUTES") == "1":
                compute(stage_s / 4)
            else:
                never.wait(stage_s / 4)
            on_progress(Progress(stage, part / 4))
    if command == "refuse":
        raise UnreadableScan("Rows is 0.", code="rows_invalid", values={"rows": 0})
    if command == "error":
        raise RuntimeError("Doe^John")
    size_mm = float(size[0] if command in ("hold", "pause") else argument if command == "ok" else 1)
    return make_findings(
        replace(make_nodule(1, 0.9), long_axis_mm=size_mm),
        model=model.identity,
        operating_point=OperatingPoint(options.operating_point or "", 0.4),
        timings_s=dict.fromkeys(STAGES, stage_s),
    )


def _data_dir() -> Path:
    return Path(os.environ["LUNGNODULE_DATA_DIR"])


def compute(seconds: float) -> None:
    """Keep every core busy outside Python, as inference does."""
    until, cores = time.monotonic() + seconds, os.cpu_count() or 1

    def multiply(_: int) -> None:
        square = np.ones((256, 256), np.float32)
        while time.monotonic() < until:
            square @ square

    with ThreadPoolExecutor(cores) as threads:
        list(threads.map(multiply, range(cores)))


def _is_first(name: str) -> bool:
    try:
        (_data_dir() / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def serve(port: int) -> None:
    configure_logs("info")
    tell_uncaught()
    settings = Settings()
    draining = threading.Event()
    app = create_app(settings, load=stub_models, run=stub_analysis, work=True, draining=draining)
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, access_log=False, http="h11")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    draining_server(config, draining, settings.drain_notice_s).run()


def main(arguments: list[str]) -> None:
    if arguments[0] == "serve":
        serve(int(arguments[1]))
        return
    # The real command, with the stub where the networks would be.
    changes: dict[Any, Any] = {model_choice: ("open_models", stub_models), pipeline: ("analyse", stub_analysis)}
    for module, (name, stub) in changes.items():
        mock.patch.object(module, name, stub).start()
    worker.worker(None)
