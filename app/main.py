"""The application: wiring only."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.api.access.gate import Gate
from app.api.docs import add_docs, add_front_pages
from app.api.edge import Edge
from app.api.model_choice import OpenModels, open_models
from app.api.openapi import describe
from app.api.pacs_desk import ObjectMaker, stored_objects
from app.api.problems import problem_response
from app.api.routes import (
    audit,
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
    open_inference,
    predict,
    risk,
    session,
)
from app.api.service import Analyse
from app.api.waiting_line import ClientHungUp
from app.imaging.errors import LungNoduleError
from app.inference.pipeline import analyse
from app.jobs.installation import MakeQueue, dbos_queue
from app.lifespan import Parts, Watched, opened_service
from app.metrics import Metrics
from app.settings import Settings
from app.tracing import open_tracing
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
    metrics: Metrics | None = None,
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
    metrics
        Where the caller counts too; by default the app's own.

    Returns
    -------
    FastAPI
        Starts only when every model is verified and warmed up: a `ModelError` ends the start.
    """
    watched = Watched(metrics or Metrics(), open_tracing(settings.otlp_endpoint), draining or threading.Event())
    parts = Parts(load=load, run=run, make_queue=make_queue, object_maker=object_maker)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with opened_service(app, settings, parts, watched, work=work):
            yield

    app = FastAPI(
        lifespan=lifespan,
        openapi_url="/openapi.json" if settings.docs else None,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.openapi = cache(partial(describe, app, settings.root_path))  # type: ignore[method-assign]
    _wrap(app, settings, watched)
    for error in (LungNoduleError, HTTPException, RequestValidationError, ClientDisconnect, ClientHungUp):
        app.add_exception_handler(error, problem_response)
    for resource in (
        predict, risk, jobs, batches, job_results, job_documents, job_events, explanations, job_pacs, dicom_web, models,
        open_inference, job_volume, job_nodules, job_scene, job_review, job_prior, dashboard, model_documents,
        capabilities, health, session, audit,
    ):  # fmt: skip
        app.include_router(resource.router)
    add_front_pages(app, docs=settings.docs)
    add_workspace(app)
    if settings.docs:
        add_docs(app)
    return app


def _wrap(app: FastAPI, settings: Settings, watched: Watched) -> None:
    """Every request passes the trusted proxies' headers, the edge and the gate, in this order."""
    app.add_middleware(Gate)
    app.add_middleware(Edge, metrics=watched.metrics, tracing=watched.tracing, https_only=settings.https_only)
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.trusted_proxies))
