"""Batches: one upload with many series, a job for each."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field

from app.api.batch_schemas import BatchStatus, batch_status
from app.api.deidentified_jobs import refuse_batches
from app.api.errors import EmptyUpload
from app.api.job_desk import DeskDependency, JobDesk
from app.api.problems import problem_responses
from app.api.routes.jobs import ACCEPTED, NOTIFY, POLL_AFTER_S, IdempotencyKey, JobOptions, definite_order
from app.api.routes.predict import ScanOptions, any_content, form_body, parse_fields
from app.api.service import ServiceDependency
from app.imaging.read_options import ReadOptions
from app.jobs import intake
from app.jobs.batches import cancel_jobs_of, find_batch
from app.uploads import receive_upload

router = APIRouter(tags=["jobs"])


class BatchOptions(ScanOptions):
    """Text fields of the form, all optional; they hold for every job."""

    notify: Annotated[str, Field(max_length=64)] | None = Field(default=None, description=NOTIFY)


@router.post(
    "/v1/batches",
    status_code=202,
    summary="Take many series in, a job for each",
    response_model=BatchStatus,
    response_description="Every series that can be analysed is stored and has its job, whatever happens to this "
    "process.",
    responses={202: {"headers": ACCEPTED}, **problem_responses(400, 408, 413, 415, 422, 429, 500, 503)},
    openapi_extra={"requestBody": form_body(BatchOptions)},
)
async def create_batch(
    request: Request, service: ServiceDependency, desk: DeskDependency, idempotency_key: IdempotencyKey = None
) -> Response:
    """Upload series of one or many patients, loose or in zips, DICOM and volume files in any mixture.

    All or nothing: one answer for all once everything is on stable storage. Series that cannot be analysed are listed
    with their reasons; where none can, or a header cannot be read, the batch is refused and nothing of it is kept.
    """
    desk.refuse_when_draining()
    refuse_batches(desk.settings)
    async with desk.upload_folder() as folder:
        await desk.run(desk.jobs.intake.refuse_when_full)
        upload = await receive_upload(request.stream(), dict(request.headers), folder, service.upload_limits())
        if not await asyncio.to_thread(any_content, upload):
            raise EmptyUpload("Send the scans in one or more non-empty parts named 'files'.")
        asked = parse_fields(upload.fields, BatchOptions)
        who = desk.who(request)
        order = await desk.run(definite_order, service, desk, JobOptions(**asked.model_dump()), who.tenant)
        sent = asked.model_dump(mode="json") | {"allow_repairs": list(order.allow_repairs)}
        wanted = intake.Request(order, who, idempotency_key, asked=sent)
        options = ReadOptions(limits=service.settings.read, allow_repairs=frozenset(order.allow_repairs))
        batch_id = await desk.run_long(desk.jobs.batches.accept, folder, upload.files, wanted, options)
    response = await _shown(request, desk, batch_id)
    response.status_code = 202
    response.headers["location"] = f"{request.scope.get('root_path', '')}/v1/batches/{batch_id}"
    response.headers.setdefault("retry-after", "0")
    return response


@router.get(
    "/v1/batches/{batch_id}",
    summary="How far the jobs of a batch are",
    response_model=BatchStatus,
    responses=problem_responses(404, 410, 503),
)
async def show_batch(batch_id: str, request: Request, desk: DeskDependency) -> Response:
    """The state of each job, and what became none; `Retry-After` says when to look again."""
    return await _shown(request, desk, batch_id)


@router.delete(
    "/v1/batches/{batch_id}",
    summary="Cancel what is left of a batch",
    response_model=BatchStatus,
    responses=problem_responses(404, 410, 503),
)
async def cancel_batch(batch_id: str, request: Request, desk: DeskDependency) -> Response:
    """Every job that has not ended is cancelled, as by its own DELETE; answers that are there stay."""
    await desk.run(cancel_jobs_of, desk.jobs.ledger, batch_id, desk.who(request))
    return await _shown(request, desk, batch_id)


async def _shown(request: Request, desk: JobDesk, batch_id: str) -> Response:
    batch = await desk.run(find_batch, desk.jobs.database, batch_id)
    status = batch_status(batch, request.scope.get("root_path", ""))
    headers = {} if status.finished else {"retry-after": str(POLL_AFTER_S)}
    return Response(status.model_dump_json(), media_type="application/json", headers=headers)
