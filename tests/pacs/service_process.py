"""The service in a process that may be killed: stand-ins for the analysis and for the DICOM objects.

``python -m tests.pacs.service_process PORT``. The analysis waits in its first stage for as long as the file ``hold``
lies in the data folder.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import uvicorn
from pydicom.dataset import Dataset

from app.api.pacs_desk import ObjectMaker
from app.imaging.inputs import InputFile
from app.inference.findings import Findings, OnProgress, Progress
from app.inference.model_store import LoadedModel
from app.inference.pipeline import AnalysisOptions
from app.jobs.installation import Jobs
from app.logs import configure_logs
from app.main import create_app
from app.pacs.instances import read_instance
from app.pacs.returns import MakeObjects
from app.reporting.bundle import document_of
from app.settings import Settings
from tests.api.standins import make_findings, make_model, make_nodule, shelved
from tests.pacs.pacs_worlds import capture


def stub_analysis(
    files: Sequence[InputFile], model: LoadedModel, options: AnalysisOptions, on_progress: OnProgress
) -> Findings:
    """One nodule, in the study that was sent."""
    never, hold = threading.Event(), Path(os.environ["LUNGNODULE_DATA_DIR"]) / "hold"
    on_progress(Progress("read", 0.0))
    while hold.exists():
        never.wait(0.05)
        on_progress(Progress("read", 0.5))
    found = make_findings(make_nodule(1, 0.9), model=model.identity)
    instance = read_instance(files[0].path)
    assert found.identity is not None
    identity = replace(found.identity, study_instance_uid=instance.study_uid, series_instance_uid=instance.series_uid)
    return replace(found, identity=identity)


def captures_of(jobs: Jobs) -> MakeObjects:
    """Stands in for `app.reporting`: made from the stored result, the same UIDs every time."""

    def make(job_id: str, kinds: Sequence[str]) -> list[Dataset]:
        job = jobs.lookup.job(job_id)
        assert job.result is not None
        study_uid = json.loads(document_of(jobs.store.result(job_id, job.result)))["series"]["study_instance_uid"]
        return [capture(job_id, kind, study_uid) for kind in kinds]

    return make


def main(port: int, object_maker: ObjectMaker = captures_of) -> None:
    """Serve until killed."""
    configure_logs("info")
    app = create_app(
        Settings(),
        load=lambda _settings: shelved(make_model()),
        run=stub_analysis,
        object_maker=object_maker,
        work=True,
    )
    uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, access_log=False)).run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
