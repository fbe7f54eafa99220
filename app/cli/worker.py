"""`lungnodule worker`: works on jobs, without HTTP but for its probes."""

from __future__ import annotations

import signal
import tempfile
import threading
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.allocator import share_arenas
from app.cli.exits import ExitCode, errors_in_one_line, fail
from app.cli.setup import one_process_per_port, settings_with

if TYPE_CHECKING:
    from app.settings import Settings


def worker(
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=64, help="Jobs at once; all workers of one database should say the same.")
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Answer /healthz, /readyz and /metrics on this port of LUNGNODULE_HOST."),
    ] = None,
) -> None:
    """Work on jobs that a service takes in.

    It needs the service's data folder (LUNGNODULE_DATA_DIR) or object store (LUNGNODULE_STORE_URL), and its database
    (LUNGNODULE_DATABASE_URL; without one, SQLite in that folder, for workers on the same machine). On SIGTERM it takes
    no more jobs, gives running ones LUNGNODULE_DRAIN_TIMEOUT_S and hands back what is not done then.

    For example:

    - `lungnodule worker`

    - `LUNGNODULE_DATABASE_URL=postgresql://jobs@db/lungnodule lungnodule worker --concurrency 2`

    - `lungnodule worker --metrics-port 9100`
    """
    with errors_in_one_line():
        one_process_per_port()
        share_arenas()
        stop = threading.Event()
        # Before the models are loaded, which takes a while.
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        signal.signal(signal.SIGINT, lambda *_: stop.set())
        _work_until(stop, settings_with(worker_concurrency=concurrency, worker_port=metrics_port))


def _work_until(stop: threading.Event, settings: Settings) -> None:
    from app.api.job_work import after_jobs, attempt_tracing, order_analysis, priors_of, rendered, standing_back
    from app.api.model_choice import Models, open_models
    from app.api.shadowing import shadow_beside
    from app.api.worker_probes import Workplace, probes
    from app.inference.pipeline import analyse
    from app.jobs.census_metrics import census_shown
    from app.jobs.installation import open_activations, open_jobs, work
    from app.logs import configure_logs, tell_uncaught
    from app.metrics import Metrics
    from app.tracing import open_tracing
    from app.upload_folders import process_folder

    if settings.worker_concurrency == 0:
        fail(ExitCode.USAGE, "setting_invalid", "A worker with LUNGNODULE_WORKER_CONCURRENCY=0 would do nothing.")
    configure_logs(settings.log_level)
    tell_uncaught()
    tracing, metrics = open_tracing(settings.otlp_endpoint), Metrics()
    found = open_models(settings)
    with open_activations(settings) as activations:
        Models(found.registry, found.named, activations).load_first()
    with ExitStack() as stack:
        stack.callback(tracing.close)
        scratch = stack.enter_context(process_folder(settings.temp_dir or Path(tempfile.gettempdir())))
        jobs = stack.enter_context(open_jobs(settings))
        census = stack.enter_context(census_shown(metrics.registry, jobs.database, settings.worker_lease_s))
        models, data_dir = Models(found.registry, found.named, jobs.activations), settings.data_dir.absolute()
        metrics.watch_disk("uploads", scratch)
        metrics.watch_disk("store", data_dir)
        place = Workplace(settings, metrics, stop, models, census, (scratch, data_dir))
        stack.enter_context(probes(place))
        shadow = stack.enter_context(
            shadow_beside(settings, found.registry, analyse, metrics, turn=nullcontext, busy=lambda: False)
        )
        place.worker = stack.enter_context(
            work(
                jobs,
                order_analysis(settings, found.registry, scratch, tracing.traced(analyse), priors_of(jobs)),
                rendered,
                turn=nullcontext,
                observe=metrics.observe_analysis,
                trace=standing_back(shadow, attempt_tracing(tracing, jobs)),
                after=after_jobs(shadow, settings, jobs, scratch),
            )
        )
        stop.wait()
