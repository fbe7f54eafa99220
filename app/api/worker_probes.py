"""Probes and metrics of a worker, on a port of its own: it has no other HTTP."""

from __future__ import annotations

import asyncio
import shutil
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel, Field

from app.api.connection_guard import connection_limits, guarded_protocol
from app.api.edge import Edge
from app.api.errors import NotReady
from app.api.model_choice import Models, called
from app.api.problems import problem_response, problem_responses
from app.api.routes.health import Alive
from app.imaging.errors import LungNoduleError
from app.jobs.census import LatestCensus
from app.jobs.worker import Worker
from app.metrics import CONTENT_TYPE, Metrics
from app.settings import Settings
from app.tracing import Tracing

_STOP_S = 5.0


@dataclass
class Workplace:
    """What the probes look at. The worker comes once its models are loaded and it has a place in the line."""

    settings: Settings
    metrics: Metrics
    draining: threading.Event
    models: Models
    census: LatestCensus
    folders: Sequence[Path]
    """Where it must be able to write."""
    worker: Worker | None = None

    def refuse_unless_alive(self) -> None:
        """For liveness: never the database, whose absence no restart would mend.

        Raises
        ------
        NotReady
            ``worker_dead``: a thread that should run for ever has ended.
        """
        if self.worker is not None and not self.draining.is_set() and not self.worker.is_alive:
            raise NotReady("A thread of the worker has ended. It has to be started anew.", code="worker_dead")

    def refuse_unless_ready(self) -> Worker:
        """For readiness; blocks for as long as the database may take to answer.

        Raises
        ------
        NotReady
            ``draining``, ``starting``, ``database_unavailable``, ``heartbeat_late`` or ``disk_low``.
        """
        if self.draining.is_set():
            raise NotReady("The worker is stopping and takes no new jobs.", code="draining")
        if self.worker is None:
            raise NotReady("The worker is starting.", code="starting")
        if self.census() is None:
            raise NotReady("The database of the jobs does not answer.", code="database_unavailable")
        age_s, lease_s = self.worker.heartbeat_age_s, self.settings.worker_lease_s
        if age_s >= lease_s:
            raise NotReady(
                f"The last heartbeat was written {age_s:.0f} s ago; after {lease_s:g} s the others take it for dead.",
                code="heartbeat_late",
                values={"age_s": round(age_s, 1), "lease_s": lease_s},
            )
        free, needed = self.free_disk_bytes(), self.settings.min_free_disk_bytes
        if free < needed:
            raise NotReady(
                f"Only {free} bytes are free; {needed} are required.",
                code="disk_low",
                values={"free_bytes": free, "required_bytes": needed},
            )
        return self.worker

    def exposition(self) -> bytes:
        """For Prometheus."""
        self.metrics.show_models(self.models.active(), self.models.registry.loaded())
        return self.metrics.exposition()

    def free_disk_bytes(self) -> int:
        """Where there is least room."""
        return min(shutil.disk_usage(folder).free for folder in self.folders)


class WorkerReady(BaseModel):
    """The worker takes jobs."""

    status: str = Field(description="Always `ready`; otherwise the answer is a problem with status 503.")
    worker: str = Field(description="Its id in the ledger.")
    models: list[str] = Field(description="Loaded and verified models as name:version.")
    execution_provider: str = Field(
        description="ONNX Runtime execution provider of the model used last; none: not loaded."
    )
    heartbeat_age_s: float = Field(description="Seconds since its last heartbeat.")
    free_disk_bytes: int = Field(description="Free space where there is least.")


def worker_app(place: Workplace) -> FastAPI:
    """Three routes: ``/healthz``, ``/readyz``, ``/metrics``."""
    app = FastAPI(openapi_url=None)
    app.add_middleware(Edge, metrics=place.metrics, tracing=Tracing())
    app.add_exception_handler(LungNoduleError, problem_response)

    @app.get("/healthz")
    async def healthz() -> Alive:
        place.refuse_unless_alive()
        return Alive(status="alive")

    @app.get("/readyz", responses=problem_responses(503))
    async def readyz() -> WorkerReady:
        worker = await asyncio.to_thread(place.refuse_unless_ready)
        loaded = place.models.registry.loaded()
        return WorkerReady(
            status="ready",
            worker=worker.id,
            models=called([model.identity for model in loaded]),
            execution_provider=loaded[0].execution_provider if loaded else "none",
            heartbeat_age_s=round(worker.heartbeat_age_s, 2),
            free_disk_bytes=await asyncio.to_thread(place.free_disk_bytes),
        )

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(await asyncio.to_thread(place.exposition), media_type=CONTENT_TYPE)

    return app


@contextmanager
def probes(place: Workplace) -> Iterator[None]:
    """Answer probes from a thread until the context ends; without ``worker_port``, none.

    Raises
    ------
    OSError
        The port cannot be listened on.
    """
    settings = place.settings
    if settings.worker_port is None:
        yield
        return
    with socket.create_server((settings.host, settings.worker_port)) as listening:
        config = uvicorn.Config(
            worker_app(place),
            http=guarded_protocol(connection_limits(settings), place.metrics.count_refused_connection),
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), name="worker-probes", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.should_exit = True
            thread.join(timeout=_STOP_S)
