"""A reader's review of an answer: kept in revisions beside it, given back as a corrected report."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Query, Request, Response
from pydantic import Field

from app.api.answered import Answered, answered
from app.api.errors import InvalidParameter
from app.api.job_desk import DeskDependency, JobDesk
from app.api.problems import problem_responses
from app.api.small_body import SmallBodyRoute
from app.imaging.dicom_headers import pydicom_silenced
from app.jobs.records import StoreDamaged
from app.jobs.reviews import Reviews, Revision
from app.jobs.rows import add_audit
from app.reporting.errors import needs_dicom
from app.reporting.material import Material
from app.reporting.restored import material_of
from app.reporting.review import KeptReview, Review

router = APIRouter(tags=["workspace"], route_class=SmallBodyRoute)

_READ = (404, 409, 410, 422, 500, 503)
_ETAG = {"ETag": {"description": "Of this revision; for If-Match.", "schema": {"type": "string"}}}
_KEPT: dict[int | str, dict[str, Any]] = {200: {"headers": _ETAG}}
_TAG = re.compile(r'(?:W/)?"([^"]*)"')

_EXAMPLE = {
    "reviewer": "Reader^Anna",
    "decisions": [
        {"nodule_id": "nodule-1", "decision": "accepted", "note": ""},
        {"nodule_id": "nodule-2", "decision": "rejected", "note": "vessel"},
    ],
    "added": [{"center_lps_mm": [52.5, -14.0, 102.5], "diameter_mm": 5.5, "note": ""}],
    "finished": True,
}


class PutReview(Review):
    """A review as it is sent; what the service tells may be sent back and is passed over."""

    revision: int | None = Field(default=None, description="Passed over: the service counts.")
    updated_at: datetime | None = Field(default=None, description="Passed over: the service looks at its clock.")


@router.get(
    "/v1/jobs/{job_id}/review", summary="The review of an answer", responses={**_KEPT, **problem_responses(*_READ)}
)
async def show_review(
    job_id: str,
    response: Response,
    desk: DeskDependency,
    revision: Annotated[int | None, Query(ge=1, le=100_000, description="An earlier one; the latest without.")] = None,
) -> KeptReview:
    """The latest revision, or the one that is named. 404 `no_review` where there is none."""
    kept, found = await desk.run(_review, desk, job_id, revision)
    response.headers["etag"] = f'"{found.tag}"'
    return kept


@router.put(
    "/v1/jobs/{job_id}/review",
    summary="Review an answer",
    responses={**_KEPT, **problem_responses(404, 409, 410, 412, 413, 422, 500, 503)},
)
async def put_review(
    job_id: str,
    review: Annotated[PutReview, Body(openapi_examples={"finished": {"value": _EXAMPLE}})],
    request: Request,
    response: Response,
    desk: DeskDependency,
    if_match: Annotated[str | None, Header(max_length=1000, description="ETag of the revision that was seen.")] = None,
    if_none_match: Annotated[str | None, Header(max_length=1000, description="`*`: only if there is none.")] = None,
) -> KeptReview:
    """Store the whole review as the next revision; earlier ones are kept until the job is erased.

    Once there is one, If-Match must name the latest (412 otherwise), so that nobody overwrites what they have not seen.
    """
    desk.refuse_when_draining()
    found = await desk.run(answered, desk, job_id)
    _refuse_what_does_not_fit(review, found)

    def seen(tag: str | None) -> bool:
        if tag is None:
            return if_match is None
        return if_none_match is None and if_match is not None and (if_match.strip() == "*" or tag in _tags(if_match))

    def write(number: int, at: float) -> bytes:
        told = review.model_dump(exclude={"revision", "updated_at"})
        kept = KeptReview(**told, revision=number, updated_at=datetime.fromtimestamp(at, UTC))
        return kept.model_dump_json().encode()

    reviews = Reviews(desk.jobs.database, desk.jobs.store)
    counts = {
        "accepted": review.count("accepted"), "rejected": review.count("rejected"), "added": len(review.added),
        "finished": review.finished,
    }  # fmt: skip
    revision = await desk.run(reviews.keep, job_id, write, seen, desk.who(request), counts)
    response.headers["etag"] = f'"{revision.tag}"'
    return KeptReview.model_validate_json(write(revision.number, revision.created_at))


@router.get(
    "/v1/jobs/{job_id}/review/sr",
    summary="The reviewed answer as DICOM SR",
    response_class=Response,
    responses={
        200: {
            "description": "Comprehensive 3D SR, TID 1500; VERIFIED once the review is finished.",
            "content": {"application/dicom": {"schema": {"type": "string", "format": "binary"}}},
            "headers": {"ETag": {"description": "sha256 of the body.", "schema": {"type": "string"}}},
        },
        **problem_responses(404, 409, 410, 413, 415, 422, 500, 503),
    },
)
async def show_reviewed_report(job_id: str, request: Request, desk: DeskDependency) -> Response:
    """The AI's measurements and the reader's decisions, kept apart; the AI's own report is named as the predecessor.

    Rejected nodules are listed without measurements, added ones as the reader's own.
    """
    async with desk.rendering:
        body = await desk.run(_reviewed_sr, desk, job_id)
    await desk.run(_note, desk, request, job_id)
    return Response(
        body,
        media_type="application/dicom",
        headers={
            "etag": f'"{hashlib.sha256(body).hexdigest()}"',
            "content-disposition": f'attachment; filename="{job_id}-reviewed-sr.dcm"',
        },
    )


def _tags(header: str) -> list[str]:
    return _TAG.findall(header)


def _review(desk: JobDesk, job_id: str, number: int | None) -> tuple[KeptReview, Revision]:
    desk.jobs.lookup.job(job_id)
    reviews = Reviews(desk.jobs.database, desk.jobs.store)
    revision = reviews.revision(job_id, number)
    return KeptReview.model_validate_json(reviews.body(job_id, revision)), revision


def _refuse_what_does_not_fit(review: Review, found: Answered) -> None:
    findings = found.bundle.findings
    known = [nodule.id for nodule in findings.nodules]
    decided = [one.nodule_id for one in review.decisions]
    if not set(decided) <= set(known):
        raise InvalidParameter(
            f"A decision is about a nodule that is not among the {len(known)} of the answer.",
            code="unknown_nodule",
            values={"available": known},
        )
    if len(set(decided)) < len(decided):
        raise InvalidParameter("Two decisions are about the same nodule.", code="nodule_decided_twice")
    outside = [n for n, one in enumerate(review.added) if not findings.grid.contains_index(_index(found, n, review))]
    if outside:
        raise InvalidParameter(
            "An added nodule lies outside the scan; `values` say which, counted from 0.",
            code="outside_scan",
            values={"added": outside},
        )


def _index(found: Answered, number: int, review: Review) -> Any:  # noqa: ANN401 - an array of three
    return found.bundle.findings.grid.to_index(review.added[number].center_lps_mm)


def _reviewed_sr(desk: JobDesk, job_id: str) -> bytes:
    found = answered(desk, job_id)
    review, _ = _review(desk, job_id, None)
    if found.job.scan_id is None:
        raise StoreDamaged("The stored scan is gone.", code="scan_missing")
    with desk.jobs.store.scan(found.job.scan_id) as files:
        whose = desk.jobs.identities.of(job_id)
        report, originals = material_of(found.bundle, files, desk.settings.read, desk.incoming, whose)
        if not originals.is_dicom:
            raise needs_dicom("The reviewed report")
        _ = originals.images  # read before pydicom is silenced for all threads
        from app.reporting.dicom_objects import in_bytes  # noqa: PLC0415 - highdicom takes seconds
        from app.reporting.reviewed_report import reviewed_report  # noqa: PLC0415

        with pydicom_silenced():
            return in_bytes(reviewed_report(Material(report, originals), review))


def _note(desk: JobDesk, request: Request, job_id: str) -> None:
    database = desk.jobs.database
    with database.transaction() as connection:
        add_audit(connection, database.now(connection), desk.who(request), "job.review.report", job_id)
