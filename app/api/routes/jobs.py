"""Jobs: a scan is acknowledged once it is safe, and analysed when its turn comes."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.access.desk import identity_of
from app.api.deidentified_jobs import take_in
from app.api.errors import EmptyUpload
from app.api.job_desk import DeskDependency, JobDesk
from app.api.job_schemas import JobList, JobStatus, StateName, is_live, job_status
from app.api.moments import Moment, seconds_of
from app.api.paging import cursor_of, parse_cursor
from app.api.problems import problem_responses
from app.api.routes.predict import PredictOptions, any_content, form_body, parse_fields
from app.api.service import Service, ServiceDependency
from app.api.small_body import SmallBodyRoute
from app.imaging.errors import OptionError
from app.inference.pipeline import choose_operating_point
from app.jobs import intake
from app.jobs.lookup import Filters
from app.jobs.prior_scans import present_prior
from app.jobs.records import Order, State
from app.reporting.clinical_context import ClinicalContext
from app.uploads import receive_upload

router = APIRouter(tags=["jobs"], route_class=SmallBodyRoute)

POLL_AFTER_S = 2
"""Retry-After of what is not done yet."""
_PAGE, _LONGEST_PAGE = 50, 200

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="The same key with the same scan and options is the same job, however often it is sent.",
    ),
]
JobId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
NOTIFY = "Name of a configured webhook that is told of the job's end."
ACCEPTED: dict[str, Any] = {
    "Location": {"description": "What was made.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds after which to look.", "schema": {"type": "integer"}},
}


class JobOptions(PredictOptions):
    """Text fields of the form, all optional."""

    notify: Annotated[str, Field(max_length=64)] | None = Field(default=None, description=NOTIFY)
    prior: Annotated[str, Field(pattern=r"^([0-9a-f]{32})?$")] | None = Field(
        default=None,
        description="Id of an earlier job of the same patient whose scan is still stored: both are compared, and the "
        "answer has `comparison`.",
    )

    def told_context(self) -> bytes | None:
        """The clinical context as the job keeps it."""
        return None if self.context is None else self.context.canonical_json()


class RetryOptions(BaseModel):
    """What is to be different; what is left out stays as it was."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str, Field(max_length=128)] | None = Field(default=None, description="name or name:version.")
    operating_point: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="Operating point; left out with another model, that model's default."
    )
    notify: Annotated[str, Field(max_length=64)] | None = Field(default=None, description="Name of a webhook.")
    context: ClinicalContext | None = Field(default=None, description="What is known of patient and exam.")
    prior: JobId | Literal[""] | None = Field(
        default=None, description="Job whose scan this one is compared with; empty for none."
    )


@router.post(
    "/v1/jobs",
    status_code=202,
    summary="Take a chest CT in, to be analysed in its turn",
    response_model=JobStatus,
    response_description="The scan is stored and the job will be done, whatever happens to this process.",
    responses={202: {"headers": ACCEPTED}, **problem_responses(400, 408, 413, 415, 422, 429, 500, 503)},
    openapi_extra={"requestBody": form_body(JobOptions)},
)
async def create_job(
    request: Request, service: ServiceDependency, desk: DeskDependency, idempotency_key: IdempotencyKey = None
) -> Response:
    """Upload one CT series; the answer comes once it is whole, hashed and on stable storage.

    The same content with the same model and options is answered from what is stored: the job has then succeeded at
    once, and `answered_from` names the job that was analysed.
    """
    desk.refuse_when_draining()
    async with desk.upload_folder() as folder:
        await desk.run(desk.jobs.intake.refuse_when_full)
        upload = await receive_upload(request.stream(), dict(request.headers), folder, service.upload_limits())
        if not await asyncio.to_thread(any_content, upload):
            raise EmptyUpload("Send the scan in one or more non-empty parts named 'files'.")
        asked = parse_fields(upload.fields, JobOptions)
        who = desk.who(request)
        order = await desk.run(definite_order, service, desk, asked, who.tenant)
        wanted = intake.Request(
            order,
            who,
            idempotency_key,
            context=asked.told_context(),
            asked=asked.model_dump(mode="json") | {"allow_repairs": list(order.allow_repairs)},
            traceparent=service.tracing.traceparent(),
        )
        job_id = await desk.run(take_in, desk, folder, upload.files, wanted)
    return await _accepted(request, desk, job_id)


@router.get("/v1/jobs", summary="Jobs, the newest first", responses=problem_responses(422, 503))
async def list_jobs(
    request: Request,
    desk: DeskDependency,
    state: Annotated[list[StateName], Query(description="Only these states; repeat for several.")] = [],  # noqa: B006
    model: Annotated[str | None, Query(max_length=128, description="Only this model, name:version.")] = None,
    created_after: Annotated[Moment | None, Query(description="Only later ones (RFC 3339).")] = None,
    created_before: Annotated[Moment | None, Query(description="Only earlier ones (RFC 3339).")] = None,
    limit: Annotated[int, Query(ge=1, le=_LONGEST_PAGE, description="Jobs on a page.")] = _PAGE,
    cursor: Annotated[str | None, Query(max_length=128, description="From the link `next`.")] = None,
) -> JobList:
    """One page; `next` leads to the one after it. Erased jobs are left out."""
    tenant = identity_of(request).sees_tenant
    filters = Filters(tuple(map(State, state)), model, seconds_of(created_after), seconds_of(created_before), tenant)
    found = await desk.run(desk.jobs.lookup.jobs, filters, limit + 1, parse_cursor(cursor))
    root_path = request.scope.get("root_path", "")
    following = None
    if len(found) > limit:
        asked = request.url.include_query_params(cursor=cursor_of(found[limit - 1].created_at, found[limit - 1].id))
        following = f"{root_path}/v1/jobs?{asked.query}"
    has_pacs = request.app.state.pacs is not None
    return JobList(jobs=[job_status(job, root_path, has_pacs=has_pacs) for job in found[:limit]], next=following)


@router.get(
    "/v1/jobs/{job_id}",
    summary="How far a job is",
    response_model=JobStatus,
    responses=problem_responses(404, 410, 503),
)
async def show_job(job_id: str, request: Request, desk: DeskDependency) -> Response:
    """State, progress of each stage, place in the line, attempts; `Retry-After` says when to look again."""
    return await _shown(request, desk, job_id)


@router.delete(
    "/v1/jobs/{job_id}",
    summary="Cancel a job",
    response_model=JobStatus,
    responses=problem_responses(404, 409, 410, 503),
)
async def cancel_job(job_id: str, request: Request, desk: DeskDependency) -> Response:
    """A waiting job is not taken up; a running one stops at its next step. Its data stay: see DELETE of `data`."""
    await desk.run(desk.jobs.ledger.cancel, job_id, desk.who(request))
    return await _shown(request, desk, job_id)


@router.post(
    "/v1/jobs/{job_id}/retry",
    status_code=202,
    summary="The same scan again",
    response_model=JobStatus,
    responses={202: {"headers": ACCEPTED}, **problem_responses(400, 404, 408, 410, 413, 422, 429, 500, 503)},
)
async def retry_job(
    job_id: str,
    request: Request,
    service: ServiceDependency,
    desk: DeskDependency,
    options: RetryOptions | None = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """A new job on the stored scan, with another operating point or model, or as before."""
    desk.refuse_when_draining()
    source = await desk.run(desk.jobs.lookup.job, job_id)
    before = source.order
    changes = options or RetryOptions()
    asked = JobOptions(
        series_uid=before.series_uid,
        operating_point=changes.operating_point or (None if changes.model else before.operating_point),
        model=changes.model or before.model,
        allow_repairs=list(before.allow_repairs),
        notify=changes.notify or before.notify,
        context=changes.context or await _context_of(desk, job_id, before),
        prior=(before.prior if changes.prior is None else changes.prior) or None,
    )
    wanted = intake.Request(
        await desk.run(definite_order, service, desk, asked, source.tenant),
        desk.who(request),
        idempotency_key,
        retry_of=job_id,
        context=asked.told_context(),
        traceparent=service.tracing.traceparent(),
    )
    return await _accepted(request, desk, await desk.run(desk.jobs.intake.again, job_id, wanted))


def definite_order(service: Service, desk: JobDesk, asked: JobOptions, tenant: str) -> Order:
    """What was asked, checked against what there is, and made definite: a later default changes nothing.

    Parameters
    ----------
    service, desk
        What there is.
    asked
        By the caller.
    tenant
        Whose the job will be; a prior must be of the same.

    Raises
    ------
    OptionError
        ``unknown_model``, ``unknown_operating_point`` or ``unknown_webhook``.
    """
    model, context = service.model(asked.model), asked.told_context()
    if asked.notify is not None and asked.notify not in desk.settings.webhooks:
        available = sorted(desk.settings.webhooks)
        raise OptionError(
            f"notify names no configured webhook; there are {', '.join(available) or 'none'}.",
            code="unknown_webhook",
            values={"available": available},
        )
    if asked.prior is not None:
        present_prior(desk.jobs.lookup, asked.prior, tenant)
    return Order(
        model=f"{model.identity.name}:{model.identity.version}",
        model_sha256=model.identity.sha256,
        operating_point=choose_operating_point(model, asked.operating_point).name,
        series_uid=asked.series_uid,
        allow_repairs=tuple(sorted(set(asked.allow_repairs))),
        notify=asked.notify,
        context_sha256=None if context is None else hashlib.sha256(context).hexdigest(),
        prior=asked.prior,
    )


async def _context_of(desk: JobDesk, job_id: str, order: Order) -> ClinicalContext | None:
    if order.context_sha256 is None:
        return None
    stored = await desk.run(desk.jobs.store.context, job_id, order.context_sha256)
    return ClinicalContext.model_validate_json(stored)


async def _accepted(request: Request, desk: JobDesk, job_id: str) -> Response:
    response = await _shown(request, desk, job_id)
    response.status_code = 202
    response.headers["location"] = f"{request.scope.get('root_path', '')}/v1/jobs/{job_id}"
    response.headers.setdefault("retry-after", "0")
    return response


async def _shown(request: Request, desk: JobDesk, job_id: str) -> Response:
    job = await desk.run(desk.jobs.lookup.job, job_id)
    place = await desk.run(desk.jobs.lookup.place, job) if is_live(job) else None
    has_pacs = request.app.state.pacs is not None
    status = job_status(job, request.scope.get("root_path", ""), place, has_pacs=has_pacs)
    headers = {"retry-after": str(POLL_AFTER_S)} if is_live(job) else {}
    return Response(status.model_dump_json(), media_type="application/json", headers=headers)
