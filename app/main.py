"""The application: wiring only."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
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
from app.api.openapi import describe
from app.api.pacs_desk import ObjectMaker, no_objects, opened_pacs, pacs_beside
from app.api.problems import problem_response
from app.api.routes import (
    capabilities,
    dicom_web,
    health,
    job_events,
    job_pacs,
    job_results,
    jobs,
    models,
    predict,
)
from app.api.service import Analyse, LoadModels, Service, load_models
from app.api.waiting_line import ClientHungUp, WaitingLine
from app.imaging.errors import LungNoduleError, ModelError
from app.inference.model_store import LoadedModel
from app.inference.pipeline import analyse
from app.jobs.installation import MakeQueue, dbos_queue, open_jobs
from app.metrics import Metrics
from app.settings import Settings
from app.upload_folders import process_folder


def create_app(
    settings: Settings,
    *,
    load: LoadModels = load_models,
    run: Analyse = analyse,
    make_queue: MakeQueue = dbos_queue,
    object_maker: ObjectMaker = no_objects,
    work: bool = False,
    draining: threading.Event | None = None,
) -> FastAPI:
    """Make the application.

    Parameters
    ----------
    settings
        All that may differ between installations.
    load
        Gives the models at start-up; the first is the default.
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
    ending = draining or threading.Event()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        models = _loaded(settings, load, metrics)
        line = WaitingLine(settings.max_waiting, devices=max(1, settings.worker_concurrency))
        metrics.in_flight.set_function(lambda: line.admitted)
        metrics.waiting.set_function(lambda: line.waiting)
        with ExitStack() as stack:
            uploads = stack.enter_context(process_folder(settings.temp_dir or Path(tempfile.gettempdir())))
            installation = stack.enter_context(open_jobs(settings, make_queue))
            app.state.service = Service(settings, models, line, metrics, uploads, run, ending)
            app.state.desk = stack.enter_context(open_desk(installation, ending))
            app.state.pacs = stack.enter_context(opened_pacs(installation, models, object_maker))
            wanted = work and settings.worker_concurrency > 0
            async with (
                worker_beside(app.state.service, installation, wanted=wanted),
                pacs_beside(app.state.pacs, metrics, wanted=work),
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
    app.add_middleware(Edge, metrics=metrics)
    for error in (LungNoduleError, HTTPException, RequestValidationError, ClientDisconnect, ClientHungUp):
        app.add_exception_handler(error, problem_response)
    for resource in (predict, jobs, job_results, job_events, job_pacs, dicom_web, models, capabilities, health):
        app.include_router(resource.router)
    add_front_pages(app, docs=settings.docs)
    if settings.docs:
        add_docs(app)
    return app


def _loaded(settings: Settings, load: LoadModels, metrics: Metrics) -> tuple[LoadedModel, ...]:
    log = structlog.get_logger(__name__)
    try:
        loaded = load(settings)
    except ModelError as error:
        # No traceback: the reason names the file and what to do.
        log.error(  # noqa: TRY400
            "start refused", code=error.code, reason=error.message, **error.values
        )
        raise
    for model in loaded:
        metrics.set_model(model.identity, model.execution_provider)
        log.info(
            "model loaded",
            model=f"{model.identity.name}:{model.identity.version}",
            sha256=model.identity.sha256,
            execution_provider=model.execution_provider,
            precision=dict(model.precision),
            notices=[notice.message for notice in model.notices],
        )
    return loaded
