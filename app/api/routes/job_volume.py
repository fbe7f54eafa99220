"""The stored scan of a job to look at: its geometry, slices as grey values, the value under a cursor."""

from __future__ import annotations

import gzip
import math
import re
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response

from app.api.errors import InvalidParameter
from app.api.job_desk import DeskDependency
from app.api.opened_scans import OpenedScan, ScansDependency
from app.api.problems import problem_responses
from app.api.volume_schemas import HuAtPoint, Volume, volume_answer
from app.imaging.planes import Plane, PlaneName
from app.imaging.slabs import Slab, Window, cut

router = APIRouter(tags=["workspace"])

MOST_SLAB_BYTES = 16 << 20
_MOST_SLAB_VOXELS = 48 << 20
_WORTH_PACKING = 64 << 10
_GZIP = re.compile(r"(?:^|[\s,])gzip(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))")
"""Among the encodings that a client takes, and not by `q=0` among those it refuses."""
_GZIP_LEVEL = 1
"""Higher levels take several times as long for a few per cent."""
_REFUSALS = (404, 410, 413, 415, 422, 429, 500, 503)

PlaneQuery = Annotated[PlaneName, Query(description="Which plane is cut.")]
CenterQuery = Annotated[float, Query(ge=-32768, le=32767, allow_inf_nan=False, description="Middle of the window, HU.")]
WidthQuery = Annotated[float, Query(ge=1, le=65536, allow_inf_nan=False, description="Width of the window, HU.")]

_SLAB: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "uint8 grey values in C order (slices, rows, columns).",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        "headers": {
            "X-Slab-Shape": {"description": "slices,rows,columns", "schema": {"type": "string"}, "example": "8,512,512"}
        },
    },
    **problem_responses(*_REFUSALS),
}


@router.get("/v1/jobs/{job_id}/volume", summary="Geometry of the stored scan", responses=problem_responses(*_REFUSALS))
async def show_volume(job_id: str, request: Request, scans: ScansDependency) -> Volume:
    """Planes with their matrices, slices as the PACS counts them, windows.

    The first request opens the scan, which takes a second or so for hundreds of slices. It may come before the job is
    done: then the slices are there when the answer is.
    """
    scan = await scans.look(request, job_id)
    return volume_answer(job_id, scan)


@router.get("/v1/jobs/{job_id}/volume/slab", summary="Slices as grey values", response_class=Response, responses=_SLAB)
async def cut_slab(
    job_id: str,
    request: Request,
    desk: DeskDependency,
    scans: ScansDependency,
    plane: PlaneQuery = "axial",
    first: Annotated[int, Query(ge=0, le=100_000, description="Number of the first slice.")] = 0,
    count: Annotated[int, Query(ge=1, le=4096, description="Slices; fewer at the end of the scan.")] = 1,
    center: CenterQuery = -600.0,
    width: WidthQuery = 1500.0,
    step: Annotated[int, Query(ge=1, le=16, description="Every how manieth row and column, from the first.")] = 1,
    mip_mm: Annotated[
        float, Query(ge=0, le=100, allow_inf_nan=False, description="Thickness of the maximum, centred, mm; 0: none.")
    ] = 0.0,
) -> Response:
    """Windowed slices of one plane, at most 16 MiB; the header says how many slices, rows and columns they are.

    Pixel (row, column) of the answer is (row * step, column * step) for the plane's matrix.
    """
    scan = await scans.look(request, job_id)
    slab = Slab(first, count, step, mip_mm)
    _refuse_slab(scan.planes[plane], slab)
    packed = _GZIP.search(request.headers.get("accept-encoding", "").lower()) is not None
    async with scans.cutting:
        body, shape = await desk.run(_slab_body, scan, plane, slab, Window(center, width), may_pack=packed)
    headers = {"x-slab-shape": ",".join(map(str, shape)), "vary": "Accept-Encoding"}
    if body.packed:
        headers["content-encoding"] = "gzip"
    return Response(body.content, media_type="application/octet-stream", headers=headers)


@router.get("/v1/jobs/{job_id}/volume/hu", summary="Value at a point", responses=problem_responses(*_REFUSALS))
async def read_hu(
    job_id: str,
    request: Request,
    scans: ScansDependency,
    lps: Annotated[str, Query(max_length=100, description="x,y,z in patient LPS mm.", examples=["12.5,-30.0,105.0"])],
) -> HuAtPoint:
    """Hounsfield units of the voxel that holds a point."""
    scan = await scans.look(request, job_id)
    index = scan.grid.to_index(_point(lps))
    if not scan.grid.contains_index(index):
        return HuAtPoint(hu=None, index_zyx=None)
    z, y, x = (int(np.clip(np.rint(i), 0, n - 1)) for i, n in zip(index, scan.grid.shape_zyx, strict=True))
    return HuAtPoint(hu=int(scan.hu[z, y, x]), index_zyx=(z, y, x))


def _refuse_slab(plane: Plane, slab: Slab) -> None:
    if slab.first >= plane.shape[0]:
        raise InvalidParameter(
            f"The plane has {plane.shape[0]} slices, counted from 0.",
            code="slice_out_of_range",
            values={"slices": plane.shape[0]},
        )
    size, voxels = math.prod(slab.shape(plane)), slab.voxels(plane)
    if size > MOST_SLAB_BYTES or voxels > _MOST_SLAB_VOXELS:
        raise InvalidParameter(
            "The slab is too large. Ask for fewer slices, a larger step or a thinner maximum.",
            code="slab_too_large",
            values={
                "bytes": size, "most_bytes": MOST_SLAB_BYTES, "voxels_read": voxels, "most_voxels": _MOST_SLAB_VOXELS,
            },
        )  # fmt: skip


class _Body:
    """What is sent, and whether it is packed."""

    def __init__(self, grey: bytes, *, may_pack: bool) -> None:
        self.packed = may_pack and len(grey) >= _WORTH_PACKING
        self.content = gzip.compress(grey, _GZIP_LEVEL, mtime=0) if self.packed else grey


def _slab_body(
    scan: OpenedScan, plane: PlaneName, slab: Slab, window: Window, *, may_pack: bool
) -> tuple[_Body, tuple[int, ...]]:
    grey = cut(scan.hu, scan.planes[plane], slab, window)
    return _Body(grey.tobytes(), may_pack=may_pack), grey.shape


def _point(lps: str) -> list[float]:
    try:
        numbers = [float(part) for part in lps.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 3 or not all(math.isfinite(number) for number in numbers):
        raise InvalidParameter("A point is three numbers, x,y,z in patient LPS mm.", code="invalid_point")
    return numbers
