"""The application: wiring only."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import cache, partial
from pathlib import Path

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.api.docs import add_docs, add_front_pages
from app.api.edge import Edge
from app.api.job_desk import open_desk
from app.api.job_work import worker_beside
from app.api.model_choice import Models, OpenModels, open_models
from app.api.openapi import describe
from app.api.opened_scans import opened_scans
from app.api.pacs_desk import ObjectMaker, opened_pacs, pacs_beside, stored_objects
from app.api.problems import problem_response
from app.api.routes import (
    batches,
    capabilities,
    dashboard,
    dicom_web,
    explanations,
    health,
    job_documents,
    job_events,
    job_nodules,
    job_pacs,
    job_prior,
    job_results,
    job_review,
    job_scene,
    job_volume,
    jobs,
    model_documents,
    models,
    predict,
    risk,
)
from app.api.service import Analyse, Service
from app.api.waiting_line import ClientHungUp, WaitingLine
from app.imaging.errors import LungNoduleError, ModelError
from app.inference.pipeline import analyse
from app.jobs.census_metrics import census_shown
from app.jobs.installation import MakeQueue, dbos_queue, open_jobs
from app.metrics import Metrics
from app.settings import Settings
from app.tracing import open_tracing
from app.upload_folders import process_folder
from app.web.pages import add_workspace


def create_app(
    settings: Settings,
    *,
    load: OpenModels = open_models,
    run: Analyse = analyse,
    make_queue: MakeQueue = dbos_queue,
    object_maker: ObjectMaker = stored_objects,
    work: bool = False,
    draining: threading.Event | None = None,
) -> FastAPI:
    """Make the application.

    Parameters
    ----------
    settings
        All that may differ between installations.
    load
        Gives the models there are at start-up, and which of them the settings name.
    run
        The analysis itself.
    make_queue
        Opens the engine of the jobs.
    object_maker
        Makes DICOM objects of a job's results, for a PACS.
    work
        Whether a worker and the connection to a PACS run in this process, beside the service, when the settings want
        them. There can be one worker.
    draining
        Set by the caller when the process is to end: no new work is taken and the worker stops.

    Returns
    -------
    FastAPI
        Starts only when every model is verified and warmed up: a `ModelError` ends the start.
    """
    metrics = Metrics()
    tracing = open_tracing(settings.otlp_endpoint)
    ending = draining or threading.Event()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with _refusal_logged():
            found = load(settings)
        line = WaitingLine(settings.max_waiting, devices=max(1, settings.worker_concurrency))
        metrics.in_flight.set_function(lambda: line.admitted)
        metrics.waiting.set_function(lambda: line.waiting)
        with ExitStack() as stack:
            stack.callback(tracing.close)
            uploads = stack.enter_context(process_folder(settings.temp_dir or Path(tempfile.gettempdir())))
            installation = stack.enter_context(open_jobs(settings, make_queue))
            models = Models(found.registry, found.named, installation.activations)
            with _refusal_logged():
                models.load_first()
            stack.enter_context(census_shown(metrics.registry, installation.database, settings.worker_lease_s))
            metrics.watch_disk("uploads", uploads)
            metrics.watch_disk("store", settings.data_dir.absolute())
            app.state.service = Service(
                settings, models, line, metrics, uploads, tracing.traced(run), ending, tracing=tracing
            )
            app.state.desk = stack.enter_context(open_desk(installation, ending))
            app.state.pacs = stack.enter_context(opened_pacs(installation, models, object_maker))
            wanted = work and settings.worker_concurrency > 0
            async with (
                worker_beside(app.state.service, installation, wanted=wanted),
                pacs_beside(app.state.pacs, metrics, wanted=work),
                opened_scans(app.state.desk, uploads) as app.state.scans,
            ):
                yield

    app = FastAPI(
        lifespan=lifespan,
        openapi_url="/openapi.json" if settings.docs else None,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.openapi = cache(partial(describe, app, settings.root_path))  # type: ignore[method-assign]
    app.add_middleware(Edge, metrics=metrics, tracing=tracing)
    for error in (LungNoduleError, HTTPException, RequestValidationError, ClientDisconnect, ClientHungUp):
        app.add_exception_handler(error, problem_response)
    for resource in (
        predict, risk, jobs, batches, job_results, job_documents, job_events, explanations, job_pacs, dicom_web, models,
        job_volume, job_nodules, job_scene, job_review, job_prior, dashboard, model_documents,
        capabilities, health,
    ):  # fmt: skip
        app.include_router(resource.router)
    add_front_pages(app, docs=settings.docs)
    add_workspace(app)
    if settings.docs:
        add_docs(app)
    return app


@contextmanager
def _refusal_logged() -> Iterator[None]:
    try:
        yield
    except ModelError as error:
        # No traceback: the reason names the file and what to do.
        structlog.get_logger(__name__).error("start refused", code=error.code, reason=error.message, **error.values)
        raise
