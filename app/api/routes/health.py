"""Is the process alive, can it take work, and what it counts."""

from __future__ import annotations

import asyncio
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from app.api.errors import NotReady
from app.api.job_desk import DeskDependency
from app.api.model_choice import called
from app.api.problems import problem_responses
from app.api.service import Service, ServiceDependency
from app.metrics import CONTENT_TYPE

router = APIRouter(tags=["operations"])


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"] = Field(description="Always `alive`.")


class Ready(BaseModel):
    """The service can take work."""

    status: Literal["ready"] = Field(description="Always `ready`; otherwise the answer is a problem with status 503.")
    models: list[str] = Field(description="The model in force and then the others in memory, as name:version.")
    execution_provider: str = Field(
        description="ONNX Runtime execution provider of the model in force; `none` while it is not in memory, as where "
        "jobs are only taken in."
    )
    notices: list[str] = Field(description="What the operator should know, e.g. that a GPU could not be used.")
    free_disk_bytes: int = Field(description="Free space for uploads, in bytes.")
    places: int = Field(description="Requests that can be admitted at the same time.")
    places_taken: int = Field(description="Requests admitted now: receiving, waiting or running.")


@router.get("/healthz", summary="The process lives")
async def healthz() -> Alive:
    """For a liveness probe: it asks nothing but that the event loop turns."""
    return Alive(status="alive")


@router.get("/readyz", summary="The service can take work", responses=problem_responses(503))
async def readyz(service: ServiceDependency, desk: DeskDependency) -> Ready:
    """For a readiness probe: the model in force can be used, the disk takes uploads, the database answers.

    Without its database no job can be acknowledged, and no key looked up; other instances may reach it.
    """
    service.refuse_when_draining()
    free = await asyncio.to_thread(service.free_disk_bytes)
    needed = service.settings.min_free_disk_bytes
    if free < needed:
        raise NotReady(
            f"Only {free} bytes are free for uploads; {needed} are required.",
            code="disk_low",
            values={"free_bytes": free, "required_bytes": needed},
        )
    if await asyncio.to_thread(service.uploads_are_read_only):
        raise NotReady("The disk for uploads is mounted read-only.", code="disk_read_only")
    await desk.run(desk.jobs.database.refuse_when_gone)
    default = await asyncio.to_thread(service.models.default)
    running = service.models.registry.loaded_as(default.identity)
    loaded = service.models.registry.loaded()
    others = sorted((model.identity for model in loaded), key=lambda identity: (identity.name, identity.version))
    return Ready(
        status="ready",
        models=called([default.identity, *(one for one in others if one != default.identity)]),
        execution_provider=running.execution_provider if running else "none",
        notices=[notice.message for model in loaded for notice in model.notices],
        free_disk_bytes=free,
        places=service.line.capacity,
        places_taken=service.line.admitted,
    )


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={200: {"description": "Prometheus text format.", "content": {"text/plain": {}}}},
)
async def metrics(service: ServiceDependency) -> Response:
    """Of this process: seconds by stage, requests, refusals, provider, model, disk. Of all: jobs, workers, webhooks."""
    return Response(await asyncio.to_thread(_exposition, service), media_type=CONTENT_TYPE)


def _exposition(service: Service) -> bytes:
    service.metrics.show_models(service.models.active(), service.models.registry.loaded())
    return service.metrics.exposition()
