"""What happens to a job, as server-sent events that can be replayed from any point."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.responses import StreamingResponse

from app.api.job_desk import DeskDependency, JobDesk
from app.api.problems import problem_responses
from app.jobs.records import Event

router = APIRouter(tags=["jobs"])

_LOOK_EVERY_S = 0.5
_COMMENT_EVERY_S = 15.0
"""So that proxies do not take a quiet stream for a dead one."""


@router.get(
    "/v1/jobs/{job_id}/events",
    summary="What happens to a job",
    response_class=StreamingResponse,
    responses={
        200: {"description": "Server-sent events.", "content": {"text/event-stream": {}}},
        **problem_responses(404, 410, 422, 503),
    },
)
async def follow_job(
    job_id: str,
    desk: DeskDependency,
    last_event_id: Annotated[
        int, Header(alias="Last-Event-ID", ge=0, le=2**31 - 1, description="Number of the last event that was seen.")
    ] = 0,
) -> StreamingResponse:
    """Every event after `Last-Event-ID` (all without it), then new ones as they happen; ends with the job.

    Kinds: queued, started, progress, succeeded, failed, parked, cancelled.
    """
    await desk.run(desk.jobs.lookup.job, job_id)  # 404 and 410 before the stream begins
    return StreamingResponse(_stream(desk, job_id, last_event_id), media_type="text/event-stream")


async def _stream(desk: JobDesk, job_id: str, last: int) -> AsyncIterator[str]:
    clock = asyncio.get_running_loop().time
    spoke = clock()
    yield f"retry: {int(_LOOK_EVERY_S * 4000)}\n\n"
    while not desk.draining.is_set():
        events, ended = await desk.run(desk.jobs.lookup.events, job_id, last)
        for event in events:
            yield _written(event)
            last, spoke = event.seq, clock()
        if ended:
            return
        if clock() - spoke > _COMMENT_EVERY_S:
            yield ": still here\n\n"
            spoke = clock()
        await asyncio.sleep(_LOOK_EVERY_S)


def _written(event: Event) -> str:
    data = {"at": datetime.fromtimestamp(event.at, UTC).isoformat(), **event.data}
    return f"id: {event.seq}\nevent: {event.kind}\ndata: {json.dumps(data)}\n\n"
