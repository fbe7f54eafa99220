"""`lungnodule worker`: works on jobs, without HTTP."""

from __future__ import annotations

import signal
import tempfile
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from app.cli.exits import ExitCode, errors_in_one_line, fail
from app.cli.setup import settings_with


def worker(
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=64, help="Jobs at once; all workers of one database should say the same.")
    ] = None,
) -> None:
    """Work on jobs that a service takes in.

    It needs the service's data folder (LUNGNODULE_DATA_DIR) and database (LUNGNODULE_DATABASE_URL; without one, SQLite
    in that folder, for workers on the same machine). On SIGTERM it takes no more jobs, gives running ones
    LUNGNODULE_DRAIN_TIMEOUT_S and hands back what is not done then.

    For example:

    - `lungnodule worker`

    - `LUNGNODULE_DATABASE_URL=postgresql://jobs@db/lungnodule lungnodule worker --concurrency 2`
    """
    with errors_in_one_line():
        stop = threading.Event()
        # Before the models are loaded, which takes a while.
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        signal.signal(signal.SIGINT, lambda *_: stop.set())
        _work_until(stop, concurrency)


def _work_until(stop: threading.Event, concurrency: int | None) -> None:
    from app.api.job_work import order_analysis, priors_of, rendered
    from app.api.service import load_models
    from app.inference.pipeline import analyse
    from app.jobs.installation import open_jobs, work
    from app.logs import configure_logs
    from app.upload_folders import process_folder

    settings = settings_with(worker_concurrency=concurrency)
    if settings.worker_concurrency == 0:
        fail(ExitCode.USAGE, "setting_invalid", "A worker with LUNGNODULE_WORKER_CONCURRENCY=0 would do nothing.")
    configure_logs(settings.log_level)
    models = load_models(settings)
    with (
        process_folder(settings.temp_dir or Path(tempfile.gettempdir())) as scratch,
        open_jobs(settings) as jobs,
        work(
            jobs,
            order_analysis(settings, models, scratch, analyse, priors_of(jobs)),
            rendered,
            turn=nullcontext,
            observe=lambda _findings, _waited_s: None,
        ),
    ):
        stop.wait()
