"""What a viewer draws over the slices of a job: outlines, thumbnails, and the candidates that were not reported."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.api.answered import Answered, answered
from app.api.job_desk import DeskDependency, JobDesk
from app.api.opened_scans import ScansDependency
from app.api.problems import problem_responses
from app.api.routes.job_volume import CenterQuery, PlaneQuery, WidthQuery
from app.api.service import Service, ServiceDependency
from app.api.volume_schemas import Candidate, Candidates, CurvePoint, Outline, Outlines
from app.imaging.errors import ModelError
from app.imaging.planes import planes_of
from app.imaging.slabs import Window
from app.inference.manifest import ModelManifest
from app.reporting.outlines import original_voxels
from app.reporting.plane_outlines import polygons
from app.reporting.thumbnail import thumbnail_png

router = APIRouter(tags=["workspace"])

_REFUSALS = (404, 409, 410, 413, 415, 422, 429, 500, 503)
_CORNER_DIGITS = 1
"""A contour runs half-way between two pixels or through their centres."""


@router.get("/v1/jobs/{job_id}/outlines", summary="Outlines of the nodules", responses=problem_responses(*_REFUSALS))
async def show_outlines(job_id: str, desk: DeskDependency) -> Outlines:
    """Polygons on the slices of each plane, in that plane's (row, column); pixel centres are whole numbers."""
    return await desk.run(_outlines, desk, job_id)


@router.get(
    "/v1/jobs/{job_id}/nodules/{nodule_id}/thumbnail.png",
    summary="A small picture of a nodule",
    response_class=Response,
    responses={
        200: {"content": {"image/png": {}}, "description": "The slice through the centre, which is in the middle."},
        **problem_responses(*_REFUSALS),
    },
)
async def draw_thumbnail(
    job_id: str,
    nodule_id: str,
    request: Request,
    desk: DeskDependency,
    scans: ScansDependency,
    plane: PlaneQuery = "axial",
    size: Annotated[int, Query(ge=16, le=512, description="Edge of the picture, in pixels.")] = 128,
    center: CenterQuery = -600.0,
    width: WidthQuery = 1500.0,
) -> Response:
    """Square, 2.5 diameters wide and at least 40 mm, grey, without a mark on it; black outside the scan."""
    found = await desk.run(answered, desk, job_id)
    nodule = found.nodule(nodule_id)
    scan = await scans.look(request, job_id)
    async with scans.cutting:
        picture = await desk.run(
            thumbnail_png, scan.hu, scan.planes[plane], nodule.center_lps_mm, nodule.diameter_mm, size,
            Window(center, width),
        )  # fmt: skip
    return Response(picture, media_type="image/png")


@router.get(
    "/v1/jobs/{job_id}/candidates",
    summary="Nodules and what lies below the threshold",
    responses=problem_responses(*_REFUSALS),
)
async def show_candidates(job_id: str, service: ServiceDependency, desk: DeskDependency) -> Candidates:
    """What the networks said of every place they looked at, and what each operating point was measured to mean.

    Candidates below the threshold are not findings: they were not outlined, not measured, and not judged further.
    """
    return await desk.run(_candidates, service, desk, job_id)


def _outlines(desk: JobDesk, job_id: str) -> Outlines:
    findings = answered(desk, job_id).bundle.findings
    planes = planes_of(findings.grid)
    outlines = {}
    for nodule in findings.nodules:
        if nodule.mask is None:
            continue
        voxels = original_voxels(nodule.mask, findings.grid)
        lines = {
            name: [
                (number, [(round(row, _CORNER_DIGITS), round(column, _CORNER_DIGITS)) for row, column in corners])
                for number, corners in polygons(voxels, plane)
            ]
            for name, plane in planes.items()
        }
        outlines[nodule.id] = Outline(axial=lines["axial"], coronal=lines["coronal"], sagittal=lines["sagittal"])
    return Outlines(nodules=outlines)


def _candidates(service: Service, desk: JobDesk, job_id: str) -> Candidates:
    found = answered(desk, job_id)
    findings = found.bundle.findings
    reported = [
        Candidate(
            id=nodule.id, probability=nodule.probability, center_lps_mm=nodule.center_lps_mm,
            diameter_mm=nodule.diameter_mm, reported=True,
        )
        for nodule in findings.nodules
    ]  # fmt: skip
    faint = [
        Candidate(
            id=f"candidate-{number}", probability=one.probability, center_lps_mm=one.center_lps_mm,
            diameter_mm=one.diameter_mm, reported=False,
        )
        for number, one in enumerate(findings.faint, start=1)
    ]  # fmt: skip
    curve, measured_on = _curve(_manifest(service, found))
    return Candidates(
        threshold=findings.operating_point.threshold,
        lowest=findings.faint_probability,
        candidates=[*reported, *faint],
        curve=curve,
        measured_on=measured_on,
    )


def _manifest(service: Service, found: Answered) -> ModelManifest | None:
    """Of the very model that answered; None where the store has it no longer."""
    model = found.bundle.findings.model
    try:
        return service.models.registry.find(model.name, model.version, model.sha256).manifest
    except ModelError:
        return None


def _curve(manifest: ModelManifest | None) -> tuple[list[CurvePoint], str | None]:
    if manifest is None:
        return [], None
    points = sorted(manifest.operating_points.items(), key=lambda pair: pair[1].threshold)
    told = {point.measured_on for _, point in points} - {None}
    curve = [
        CurvePoint(
            name=name, threshold=point.threshold, sensitivity=point.sensitivity,
            false_positives_per_scan=point.false_positives_per_scan,
        )
        for name, point in points
    ]  # fmt: skip
    return curve, "; ".join(sorted(filter(None, told))) or None
