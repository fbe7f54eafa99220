"""What is opened before the first request is answered, and closed after the last one, in this order."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog
from fastapi import FastAPI

from app.api.access.desk import open_access
from app.api.job_desk import open_desk
from app.api.job_work import worker_beside
from app.api.model_choice import Models, NamedModels, OpenModels
from app.api.opened_scans import opened_scans
from app.api.pacs_desk import ObjectMaker, opened_pacs, pacs_beside
from app.api.service import Analyse, Service
from app.api.shadowing import shadow_beside
from app.api.waiting_line import WaitingLine
from app.imaging.errors import ModelError
from app.jobs.census_metrics import census_shown
from app.jobs.installation import MakeQueue, open_jobs
from app.jobs.shadow import Shadow
from app.metrics import Metrics
from app.settings import Settings
from app.tracing import Tracing
from app.upload_folders import process_folder


@dataclass(frozen=True)
class Parts:
    """What a test puts something else in the place of; see `app.main.create_app`."""

    load: OpenModels
    run: Analyse
    make_queue: MakeQueue
    object_maker: ObjectMaker


@dataclass(frozen=True)
class Watched:
    """What is there before anything is opened."""

    metrics: Metrics
    tracing: Tracing
    ending: threading.Event
    """Set when the process is to end."""


@asynccontextmanager
async def opened_service(
    app: FastAPI, settings: Settings, parts: Parts, watched: Watched, *, work: bool
) -> AsyncIterator[None]:
    """Open all that the handlers find in ``app.state``.

    Raises
    ------
    ModelError
        A model is not what its manifest says, or cannot run here.
    """
    metrics = watched.metrics
    with _refusal_logged():
        found = parts.load(settings)
    line = WaitingLine(settings.max_waiting, devices=max(1, settings.worker_concurrency))
    metrics.in_flight.set_function(lambda: line.admitted)
    metrics.waiting.set_function(lambda: line.waiting)
    with ExitStack() as stack:
        stack.callback(watched.tracing.close)
        uploads = stack.enter_context(process_folder(settings.temp_dir or Path(tempfile.gettempdir())))
        installation = stack.enter_context(open_jobs(settings, parts.make_queue))
        models = Models(found.registry, found.named, installation.activations)
        with _refusal_logged():
            models.load_first()
        stack.enter_context(census_shown(metrics.registry, installation.database, settings.worker_lease_s))
        metrics.watch_disk("uploads", uploads)
        metrics.watch_disk("store", settings.data_dir.absolute())
        shadow = stack.enter_context(_shadow(settings, found, parts, metrics, line))
        run = watched.tracing.traced(parts.run)
        app.state.service = Service(
            settings, models, line, metrics, uploads, run, watched.ending, watched.tracing, shadow
        )
        app.state.access = stack.enter_context(open_access(settings, installation.database))
        app.state.desk = stack.enter_context(open_desk(installation, watched.ending))
        app.state.pacs = stack.enter_context(opened_pacs(installation, models, parts.object_maker))
        async with (
            worker_beside(app.state.service, installation, wanted=work and settings.worker_concurrency > 0),
            pacs_beside(app.state.pacs, metrics, wanted=work),
            opened_scans(app.state.desk, uploads) as app.state.scans,
        ):
            yield


@contextmanager
def _shadow(
    settings: Settings, found: NamedModels, parts: Parts, metrics: Metrics, line: WaitingLine
) -> Iterator[Shadow | None]:
    turn = partial(line.turn_of_a_thread, asyncio.get_running_loop())
    with shadow_beside(
        settings, found.registry, parts.run, metrics, turn=turn, busy=lambda: line.admitted > 0
    ) as shadow:
        yield shadow


@contextmanager
def _refusal_logged() -> Iterator[None]:
    try:
        yield
    except ModelError as error:
        # No traceback: the reason names the file and what to do.
        structlog.get_logger(__name__).error("start refused", code=error.code, reason=error.message, **error.values)
        raise
