"""The answer of a job in three dimensions: surfaces of lungs, airways and nodules, made when they are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request, Response

from app.api.answered import answered
from app.api.job_desk import DeskDependency, JobDesk
from app.api.opened_scans import OpenedScan, OpenedScans, ScansDependency
from app.api.problems import problem_responses
from app.inference.findings import Findings
from app.jobs.rows import add_audit
from app.reporting import glb, usdz
from app.reporting.scene import compact_parts

router = APIRouter(tags=["workspace"])

_REFUSALS = (404, 409, 410, 413, 415, 422, 429, 500, 501, 503)


def _described(media_type: str) -> dict[int | str, dict[str, Any]]:
    return {
        200: {
            "description": "Metres, +Y up: LPS (x, y, z) mm is (-x, z, y) / 1000.",
            "content": {media_type: {"schema": {"type": "string", "format": "binary"}}},
            "headers": {"ETag": {"description": "sha256 of the body.", "schema": {"type": "string"}}},
        },
        **problem_responses(*_REFUSALS),
    }


@router.get(
    "/v1/jobs/{job_id}/scene.glb",
    summary="Lungs, airways and nodules as GLB",
    response_class=Response,
    responses=_described(glb.MEDIA_TYPE),
)
async def show_scene(job_id: str, request: Request, desk: DeskDependency, scans: ScansDependency) -> Response:
    """GlTF 2.0 with the nodes `lung-left`, `lung-right`, `airways` where they are found, and `nodule-<id>`.

    Lungs and airways (trachea and main bronchi) come from the coarse mask of the analysis, nodules from their outlines;
    `extras.lps_mm` of a nodule's node is its centre. Smoothed for the eye: nothing may be measured on it.
    """
    body = await _made(desk, scans, request, job_id, "scene.glb", _glb)
    return _answer(body, glb.MEDIA_TYPE)


@router.get(
    "/v1/jobs/{job_id}/scene.usdz",
    summary="The same as USDZ",
    response_class=Response,
    responses=_described(usdz.MEDIA_TYPE),
)
async def show_scene_usdz(job_id: str, request: Request, desk: DeskDependency, scans: ScansDependency) -> Response:
    """For Quick Look on a phone. 501 where the service runs without the extra `usdz`."""
    body = await _made(desk, scans, request, job_id, "scene.usdz", _usdz)
    return _answer(body, usdz.MEDIA_TYPE)


async def _made(
    desk: JobDesk,
    scans: OpenedScans,
    request: Request,
    job_id: str,
    name: str,
    make: Callable[[OpenedScan, Findings], bytes],
) -> bytes:
    """Made once for as long as the scan is open."""
    found = await desk.run(answered, desk, job_id)
    _, scan = await scans.scan(job_id)
    async with desk.rendering:
        if name not in scan.made:
            scan.made[name] = await desk.run(make, scan, found.bundle.findings)
    await desk.run(_note, desk, request, job_id)
    return scan.made[name]


def _glb(scan: OpenedScan, findings: Findings) -> bytes:
    return glb.glb(compact_parts(scan.volume, findings))


def _usdz(scan: OpenedScan, findings: Findings) -> bytes:
    usdz.refuse_without_extra()
    return usdz.usdz(compact_parts(scan.volume, findings), scan.path.parent)


def _answer(body: bytes, media_type: str) -> Response:
    return Response(body, media_type=media_type, headers={"etag": f'"{hashlib.sha256(body).hexdigest()}"'})


def _note(desk: JobDesk, request: Request, job_id: str) -> None:
    database = desk.jobs.database
    with database.transaction() as connection:
        add_audit(connection, database.now(connection), desk.who(request), "job.scene", job_id)
