"""Why the network took a nodule for one: made on demand from the stored scan."""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from app.api.errors import AnalysisTimeout, NotFound
from app.api.explanation_schemas import NoduleExplanation, explanation_answer
from app.api.job_desk import DeskDependency, JobDesk
from app.api.job_work import ordered_model, ordered_reading
from app.api.problems import problem_responses
from app.api.routes.job_results import no_result
from app.api.schemas import AnalysisResult, Nodule
from app.api.service import Service, ServiceDependency
from app.api.waiting_line import ClientHungUp
from app.disk_faults import full_disk_refused
from app.imaging.inputs import InputFile
from app.imaging.reading import read_ct
from app.inference.explanation import Explanation, OnStep, explain
from app.inference.findings import ModelIdentity
from app.inference.manifest import CharacteriserEntry
from app.jobs.records import Job, StoreDamaged
from app.jobs.rows import add_audit
from app.reporting.bundle import document_of
from app.reporting.errors import ResultUnavailable
from app.reporting.explanation_picture import explanation_png
from app.upload_folders import request_folder

router = APIRouter(tags=["jobs"])

_PATH = "/v1/jobs/{job_id}/nodules/{nodule_id}/explanation"
_REFUSALS = (404, 409, 410, 413, 415, 422, 429, 500, 503)


@dataclass(frozen=True)
class _Explained:
    nodule: Nodule
    model: ModelIdentity
    explanation: Explanation


@router.get(_PATH, summary="Which places mattered for a nodule", responses=problem_responses(*_REFUSALS))
async def explain_nodule(
    job_id: str, nodule_id: str, request: Request, service: ServiceDependency, desk: DeskDependency
) -> NoduleExplanation:
    """Occlusion: places are covered with lung, one after the other, and the network is asked again each time.

    Takes seconds and the device's turn, as an analysis does; nothing is kept.
    """
    explained = await _explained(job_id, nodule_id, request, service, desk)
    return explanation_answer(
        explained.explanation,
        job_id=job_id,
        nodule=explained.nodule,
        model=explained.model,
        picture=f"{request.scope.get('root_path', '')}{_PATH.format(job_id=job_id, nodule_id=nodule_id)}.png",
    )


@router.get(
    f"{_PATH}.png",
    summary="Which places mattered for a nodule, as a picture",
    response_class=Response,
    responses={
        200: {"content": {"image/png": {}}, "description": "Axial slice, red for and blue against, with the outline."},
        **problem_responses(*_REFUSALS),
    },
)
async def draw_explanation(
    job_id: str, nodule_id: str, request: Request, service: ServiceDependency, desk: DeskDependency
) -> Response:
    """The same as a picture; it is computed anew."""
    explained = await _explained(job_id, nodule_id, request, service, desk)
    picture = await desk.run(explanation_png, explained.explanation)
    return Response(picture, media_type="image/png")


async def _explained(job_id: str, nodule_id: str, request: Request, service: Service, desk: JobDesk) -> _Explained:
    service.refuse_when_draining()
    service.refuse_when_intake_only()
    job = await desk.run(desk.jobs.lookup.job, job_id)
    result = await desk.run(_result, desk, job)
    nodule = next((nodule for nodule in result.nodules if nodule.id == nodule_id), None)
    if nodule is None:
        known = [nodule.id for nodule in result.nodules]
        raise NotFound(
            f"The answer of this job has {len(known)} nodules, and none of this id.",
            code="unknown_nodule",
            values={"available": known},
        )
    registry = service.models.registry
    wanted = await desk.run(ordered_model, registry, job.order)
    second_stage = wanted.manifest.second_stage
    if not isinstance(second_stage, CharacteriserEntry):
        raise ResultUnavailable(
            f"{job.order.model} is of another make (kind {second_stage.kind}): its answers are not explained. Analyse "
            "the scan with a model of kind axial-crops.",
            code="not_explained",
            values={"kind": second_stage.kind},
        )
    with service.line.place():
        async with request_folder(service.uploads) as scratch:
            options = ordered_reading(service.settings, job.order, scratch)

            def work(abandoned: threading.Event) -> Explanation:
                on_step = _until(abandoned, service.settings.analysis_timeout_s)
                with _stored_scan(desk, job) as files, full_disk_refused():
                    volume, _ = read_ct(files, options)
                on_step(0.0)
                with registry.lease(wanted) as model:
                    return explain(volume, nodule.center_lps_mm, nodule.diameter_mm, model, on_step)

            explanation, _ = await service.line.run(work, request.receive)
    await desk.run(_note_explanation, desk, request, job_id)
    return _Explained(nodule, wanted.identity, explanation)


def _until(abandoned: threading.Event, limit_s: float) -> OnStep:
    """Ends the work at its next step when the client is gone or the time is up."""
    deadline = time.monotonic() + limit_s

    def on_step(_fraction: float) -> None:
        if abandoned.is_set():
            raise ClientHungUp
        if time.monotonic() > deadline:
            raise AnalysisTimeout(f"The explanation took more than {limit_s:g} s.", values={"limit_s": limit_s})

    return on_step


def _result(desk: JobDesk, job: Job) -> AnalysisResult:
    if job.result is None:
        raise no_result(job)
    return AnalysisResult.model_validate_json(document_of(desk.jobs.store.result(job.id, job.result)))


def _stored_scan(desk: JobDesk, job: Job) -> AbstractContextManager[list[InputFile]]:
    if job.scan_id is None:
        raise StoreDamaged("The stored scan is gone.", code="scan_missing")
    return desk.jobs.store.scan(job.scan_id)


def _note_explanation(desk: JobDesk, request: Request, job_id: str) -> None:
    database = desk.jobs.database
    with database.transaction() as connection:
        add_audit(connection, database.now(connection), desk.who(request), "job.explanation", job_id)
