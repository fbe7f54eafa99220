"""The stored answer of a job as DICOM objects, PDF, FHIR, CSV: made when it is asked for, the same bytes each time."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from fastapi import APIRouter, Request, Response

from app.api.job_desk import DeskDependency, JobDesk
from app.api.problems import problem_responses, stored_problem_response
from app.api.routes.job_results import no_result, note_reading
from app.jobs.records import Job, StoreDamaged, StoredFile
from app.reporting.bundle import document_of, unpack
from app.reporting.restored import material_of
from app.reporting.results import MEDIA_TYPES, Rendered, make_result

router = APIRouter(tags=["jobs"])

Form = Literal["sr", "seg", "gsps", "ko", "sc", "pdf", "fhir", "csv", "json"]

_DISPOSITION = {"description": "A file name without patient data.", "schema": {"type": "string"}}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_DESCRIBED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The form that was asked for.",
        "headers": {
            "Content-Disposition": _DISPOSITION,
            "ETag": {"description": "sha256 of the body.", "schema": {"type": "string"}},
        },
        "content": {
            **{media_type.partition(";")[0]: _BINARY for media_type in MEDIA_TYPES.values()},
            "application/json": {"schema": {"type": "object"}},
        },
    },
    **problem_responses(404, 409, 410, 413, 415, 422, 500, 503),
}


@router.get(
    "/v1/jobs/{job_id}/results/{form}",
    summary="The answer of a job as a document or a DICOM object",
    response_class=Response,
    responses=_DESCRIBED,
)
async def show_document(job_id: str, form: Form, request: Request, desk: DeskDependency) -> Response:
    """SR, SEG, GSPS, KO, SC as DICOM files, a PDF, a FHIR bundle, CSV, or the JSON of `result`.

    All are made from the same stored findings and the stored scan, with UIDs that are the same each time. 409
    `needs_dicom` where the scan was no DICOM, `no_nodules` where the form shows nodules only and there is none.
    """
    job = await desk.run(desk.jobs.lookup.job, job_id)
    if job.problem is not None:
        return stored_problem_response(request, job.problem, job.id)
    if job.result is None:
        raise no_result(job)
    async with desk.rendering:
        made = await desk.run(_made, desk, job, job.result, form)
    await desk.run(note_reading, desk, request, job_id)
    return Response(
        made.body,
        media_type=made.media_type,
        headers={
            "etag": f'"{hashlib.sha256(made.body).hexdigest()}"',
            "content-disposition": f'attachment; filename="{job_id}-{made.file_name}"',
        },
    )


def _made(desk: JobDesk, job: Job, result: StoredFile, form: Form) -> Rendered:
    stored = desk.jobs.store.result(job.id, result)
    if form == "json":
        return Rendered("application/json", "result.json", document_of(stored))
    if job.scan_id is None:
        raise StoreDamaged("The stored scan is gone.", code="scan_missing")
    bundle = unpack(stored)
    with desk.jobs.store.scan(job.scan_id) as files:
        # A table is for people and programs, and stays as the answer is; the other forms belong beside the images.
        whose = None if form == "csv" else desk.jobs.identities.of(job.id)
        return make_result(form, *material_of(bundle, files, desk.settings.read, desk.incoming, whose))
