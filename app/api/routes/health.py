"""Is the process alive, can it take work, and what it counts."""

from __future__ import annotations

import asyncio
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from app.api.problems import NotReady, problem_responses
from app.api.service import ServiceDependency
from app.metrics import CONTENT_TYPE

router = APIRouter(tags=["operations"])


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"] = Field(description="Always `alive`.")


class Ready(BaseModel):
    """The service can take work."""

    status: Literal["ready"] = Field(description="Always `ready`; otherwise the answer is a problem with status 503.")
    models: list[str] = Field(description="Loaded and verified models as name:version; the first is the default.")
    execution_provider: str = Field(description="ONNX Runtime execution provider of the default model.")
    notices: list[str] = Field(description="What the operator should know, e.g. that a GPU could not be used.")
    free_disk_bytes: int = Field(description="Free space for uploads, in bytes.")
    places: int = Field(description="Requests that can be admitted at the same time.")
    places_taken: int = Field(description="Requests admitted now: receiving, waiting or running.")


@router.get("/healthz", summary="The process lives")
async def healthz() -> Alive:
    """For a liveness probe: it asks nothing but that the event loop turns."""
    return Alive(status="alive")


@router.get("/readyz", summary="The service can take work", responses=problem_responses(503))
async def readyz(service: ServiceDependency) -> Ready:
    """For a readiness probe: model loaded, verified and warmed up, and room on the disk."""
    service.refuse_when_draining()
    free = await asyncio.to_thread(service.free_disk_bytes)
    needed = service.settings.min_free_disk_bytes
    if free < needed:
        raise NotReady(
            f"Only {free} bytes are free for uploads; {needed} are required.",
            code="disk_low",
            values={"free_bytes": free, "required_bytes": needed},
        )
    return Ready(
        status="ready",
        models=[f"{model.identity.name}:{model.identity.version}" for model in service.models],
        execution_provider=service.models[0].execution_provider,
        notices=[notice.message for model in service.models for notice in model.notices],
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
    return Response(await asyncio.to_thread(service.metrics.exposition), media_type=CONTENT_TYPE)
