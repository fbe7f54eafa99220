"""The application: wiring only."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from pathlib import Path

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.api.docs import add_docs, add_front_pages
from app.api.edge import Edge
from app.api.openapi import describe
from app.api.problems import problem_response
from app.api.routes import capabilities, health, models, predict
from app.api.service import Analyse, LoadModels, Service, load_models
from app.api.waiting_line import ClientHungUp, WaitingLine
from app.imaging.errors import LungNoduleError, ModelError
from app.inference.model_store import LoadedModel
from app.inference.pipeline import analyse
from app.metrics import Metrics
from app.settings import Settings
from app.upload_folders import process_folder


def create_app(settings: Settings, *, load: LoadModels = load_models, run: Analyse = analyse) -> FastAPI:
    """Make the application.

    Parameters
    ----------
    settings
        All that may differ between installations.
    load
        Gives the models at start-up; the first is the default.
    run
        The analysis itself.

    Returns
    -------
    FastAPI
        Starts only when every model is verified and warmed up: a `ModelError` ends the start.
    """
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        models = _loaded(settings, load, metrics)
        line = WaitingLine(settings.max_waiting)
        metrics.in_flight.set_function(lambda: line.admitted)
        metrics.waiting.set_function(lambda: line.waiting)
        with process_folder(settings.temp_dir or Path(tempfile.gettempdir())) as uploads:
            app.state.service = Service(settings, models, line, metrics, uploads, run)
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
    for resource in (predict, models, capabilities, health):
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
