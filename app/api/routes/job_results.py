"""The stored answer of a job, and its erasure."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from hashlib import sha256

from fastapi import APIRouter, Request, Response

from app.api.job_desk import DeskDependency
from app.api.job_schemas import ErasureReceipt, is_live
from app.api.opened_scans import ScansDependency
from app.api.problems import problem_responses, stored_problem_response
from app.api.routes.jobs import POLL_AFTER_S
from app.api.schemas import AnalysisResult
from app.jobs.records import Job, JobConflict, State
from app.jobs.rows import add_audit
from app.reporting.bundle import document_of

router = APIRouter(tags=["jobs"])


@router.get(
    "/v1/jobs/{job_id}/result",
    summary="The answer of a job",
    response_model=AnalysisResult,
    responses=problem_responses(404, 409, 410, 413, 415, 422, 500, 503),
)
async def show_result(job_id: str, request: Request, desk: DeskDependency) -> Response:
    """The same document that `/v1/predict` gives, byte for byte as it was stored; its sha256 is the ETag.

    A job that failed or was parked is answered with its problem. One that is not done yet is 409 with `Retry-After`.
    """
    job = await desk.run(desk.jobs.lookup.job, job_id)
    if job.problem is not None:
        return stored_problem_response(request, job.problem, job.id)
    if job.result is None:
        raise no_result(job)
    body = document_of(await desk.run(desk.jobs.store.result, job_id, job.result))
    await desk.run(note_reading, desk, request, job_id)
    return Response(body, media_type="application/json", headers={"etag": f'"{sha256(body).hexdigest()}"'})


@router.delete("/v1/jobs/{job_id}/data", summary="Erase scan and result", responses=problem_responses(404, 503))
async def erase_job(job_id: str, request: Request, desk: DeskDependency, scans: ScansDependency) -> ErasureReceipt:
    """Remove all that was stored for a job, and look whether anything is left.

    A live job is cancelled first. Afterwards the job is answered 410. Erasing again is allowed and finds nothing.
    """
    receipt = await desk.run(desk.jobs.eraser.erase, job_id, desk.who(request), "request")
    scans.forget(job_id)
    fields = {**asdict(receipt), "erased_at": datetime.fromtimestamp(receipt.erased_at, UTC)}
    return ErasureReceipt.model_validate(fields)


def no_result(job: Job) -> JobConflict:
    """Why a job without a problem has no answer: it is not done yet, or never will be."""
    if is_live(job):
        return JobConflict(
            f"The job is {job.state}; there is no answer yet.",
            code="job_not_finished",
            values={"state": job.state, "retry_after_s": POLL_AFTER_S},
        )
    if job.state is State.CANCELLED:
        return JobConflict(
            "The job was cancelled; there is no answer.", code="job_cancelled", values={"state": State.CANCELLED}
        )
    return JobConflict(
        f"The job is {job.state}; there is no answer.", code="job_without_answer", values={"state": job.state}
    )


def note_reading(desk: DeskDependency, request: Request, job_id: str) -> None:
    """For the audit trail: an answer was handed out."""
    database = desk.jobs.database
    with database.transaction() as connection:
        add_audit(connection, database.now(connection), desk.who(request), "job.result", job_id)
