"""A scan as a viewer needs to know it: its planes, its slices as the PACS counts them, its windows."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from app.api.figures import Millimetres, Probability
from app.api.opened_scans import OpenedScan
from app.imaging import planes as cuts
from app.imaging.volume import FloatArray
from app.inference.findings import DISCLAIMER

Edge = Literal["R", "L", "A", "P", "H", "F"]
Matrix = list[list[float]]

WINDOWS = {"lung": (-600.0, 1500.0), "mediastinum": (40.0, 400.0), "bone": (400.0, 1800.0), "wide": (-100.0, 2200.0)}
"""Centre and width in HU, the usual ones of chest readers."""


class Edges(BaseModel):
    """What lies beyond each edge of a picture."""

    left: Edge = Field(description="Patient's right or left, front (A) or back (P), head or feet.")
    right: Edge = Field(description="Likewise.")
    top: Edge = Field(description="Likewise.")
    bottom: Edge = Field(description="Likewise.")


class Plane(BaseModel):
    """One way to cut the scan."""

    count: int = Field(description="Slices.")
    rows: int = Field(description="Rows of a slice.")
    columns: int = Field(description="Columns of a slice.")
    row_spacing_mm: float = Field(description="Between the centres of rows, in mm.")
    column_spacing_mm: float = Field(description="Between the centres of columns, in mm.")
    slice_spacing_mm: float = Field(description="Between the centres of slices, in mm.")
    slice_axis: Literal[0, 1, 2] = Field(
        description="Axis (z, y, x) of the scan's index along which slices are counted; their number is that index."
    )
    to_lps_mm: Matrix = Field(
        description="4x4 matrix from (slice, row, column, 1) to patient LPS mm (x, y, z, 1); pixel centres are whole. "
        "Every flip is in it."
    )
    edges: Edges = Field(description="Labels of the picture.")


class Planes(BaseModel):
    """Axial, coronal and sagittal, or what is nearest to them in an oblique scan."""

    axial: Plane = Field(description="Patient's right on the left of the picture, front on top.")
    coronal: Plane = Field(description="Patient's right on the left of the picture, head on top.")
    sagittal: Plane = Field(description="Front on the left of the picture, head on top.")


class Slice(BaseModel):
    """One original slice."""

    index_z: int = Field(description="First index of the scan.")
    instance_number: int | None = Field(description="InstanceNumber: what a PACS shows. Null for other formats.")
    sop_instance_uid: str | None = Field(description="SOPInstanceUID; null for formats without one.")
    frame_number: int | None = Field(description="Frame of an Enhanced object, from 1; else null.")
    position_mm: Millimetres = Field(
        description="Of the slice's first voxel along the normal of the slices, in mm, growing towards the head where "
        "they are axial."
    )


class Window(BaseModel):
    """A window by name."""

    name: str = Field(description="What it shows.")
    center: float = Field(description="Grey in the middle, in HU.")
    width: float = Field(description="From black to white, in HU.")


class Volume(BaseModel):
    """Geometry of a stored scan."""

    job_id: str = Field(description="The job.")
    shape_zyx: tuple[int, int, int] = Field(description="Voxels along each axis of the scan.")
    spacing_zyx_mm: tuple[float, float, float] = Field(description="Between voxel centres along each axis, in mm.")
    affine_index_zyx_to_lps_mm: Matrix = Field(
        description="4x4 matrix from index (z, y, x, 1) to patient LPS mm (x, y, z, 1)."
    )
    hu_range: tuple[int, int] = Field(description="Lowest and highest value, in HU.")
    planes: Planes = Field(description="How slabs are cut.")
    slices: list[Slice] = Field(description="Along the first index.")
    windows: list[Window] = Field(description="Those that readers of a chest use.")
    disclaimer: str = Field(description="What it must not be used for.")


class HuAtPoint(BaseModel):
    """The value under a cursor."""

    hu: int | None = Field(description="Of the voxel that holds the point; null outside the scan.")
    index_zyx: tuple[int, int, int] | None = Field(description="Its index; null outside the scan.")


class Outline(BaseModel):
    """A nodule's outline on each plane: [slice, [[row, column], ...]] for each closed line."""

    axial: list[tuple[int, list[tuple[float, float]]]] = Field(description="On axial slices.")
    coronal: list[tuple[int, list[tuple[float, float]]]] = Field(description="On coronal slices.")
    sagittal: list[tuple[int, list[tuple[float, float]]]] = Field(description="On sagittal slices.")


class Outlines(BaseModel):
    """The outlines of all nodules, along the voxels that SEG marks."""

    nodules: dict[str, Outline] = Field(description="By the id of the nodule.")


class Candidate(BaseModel):
    """A place that the networks looked at."""

    id: str = Field(description="Of the nodule, or candidate-1, -2, ... for what is not reported.")
    probability: Probability = Field(description="That it is a nodule, 0 to 1: the same scale as the threshold.")
    center_lps_mm: tuple[Millimetres, Millimetres, Millimetres] = Field(description="(x, y, z) in patient LPS mm.")
    diameter_mm: Millimetres = Field(description="Measured for a nodule, the detector's guess for the others, in mm.")
    reported: bool = Field(description="Whether it is in the answer.")


class CurvePoint(BaseModel):
    """What a threshold was measured to mean."""

    threshold: float = Field(description="On the probability.")
    sensitivity: float | None = Field(description="Share of the nodules that are found, 0 to 1.")
    false_positives_per_scan: float | None = Field(description="Marks that are no nodule, for each scan.")
    name: str = Field(description="Of the operating point.")


class Candidates(BaseModel):
    """All that a reader may want to see when the threshold is moved."""

    threshold: float = Field(description="In force for the answer.")
    lowest: float | None = Field(
        description="Candidates of less were not kept; null for an answer that was stored before any were."
    )
    candidates: list[Candidate] = Field(description="By falling probability; at most 100 beside the nodules.")
    curve: list[CurvePoint] = Field(description="By rising threshold; empty where the store no longer has the model.")
    measured_on: str | None = Field(description="The data of the curve; null where it is not told.")


def volume_answer(job_id: str, scan: OpenedScan) -> Volume:
    """The public form of an opened scan."""
    z, y, x = (float(mm) for mm in scan.grid.spacing_zyx_mm)
    planes = {name: _plane(plane) for name, plane in scan.planes.items()}
    return Volume(
        job_id=job_id,
        shape_zyx=scan.grid.shape_zyx,
        spacing_zyx_mm=(z, y, x),
        affine_index_zyx_to_lps_mm=_rows(scan.grid.affine),
        hu_range=scan.hu_range,
        planes=Planes(axial=planes["axial"], coronal=planes["coronal"], sagittal=planes["sagittal"]),
        slices=_slices(scan),
        windows=[Window(name=name, center=center, width=width) for name, (center, width) in WINDOWS.items()],
        disclaimer=DISCLAIMER,
    )


def _plane(plane: cuts.Plane) -> Plane:
    count, rows, columns = plane.shape
    slice_mm, row_mm, column_mm = plane.spacing_mm
    return Plane.model_validate(
        {
            "count": count,
            "rows": rows,
            "columns": columns,
            "slice_spacing_mm": slice_mm,
            "row_spacing_mm": row_mm,
            "column_spacing_mm": column_mm,
            "slice_axis": plane.axes[0],
            "to_lps_mm": _rows(plane.to_lps_mm),
            "edges": vars(plane.edges),
        }
    )


def _slices(scan: OpenedScan) -> list[Slice]:
    identities = scan.identity.slices if scan.identity else ()
    positions_mm = scan.grid.to_patient([(z, 0, 0) for z in range(scan.grid.shape_zyx[0])]) @ scan.slice_normal
    return [
        Slice(
            index_z=z,
            instance_number=identities[z].instance_number if identities else None,
            sop_instance_uid=identities[z].sop_instance_uid if identities else None,
            frame_number=identities[z].frame_number if identities else None,
            position_mm=float(position_mm),
        )
        for z, position_mm in enumerate(positions_mm)
    ]


def _rows(matrix: FloatArray) -> Matrix:
    rows: Matrix = (matrix + 0.0).tolist()
    return rows
